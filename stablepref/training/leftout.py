"""Images that a training cannot use: each is told of once, and too many end it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, final

from stablepref.training.pairs import name_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from stablepref.data.groups import RankedGroup
    from stablepref.training.loader import Share

logger = logging.getLogger(__name__)

PATIENCE: Final = 10
"""Batches in a row without a usable pair that end a training."""
_NAMED: Final = 5


@final
class LeftOut:
    """The distinct images of a data set that turned out to be unusable.

    Args:
        groups: The data set.
    """

    def __init__(self, groups: Sequence[RankedGroup]) -> None:
        self.groups = groups
        self.images: set[tuple[int, int]] = set()
        self._empty = 0

    def note(self, share: Share, usable: Tensor) -> None:
        """Take note of a batch's unusable images, with a warning for each new one.

        Args:
            share: This process's part of the batch; it warns of its own images.
            usable: Bool `(images,)`, of the whole batch, so that all processes know the same.
        """
        batch = share.batch
        new = {image for image, fine in zip(batch.images, usable.tolist(), strict=True) if not fine}
        for image in sorted(new - self.images):
            if image in share.errors:
                logger.warning("%s; its pairs are left out", share.errors[image])
        self.images |= new

    def require_pairs(self, share: Share, pairs: int, step: int) -> None:
        """Bear with a batch without usable pairs, but not with the first, nor with many in a row.

        Args:
            share: This process's part of the batch.
            pairs: The batch's usable pairs.
            step: The step, from 1.

        Raises:
            ValueError: The data as a whole cannot be read, it seems.
        """
        self._empty = 0 if pairs else self._empty + 1
        if not self._empty:
            return
        if step == 1 or self._empty == PATIENCE:
            which = "the first batch" if step == 1 else f"{PATIENCE} batches up to step {step}"
            msg = (
                f"no pair of {which} can be used: {self.named(share)}; is the folder of the images "
                "the right one?"
            )
            raise ValueError(msg)
        logger.warning("step %d: no pair of its batch can be used; it is left out", step)

    def named(self, share: Share) -> str:
        """Some unusable images, with the reason where this process has met it."""
        known = sorted(self.images & set(share.batch.images)) or sorted(self.images)
        told = [share.errors.get(image) or name_of(self.groups, image) for image in known[:_NAMED]]
        more = f" and {len(self.images) - len(told)} more" if len(self.images) > len(told) else ""
        return "; ".join(told) + more
