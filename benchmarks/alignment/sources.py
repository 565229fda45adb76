"""Which image shows which prompt: an object of paths, a folder, or a manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from stablepref.data.groups import DataError, shown
from stablepref.data.json_values import json_document, json_text
from stablepref.images.sources import UnusableImageError

from ..bench.contestants import check_name
from ..bench.image_folders import finished_pictures

if TYPE_CHECKING:
    from stablepref.data.prompts import ListedPrompt


class Source(NamedTuple):
    """A model's images.

    Attributes:
        name: What tables call the model.
        place: A JSON object of paths, a folder, or a manifest.
    """

    name: str
    place: Path


def parse_sources(texts: Sequence[str]) -> list[Source]:
    """Sources as typed: `[NAME=]PLACE`, each name once.

    Raises:
        ValueError: A place does not exist, or a name is given twice or cannot be one.
    """
    found: list[Source] = []
    for text in texts:
        name, equals, rest = text.partition("=")
        if not equals or Path(text).exists():
            name, rest = Path(text).stem, text
        check_name(name)
        place = Path(rest).expanduser()
        if not place.exists():
            msg = f"{rest} does not exist; expected a JSON file of paths, a folder or a manifest"
            raise ValueError(msg)
        if name in {one.name for one in found}:
            msg = f"{name} is the name of two sources; write NAME=PLACE to tell them apart"
            raise ValueError(msg)
        found.append(Source(name, place))
    return found


def images_of(source: Source, prompts: Sequence[ListedPrompt]) -> list[object]:
    """The image of each prompt, as `stablepref.images.decode` takes it.

    A JSON object has paths under prompts, as GenEval 2 has it, or under ids, as TIFA; relative ones
    start from the file's folder, else from the working directory. Of folders and manifests see
    `finished_pictures`.

    Returns:
        In the order of the prompts; an `UnusableImageError` says why there is none.

    Raises:
        DataError: A JSON file is damaged, or has something else than paths.
        ValueError: No image fits.
        OSError: The source cannot be read.
    """
    place = source.place
    if place.suffix.lower() == ".json" and json_text(place).lstrip().startswith("{"):
        return _of_object(place, prompts)
    found: dict[int, object] = {}
    for one in finished_pictures(source.name, place, prompts, 1):
        found[one.prompt] = one.image
    return [found[number] for number in range(len(prompts))]


def _of_object(place: Path, prompts: Sequence[ListedPrompt]) -> list[object]:
    paths = json_document(place)
    assert isinstance(paths, Mapping), "the text begins with a brace"
    found: list[object] = []
    for one in prompts:
        key = next((name for name in (one.prompt, one.key) if name in paths), None)
        if key is None:
            found.append(UnusableImageError(f"{place} has no image for {one.key}"))
            continue
        path = paths[key]
        if not isinstance(path, str) or not path:
            raise DataError(place, f"entry {shown(key)}", f"{shown(path)}; expected a path")
        beside = place.parent / path
        found.append(beside if beside.exists() or not Path(path).exists() else Path(path))
    if all(isinstance(one, UnusableImageError) for one in found):
        msg = f"{place} has no image for any prompt; expected {{{prompts[0].prompt!r}: path, ...}}"
        raise ValueError(msg)
    return found
