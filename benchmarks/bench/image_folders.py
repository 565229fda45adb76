"""Finished pictures of a model: which file shows which prompt."""

from __future__ import annotations

import warnings
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from stablepref.data.layouts import pictures_of_prompts
from stablepref.data.manifest import is_manifest, read_manifest
from stablepref.images.sources import UnusableImageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from stablepref.data.prompts import ListedPrompt

IMAGES_FOLDER: Final = "images"
"""Where a run keeps the pictures that it made, a folder for each model."""


@final
@dataclass(frozen=True)
class Picture:
    """One image to be scored.

    Attributes:
        model: Who made it.
        prompt: Place of its prompt in the set.
        number: Which of the prompt's images it is, from 0.
        image: What `stablepref.images.decode` takes; an `UnusableImageError` in its place says why
            there is none.
    """

    model: str
    prompt: int
    number: int
    image: object

    @property
    def key(self) -> tuple[str, int, int]:
        """What tells it from all others."""
        return self.model, self.prompt, self.number


def finished_pictures(
    model: str, source: Path, prompts: Sequence[ListedPrompt], images: int
) -> list[Picture]:
    """The pictures that a folder or manifest has for the prompts.

    A folder has them in the layouts of `stablepref.data.layouts`. A manifest has an image and its
    prompt in each row; a prompt's rows are dealt to its places in the set in turn.

    Args:
        model: Who made them.
        source: The folder or manifest.
        prompts: The set.
        images: Of each prompt at most.

    Returns:
        The pictures in the order of the prompts; one that says why for a prompt without any.

    Raises:
        ValueError: None fits, or two files have one name but for the suffix.
        OSError: The source cannot be read.
    """
    if is_manifest(str(source)):
        found = _of_manifest(source, prompts)
        expected = f"a row of {source} with this prompt"
    else:
        found = dict(pictures_of_prompts(source, prompts))
        expected = f"{source}/{prompts[0].key}.jpg or .png, or a manifest"
    if not found:
        msg = f"{model}: {source} has no image for these prompts; expected {expected}"
        raise ValueError(msg)
    surplus = sum(number >= images for there in found.values() for number in there)
    if surplus:
        msg = (
            f"{model}: {source} has {surplus} images more than the {images} of each prompt that "
            "were asked for, and they are left out; ask for more with --images"
        )
        warnings.warn(msg, stacklevel=2)
    pictures = []
    for place, prompt in enumerate(prompts):
        there = {n: image for n, image in found.get(place, {}).items() if n < images}
        if not there:
            there[0] = UnusableImageError(f"{source} has no image for the prompt {prompt.key}")
        pictures += [Picture(model, place, n, there[n]) for n in sorted(there)]
    return pictures


def _of_manifest(manifest: Path, prompts: Sequence[ListedPrompt]) -> dict[int, dict[int, object]]:
    places: dict[str, list[int]] = defaultdict(list)
    for place, prompt in enumerate(prompts):
        places[prompt.prompt].append(place)
    dealt: dict[str, int] = defaultdict(int)
    found: dict[int, dict[int, object]] = defaultdict(dict)
    foreign = 0
    for item in read_manifest(manifest):
        if item.prompt is None:
            msg = f"{item.name}: {item.image}"
            raise ValueError(msg)
        mine = places.get(item.prompt)
        if mine is None:
            foreign += 1
            continue
        number, turn = divmod(dealt[item.prompt], len(mine))
        dealt[item.prompt] += 1
        found[mine[turn]][number] = item.image
    if foreign:
        msg = f"{manifest}: {foreign} rows have prompts that are not in this set, and are left out"
        warnings.warn(msg, stacklevel=2)
    return found
