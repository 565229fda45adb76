"""Ranked groups with scores in place of their images, and what identifies an image."""

from __future__ import annotations

import itertools
import math
import os
import weakref
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np

from stablepref.data.groups import MINIMUM_IMAGES
from stablepref.images.sources import describe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stablepref.data.groups import RankedGroup, Ranks
    from stablepref.evaluation.means import Array


Key = str | bytes | int


@final
class ImageKeys:
    """Gives equal keys to the same image: to equal paths or URLs, equal bytes, the same object.

    Objects are recognised as long as they exist, and are not kept alive.
    """

    def __init__(self) -> None:
        self._objects: dict[int, tuple[weakref.ref[object], int]] = {}
        self._numbers = itertools.count()

    def __call__(self, image: object) -> Key:
        """The image's key."""
        if isinstance(image, str | os.PathLike):
            return os.fsdecode(image)
        if isinstance(image, bytes):
            return blake2b(image, digest_size=16).digest()
        place = id(image)
        if place in self._objects:
            return self._objects[place][1]
        number = next(self._numbers)
        try:
            reference = weakref.ref(image, lambda _: self._objects.pop(place, None))
        except TypeError:  # a dictionary, for instance: each counts as another image
            return number
        self._objects[place] = reference, number
        return number


@final
@dataclass(frozen=True, eq=False)
class ScoredGroup:
    """A ranked group with scores in place of its images.

    Attributes:
        label: The group's id, or its number in the data, from 1.
        prompt: The prompt.
        images: Paths, URLs or short descriptions of the images.
        ranks: One for each image; lower is better, equal ranks are ties.
        annotations: Single annotators' ranks of the images, where they are known.
        scores: In the model's unit, float64 ``(1 + perturbations, images)``: of the images as they
            are, then of each perturbation's; NaN for images that could not be scored.
        errors: Why, by the image's position.
    """

    label: str
    prompt: str
    images: tuple[str, ...]
    ranks: Ranks
    annotations: tuple[Ranks, ...]
    scores: Array
    errors: Mapping[int, str]

    def without_errors(self) -> ScoredGroup | None:
        """The group less the images that could not be scored; None if fewer than two are left."""
        if not self.errors:
            return self
        kept = [index for index in range(len(self.images)) if index not in self.errors]
        if len(kept) < MINIMUM_IMAGES:
            return None
        return replace(
            self,
            images=tuple(self.images[index] for index in kept),
            ranks=tuple(self.ranks[index] for index in kept),
            annotations=tuple(tuple(row[index] for index in kept) for row in self.annotations),
            scores=self.scores[:, kept],
            errors={},
        )

    def row(self) -> dict[str, object]:
        """Plain values for JSON, null where there is no score."""
        scores = [[None if math.isnan(s) else s for s in line] for line in self.scores.tolist()]
        errors = {str(index): reason for index, reason in self.errors.items()}
        return identity(self) | {"scores": scores, "errors": errors}


@final
@dataclass(frozen=True, eq=False)
class PendingGroup:
    """A ranked group whose scores are on their way, without its images."""

    label: str
    prompt: str
    images: tuple[str, ...]
    keys: tuple[Key, ...]
    ranks: Ranks
    annotations: tuple[Ranks, ...]

    @classmethod
    def of(cls, group: RankedGroup, number: int, keys: ImageKeys) -> PendingGroup:
        """The group without its images; `number` names it if it has no id."""
        images = (str(x) if isinstance(x, str | Path) else describe(x) for x in group.images)
        return cls(
            label=group.id or f"group {number}",
            prompt=group.prompt,
            images=tuple(images),
            keys=tuple(map(keys, group.images)),
            ranks=group.ranks,
            annotations=group.annotations,
        )

    def scored(self, scores: Array, errors: Mapping[int, str]) -> ScoredGroup:
        """The group with its scores."""
        return ScoredGroup(
            self.label, self.prompt, self.images, self.ranks, self.annotations, scores, errors
        )

    def restored(self, row: Mapping[str, Any], *, perturbations: int) -> ScoredGroup:
        """The group with the scores of a row that `ScoredGroup.row` made.

        Raises:
            ValueError: The row is not one of this group under so many perturbations.
        """
        try:
            if not all(v is None or isinstance(v, int | float) for r in row["scores"] for v in r):
                raise TypeError("expected numbers and null")
            scores = np.array(row["scores"], dtype=np.float64)  # None becomes NaN
            errors = {int(index): str(why) for index, why in row["errors"].items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"its scores or errors cannot be read ({error!r})") from error
        expected = (1 + perturbations, len(self.images))
        if scores.shape != expected:
            raise ValueError(f"its scores have the shape {scores.shape}; expected {expected}")
        if elsewhere := [index for index in errors if not 0 <= index < len(self.images)]:
            raise ValueError(f"its errors name image {elsewhere[0]} of {len(self.images)}")
        return self.scored(scores, errors)


def identity(group: ScoredGroup | PendingGroup) -> dict[str, object]:
    """The columns of a row that identify its group; plain values for JSON."""
    return {
        "group": group.label,
        "prompt": group.prompt,
        "images": list(group.images),
        "ranks": list(group.ranks),
    }
