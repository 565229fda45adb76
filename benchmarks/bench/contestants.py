"""Models of a benchmark: pipelines, each with its LoRAs and settings, or finished pictures.

Needs no torch, so that mistakes on the command line are reported at once.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from stablepref.assets import PIPELINES
from stablepref.data.manifest import is_manifest
from stablepref.integrations.diffusion.named import INDEX, REPOSITORY, check_lora, check_pipeline
from stablepref.integrations.diffusion.single_file import refuse_single_file
from stablepref.output.names import stays_inside

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

SHORT_NAMES: Final = {
    "steps": "num_inference_steps",
    "guidance": "guidance_scale",
    "negative": "negative_prompt",
}
"""Short names for arguments of a pipeline's call."""
_NAME: Final = re.compile(r"\w[\w.\- ]*")


@final
@dataclass(frozen=True)
class Lora:
    """Low-rank weights on a pipeline.

    Attributes:
        path: Folder, file or hub repository.
        weight: Their scale.
    """

    path: str
    weight: float = 1.0


@final
@dataclass(frozen=True)
class Contestant:
    """One text-to-image model of a benchmark.

    Attributes:
        name: Its name in tables, and that of its folder of images.
        source: A bundled pipeline's name, a pipeline's folder or hub repository; or a folder or
            manifest of finished pictures.
        loras: Put on the pipeline together.
        arguments: For its pipeline's call; they override those that all models share.
    """

    name: str
    source: str
    loras: tuple[Lora, ...] = ()
    arguments: Mapping[str, object] = field(default_factory=dict, hash=False)

    @property
    def finished(self) -> bool:
        """Whether its pictures exist already: a manifest, or a folder that is not a pipeline."""
        here = _local(self.source)
        return is_manifest(self.source) or (
            here is not None and here.is_dir() and not (here / INDEX).is_file()
        )

    def row(self) -> dict[str, object]:
        """Everything that its pictures depend on, plain JSON values."""
        here = _local(self.source)
        return {
            "source": self.source if here is None else str(here.resolve()),
            "loras": [[lora.path, lora.weight] for lora in self.loras],
            "arguments": dict(self.arguments),
        }


def _local(source: str) -> Path | None:
    """The file or folder that a source names; None for a bundled pipeline and what is missing."""
    path = Path(source)
    return path if source not in PIPELINES and path.exists() else None


def parse_contestants(models: Sequence[str | Contestant]) -> tuple[Contestant, ...]:
    """The models of a benchmark; text is read by `parse_contestant`.

    Raises:
        ValueError: No model is given, two have the same name, or `parse_contestant` refuses one.
    """
    contestants = tuple(parse_contestant(one) if isinstance(one, str) else one for one in models)
    if not contestants:
        msg = "no model is given; expected a pipeline or a folder of images"
        raise ValueError(msg)
    names = [check_name(one.name) for one in contestants]
    for name in names:
        if names.count(name) > 1:
            msg = f"two models are called {name!r}: rename one of them, --model NAME={name}"
            raise ValueError(msg)
    return contestants


def check_sources(contestants: Sequence[Contestant]) -> None:
    """Refuse pipelines and LoRAs that are not to be had, before anything is loaded.

    Raises:
        ValueError: One is nothing that could be a pipeline, or LoRA weights.
        OSError: One is a hub repository that is not in the cache, and the hub cannot be reached.
    """
    for contestant in contestants:
        if contestant.finished:
            continue
        checks: list[tuple[Callable[[str], None], str]] = [
            (check_pipeline, contestant.source),
            *((check_lora, lora.path) for lora in contestant.loras),
        ]
        for check, source in checks:
            try:
                check(source)
            except (ValueError, OSError) as error:
                msg = f"model {contestant.name}: {error}"
                raise type(error)(msg) from error


def check_name(name: str) -> str:
    """Refuse a model's name that cannot be a folder's.

    Returns:
        The name.

    Raises:
        ValueError: It would lead elsewhere.
    """
    if "/" in name or not stays_inside(name):
        msg = f"a model's name is {name!r}; expected the name of a folder"
        raise ValueError(msg)
    return name


def parse_contestant(text: str) -> Contestant:
    """A model as typed: `[NAME=]SOURCE[,KEY=VALUE...]`.

    SOURCE is a bundled pipeline's name, a pipeline's folder or hub repository, a folder of pictures
    or a manifest of them; NAME is by default its last part. `lora=PATH` or `lora=PATH@WEIGHT`,
    which may stand several times, puts LoRAs on the pipeline; any other KEY is an argument of its
    call, with `SHORT_NAMES` for the usual ones, its VALUE a JSON value or else words. Paths that
    exist and values may have commas in them.

    Raises:
        ValueError: The source is none of these, the name cannot be a folder's, or finished pictures
            are given LoRAs or arguments.
    """
    source, *settings = _pieces(text)
    name = None
    if "=" in source and not Path(source).expanduser().exists():
        name, source = source.split("=", 1)
    here = _local(str(Path(source).expanduser()))
    known = here is not None or source in PIPELINES or REPOSITORY.fullmatch(source)
    if not source or not known:
        msg = (
            f"model {text!r}: there is no {source!r} here; expected the folder or hub repository "
            f"(user/name) of a pipeline, {', '.join(PIPELINES)} for the bundled one, or a folder "
            "or manifest of images"
        )
        raise ValueError(msg)
    if here is not None:
        refuse_single_file(str(here))
    if here is not None and here.is_file() and not is_manifest(source):
        msg = (
            f"model {text!r}: a single file is neither a pipeline nor a manifest of images; "
            "expected a folder or a manifest"
        )
        raise ValueError(msg)
    if name is None:
        place = Path(source) if here is None else here.resolve()
        name = place.stem if is_manifest(source) else place.name
    if not _NAME.fullmatch(name):
        msg = (
            f"model {text!r}: the name {name!r} may only have letters, digits, '.', '-', '_' and "
            "' '; write NAME=SOURCE"
        )
        raise ValueError(msg)
    loras: list[Lora] = []
    arguments: dict[str, object] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key or not value:
            msg = f"model {text!r}: {setting!r} is not of the form KEY=VALUE"
            raise ValueError(msg)
        if key == "lora":
            loras.append(_lora(value))
        else:
            arguments[SHORT_NAMES.get(key, key)] = _value(value)
    made = Contestant(name, source if here is None else str(here), tuple(loras), arguments)
    if made.finished and settings:
        msg = f"model {text!r}: finished images take no settings; drop {', '.join(settings)}"
        raise ValueError(msg)
    return made


def _pieces(text: str) -> list[str]:
    """The parts of a model as typed between commas: none within a path that exists, or a value."""
    tokens = text.split(",")
    pieces: list[str] = []
    place = 0
    while place < len(tokens):
        ends = range(len(tokens), place + 1, -1)
        end = next((e for e in ends if _names_file(",".join(tokens[place:e]))), place + 1)
        piece = ",".join(tokens[place:end])
        if len(pieces) > 1 and "=" not in piece:
            pieces[-1] += f",{piece}"  # of a value, as in negative=blurry, dull
        else:
            pieces.append(piece)
        place = end
    return pieces


def _names_file(piece: str) -> bool:
    """Whether a piece is the path of something, behind `KEY=` or in front of `@WEIGHT` too."""
    key, _, value = piece.partition("=")
    if "," in key:  # as in shapes,lora=PATH, of which only the end is a path
        value = ""
    path, _, weight = value.rpartition("@")
    return _exists(piece) or _exists(value) or ("," not in weight and _exists(path))


def _exists(path: str) -> bool:
    return bool(path) and os.path.exists(os.path.expanduser(path))  # noqa: PTH110, PTH111 (any text)


def _lora(text: str) -> Lora:
    path, at, weight = text.rpartition("@")
    if not at or _exists(text):
        return Lora(text)
    try:
        return Lora(path, float(weight))
    except ValueError as error:
        msg = f"lora={text}: {weight!r} is not a weight; expected a number, as in lora=PATH@0.8"
        raise ValueError(msg) from error


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text
