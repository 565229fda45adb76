"""People who ranked the pictures, as a column beside those of the scorers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, final

import numpy as np

from stablepref.training.pairs import fingerprint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image
    from torch import Tensor

    from stablepref.data.groups import RankedGroup

    from .judges import Verdict

PEOPLE: Final = "people"


@final
class PeopleJudge:
    """What people said of finished pictures: the share of its group that each is preferred to.

    For each picture this is the share of comparisons, over all annotators and all other pictures
    of its prompt, in which it is ranked before the other one; a tie counts one half. A picture of
    several groups, as of several pairs, counts the comparisons of all of them. Where the rankings
    of single annotators are not known, the group's ranks count as one annotator's.

    Args:
        groups: The rankings; pictures are identified by their files.

    Raises:
        ValueError: There is no group, or no group has its images in files.
    """

    name = PEOPLE
    unit = "share of its group below it"

    def __init__(self, groups: Sequence[RankedGroup]) -> None:
        self._digest = fingerprint(groups)
        won: dict[tuple[str, str], tuple[float, int]] = {}
        for group in groups:
            against, shares = len(group.images) - 1, _shares(group)
            of = against * max(1, len(group.annotations))
            for image, share in zip(group.images, shares, strict=True):
                if isinstance(image, str | os.PathLike):
                    place = _place(image), group.prompt
                    before, count = won.get(place, (0.0, 0))
                    won[place] = before + share * of, count + of
        self._shares = {place: wins / count for place, (wins, count) in won.items()}
        if not self._shares:
            msg = (
                f"none of {len(groups)} groups has its images in files; expected paths, by which "
                "pictures are found in the groups"
            )
            raise ValueError(msg)

    def settings(self) -> dict[str, object]:
        """Which rankings these are, and the unit."""
        return {"groups": self._digest, "unit": self.unit}

    def __call__(
        self,
        images: Sequence[Image.Image | Tensor],
        prompts: Sequence[str],
        sources: Sequence[object],
    ) -> list[Verdict]:
        """Shares from 0 to 1, or a reason for pictures that nobody ranked under their prompt."""
        del images
        return [
            self._shares.get((_place(source), prompt), "people did not rank it")
            if isinstance(source, str | os.PathLike)
            else "people ranked files, and this image is not a file"
            for source, prompt in zip(sources, prompts, strict=True)
        ]


def _shares(group: RankedGroup) -> list[float]:
    ranks = np.array(group.annotations or [group.ranks])  # annotators, images
    before = ranks[:, :, None] < ranks[:, None, :]
    even = ranks[:, :, None] == ranks[:, None, :]
    # Every picture is even with itself.
    counted = before.sum(axis=2) + (even.sum(axis=2) - 1) / 2
    shares: list[float] = (counted.mean(axis=0) / (ranks.shape[1] - 1)).tolist()
    return shares


def _place(path: str | os.PathLike[str]) -> str:
    return os.path.realpath(path)
