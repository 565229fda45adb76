"""Folders of finished pictures: which file shows which prompt of a list."""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from stablepref.images.paths import image_files

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from stablepref.data.prompts import ListedPrompt

_OWN: Final = re.compile(r"(?P<key>.+?)(?:-(?P<number>[1-9]\d*))?")
"""Of `picture_name`."""
_GENEVAL: Final = re.compile(r"(?P<key>.+)/samples/(?P<number>\d{4,})")


def picture_name(prompt: ListedPrompt, number: int) -> str:
    """An image's name in its model's folder, without suffix: "00012", "anime/00012-1"."""
    return f"{prompt.key}-{number}" if number else prompt.key


def pictures_of_prompts(
    folder: Path, prompts: Sequence[ListedPrompt]
) -> dict[int, dict[int, object]]:
    """The pictures that a folder has for the prompts of a list.

    They are named as `picture_name` says, which is the layout of HPD v2 (`STYLE/00000.jpg`) and of
    DrawBench (`00000.jpg`), or in that of GenEval (`00000/samples/0000.png`). Those that are named
    after no prompt are counted in a warning, unless all are.

    Args:
        folder: It and the folders below it are read.
        prompts: The list.

    Returns:
        For each place in the list that has pictures these by their numbers, from 0.

    Raises:
        ValueError: Two files have one name but for the suffix.
        OSError: The folder cannot be read.
    """
    files: dict[str, Path] = {}
    for path in image_files(folder.rglob("*"), where=folder):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in files:
            msg = f"{path} and {files[name]} are two images of one name: keep one of them"
            raise ValueError(msg)
        files[name] = path
    places = {prompt.key: place for place, prompt in enumerate(prompts)}
    found: dict[int, dict[int, object]] = defaultdict(dict)
    foreign = []
    for name, path in files.items():
        layouts = [
            (layout, places[fits["key"]], int(fits["number"] or 0))
            for layout in (_OWN, _GENEVAL)
            if (fits := layout.fullmatch(name)) and fits["key"] in places
        ]
        for layout, place, number in layouts:
            # A run's own layout goes before GenEval's.
            if layout is _OWN or number not in found[place]:
                found[place][number] = path
        if not layouts and not name.endswith("/grid"):  # GenEval's picture of a prompt's samples
            foreign.append(name)
    if foreign and found:
        msg = (
            f"{folder}: {len(foreign)} images are named after no prompt of this set, and are left "
            f"out: {', '.join(foreign[:3])}{', ...' * (len(foreign) > 3)}"
        )
        warnings.warn(msg, stacklevel=2)
    return found
