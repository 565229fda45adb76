"""Which scorers there are by name, how others are added, and what a model may be called.

A package adds scorers by entry points of the group `stablepref.scorers`, a program by
`stablepref.register`. Nothing here imports torch.
"""

from __future__ import annotations

import json
import os
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from stablepref.models.catalog import BY_NAME, ENTRIES
from stablepref.models.entry import Builder, Entry
from stablepref.models.families import FAMILIES, family_member
from stablepref.runtime.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")

DEFAULT_MODEL: Final = "hps-v2.1"
CONFIG: Final = "config.json"
"""The file of a saved scorer that says of which kind it is."""
HUB_PREFIX: Final = "hf-hub:"
OPEN_CLIP: Final = "open_clip:"
DTYPES: Final = ("float32", "bfloat16", "float16", "float64")

SCORERS: Final[Registry[Entry | Builder]] = Registry("scorer", "stablepref.scorers", BY_NAME)
"""All scorers by name: those of the catalogue, and those from outside."""


def register(name: str, scorer: Entry | Builder) -> None:
    """Add a scorer from outside this package to the names that `stablepref.load` knows.

    It lasts for this process. A package adds one for good, for the command line too, by an entry
    point of the group `stablepref.scorers` that names the same as is given here::

        [project.entry-points."stablepref.scorers"]
        brightness = "my_package:build_brightness"

    Args:
        name: What `stablepref.load` shall call it.
        scorer: A function `build(entry, files)` that makes the scorer, or an `Entry` of this name,
            which can also say what is downloaded and what `stablepref models` shows.

    Raises:
        ValueError: The name is empty or another scorer's, or an entry has another name.
        TypeError: `scorer` is neither a function nor an `Entry`.
    """
    as_entry(name, scorer)
    SCORERS.register(name, scorer)


def entry_of(name: str) -> Entry:
    """The entry of a name of `SCORERS` or of a family; a package from outside is imported for it.

    Raises:
        KeyError: Nothing has this name.
        ImportError: A package says that it brings one of this name, and fails to.
        ValueError: As `register`.
        TypeError: As `register`.
    """
    member = None if name in SCORERS else family_member(name)
    return member or as_entry(name, SCORERS[name])


def is_known(name: str) -> bool:
    """Whether a name is one of `SCORERS`, or written like those of a family."""
    return name in SCORERS or family_member(name) is not None


def as_entry(name: str, scorer: Entry | Builder) -> Entry:
    """What was registered under a name, as an entry; see `register`."""
    if isinstance(scorer, Entry):
        if scorer.name != name:
            msg = (
                f"the entry of the scorer {name!r} has the name {scorer.name!r}; expected {name!r}"
            )
            raise ValueError(msg)
        return scorer
    given: object = scorer
    if not callable(given):
        msg = (
            f"the scorer {name!r} is given as {type(given).__name__}; expected a function "
            "build(entry, files) or a stablepref.models.entry.Entry"
        )
        raise TypeError(msg)
    return Entry(name, scorer)


def class_of_kind(kind: object, base: type[T]) -> type[T]:
    """The subclass that saved configurations call `kind`.

    A kind of the catalogue is looked for in the module of its builder. For another, the packages
    of all scorers from outside are imported, and a class that declares the kind is looked for.

    Args:
        kind: What stands in a configuration.
        base: The class whose subclasses declare kinds.

    Raises:
        ValueError: No class is known by this; the message lists those that are.
    """
    for entry in (*ENTRIES, *FAMILIES):
        if entry.kind and entry.kind == kind:
            module = import_module(str(entry.builder).partition(":")[0])
            own = (cls for cls in _declaring(base) if cls.__module__ == module.__name__)
            return next(cls for cls in own if cls.__dict__["kind"] == kind)
    failed = []
    for name in SCORERS:
        try:
            SCORERS[name]
        except ImportError as error:
            failed.append(str(error))
    known = {cls.__dict__["kind"]: cls for cls in _declaring(base)}
    if isinstance(kind, str) and kind in known:
        return known[kind]
    listed = (entry.kind for entry in (*ENTRIES, *FAMILIES) if entry.kind)
    kinds = dict.fromkeys((*listed, *known))
    msg = f"no scorer is called {kind!r}; expected one of {', '.join(map(repr, kinds))}"
    raise ValueError("; ".join([msg, *failed]))


def _declaring(cls: type[T]) -> Iterator[type[T]]:
    """The subclasses that declare a kind, a later definition of the same after an earlier one."""
    for below in cls.__subclasses__():
        if below.__dict__.get("kind"):
            yield below
        yield from _declaring(below)


def not_a_model(given: object, expected: str, *, what: str = "the model") -> str:
    """The message where something else stands for a model.

    Args:
        given: What stands there.
        expected: What may.
        what: What it is called there.
    """
    message = f"{what} is a {type(given).__name__}; expected {expected}"
    if callable(given) and not hasattr(given, "parameters"):  # no network either
        message += (
            "; a function of images and prompts becomes a scorer by stablepref.FunctionScorer(fn, "
            "name=..., unit=...)"
        )
    return message


def model_name(name_or_path: str | os.PathLike[str] | None) -> str:
    """The name, path or hub repository that is meant; None is `$STABLEPREF_MODEL` or the default.

    A leading `~` is the home folder. A name that people know a model of the catalogue by stands for
    it, in whatever case, with hyphens, underscores and spaces or without: "HPSv2.1",
    "ImageReward-v1.0", "yuvalkirstain/PickScore_v1".

    Raises:
        TypeError: It is neither a text nor a path.
    """
    if name_or_path is not None and not isinstance(name_or_path, str | os.PathLike):
        raise TypeError(not_a_model(name_or_path, "a name or a path"))
    name = os.fspath(name_or_path or os.environ.get("STABLEPREF_MODEL") or DEFAULT_MODEL)
    if name.startswith("~"):
        return str(Path(name).expanduser())
    if name in SCORERS or Path(name).exists():
        return name
    return _known_as().get(_plain(name), name)


@cache
def _known_as() -> dict[str, str]:
    """The name of each model by its own names and aliases, in plain form."""
    return {
        _plain(other): entry.name for entry in ENTRIES for other in (entry.name, *entry.aliases)
    }


def _plain(name: str) -> str:
    """A name without what people write differently."""
    return name.casefold().translate(str.maketrans("", "", "-_ "))


def _similar(name: str) -> str:
    """What a mistyped name may have meant, as the end of a message."""
    known = {**{_plain(one): one for one in SCORERS}, **_known_as()}
    close = get_close_matches(_plain(name), known, n=2, cutoff=0.6)
    found = list(dict.fromkeys(known[one] for one in close))
    return f"; did you mean {' or '.join(found)}?" if found else ""


def check_model(name: str, like: str | None) -> None:
    """Refuse names under which nothing can be loaded; torch is not needed for it.

    Args:
        name: Of `model_name`.
        like: The name whose architecture a checkpoint file has, if it was given.

    Raises:
        ValueError: Neither a name of `SCORERS`, nor a path, nor a hub repository; or `like` is no
            model that has files, or is given with a name. The message lists what is known.
    """
    with_files = [entry.name for entry in ENTRIES if entry.files]
    if like is not None and like.startswith(OPEN_CLIP):
        if Path(name).is_file():
            return
        msg = f"like={like!r} says what a checkpoint file holds; {name!r} is no file"
        raise ValueError(msg)
    if like is not None and not (
        like in with_files or (like not in BY_NAME and like in SCORERS and entry_of(like).files)
    ):
        msg = (
            f"like={like!r} is no model with an official file; known: {', '.join(with_files)}, "
            f"{OPEN_CLIP}NAME"
        )
        raise ValueError(msg)
    known = is_known(name)
    if name.startswith(HUB_PREFIX) or Path(name).exists() or (known and like is None):
        return
    if known:
        msg = (
            f"like={like!r} says what a checkpoint file holds, but {name!r} is a model's name and "
            "no file here: leave like out"
        )
        raise ValueError(msg)
    msg = (
        f"unknown model {name!r}: neither a path nor one of "
        f"{', '.join([*SCORERS, *(family.name for family in FAMILIES)])}; "
        f"a hub repository is written {HUB_PREFIX}user/repo{_similar(name)}"
    )
    raise ValueError(msg)


def needs_prompt(name: str, like: str | None = None) -> bool | None:
    """Whether a model's scores depend on the prompt; None where only loading it can tell.

    Args:
        name: Of `model_name`.
        like: As for `check_model`.
    """
    known = name if like is None else model_name(like)
    if known in SCORERS:
        value = SCORERS[known]
        return value.needs_prompt if isinstance(value, Entry) else None
    try:
        kind = json.loads((Path(name) / CONFIG).read_bytes())["scorer"]
    except (OSError, ValueError, TypeError, KeyError):  # loading it says what is wrong
        return None
    return next((entry.needs_prompt for entry in ENTRIES if entry.kind == kind), None)


def check_dtype(dtype: object) -> str:
    """The name of a number type that encoders can have.

    Args:
        dtype: A `torch.dtype` or its name.

    Raises:
        ValueError: It is no such type.
    """
    name = dtype if isinstance(dtype, str) else str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        known = ", ".join(DTYPES)
        msg = (
            f'dtype must be one of {known}, as a torch.dtype or its name, or "auto"; got {dtype!r}'
        )
        raise ValueError(msg)
    return name
