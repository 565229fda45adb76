"""What stops a training early: numbers that are not finite, and images that cannot be used."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Final, NamedTuple, final

from stablepref.training.pairs import name_of
from stablepref.training.resume import newest_checkpoint
from stablepref.training.step import gathered_scores

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from accelerate import Accelerator
    from torch import Tensor, nn

    from stablepref.data.groups import RankedGroup
    from stablepref.training.loader import Share
    from stablepref.training.pairs import Batch
    from stablepref.training.step import StepResult

logger = logging.getLogger(__name__)

NAMED: Final = 10
"""Images, or weights, that a message about numbers names."""
NAMED_UNUSABLE: Final = 5
"""Unusable images that a message names, each with its reason."""
PATIENCE: Final = 10
"""Batches in a row without a usable pair that end a training."""
LOWEST_SCALE: Final = 1.0
"""Below it, fp16's scale has fallen for another reason than its narrow range."""


@final
class Watch(NamedTuple):
    """Checks that numbers are finite, with what its messages need to know of the training.

    Attributes:
        groups: The data whose images are scored.
        checkpoints: The folder of checkpoints.
    """

    groups: Sequence[RankedGroup]
    checkpoints: Path

    def loss(self, result: StepResult, batch: Batch, step: int) -> None:
        """Check a batch's loss.

        Raises:
            FloatingPointError: It is not finite; names the step, the images and the checkpoint.
        """
        if not result.objective.loss.isfinite():
            what = f"the loss of step {step} is {float(result.objective.loss)}"
            raise self.error(what, batch, result.scores, result.usable)

    def gradient(
        self, accelerator: Accelerator, norm: float, result: StepResult, batch: Batch, step: int
    ) -> None:
        """Check the gradient's norm before the step is taken.

        fp16 overflows now and then: its scaler skips such steps and lowers its scale, to below 1
        only where the gradient itself is not finite.

        Raises:
            FloatingPointError: It is not finite; names the step, the images and the checkpoint.
        """
        if math.isfinite(norm):
            return
        scaler = accelerator.scaler
        if scaler is None or scaler.get_scale() < LOWEST_SCALE:
            what = f"the norm of the gradient of step {step} is {norm}"
            raise self.error(what, batch, result.scores, result.usable)

    def model(
        self,
        accelerator: Accelerator,
        module: nn.Module,
        share: Share,
        step: int,
        *,
        micro_batch_size: int | None,
    ) -> None:
        """Check the trained weights and the scores that they give for a batch.

        Every process must call it.

        Raises:
            FloatingPointError: One is not finite; names the step, the images and the checkpoint.
        """
        scores, usable = gathered_scores(
            accelerator, module, share, micro_batch_size=micro_batch_size
        )
        bad = [name for name, weight in module.named_parameters()
               if weight.requires_grad and not weight.isfinite().all()]  # fmt: skip
        if bad:
            what = f"step {step} left weights that are not finite: {_listed(bad, ', ')}"
        elif not scores[usable].isfinite().all():
            what = f"step {step} left a model whose scores are not finite"
        else:
            return
        raise self.error(what, share.batch, scores, usable)

    def error(self, what: str, batch: Batch, scores: Tensor, usable: Tensor) -> FloatingPointError:
        """The error that names a batch's images whose scores are not finite, or else all of them.

        Args:
            what: What is not finite, and when.
            batch: The images.
            scores: Their scores, `(images, views)`.
            usable: Which of them could be scored at all.
        """
        odd = usable & ~scores.isfinite().all(dim=1)
        odd = odd if odd.any() else usable
        named = [image for image, bad in zip(batch.images, odd.tolist(), strict=True) if bad]
        names = [name_of(self.groups, image) for image in named]
        found, _ = newest_checkpoint(self.checkpoints)
        good = (
            f"the last good checkpoint is {found.path}" if found else "there is no checkpoint yet"
        )
        return FloatingPointError(
            f"{what}; its images: {_listed(names, '; ')}; {good}. A lower learning rate or "
            "max_grad_norm may help"
        )


@final
class LeftOut:
    """The distinct images of a data set that turned out to be unusable; too many end a training.

    Args:
        groups: The data set.
    """

    def __init__(self, groups: Sequence[RankedGroup]) -> None:
        self.groups = groups
        self.images: set[tuple[int, int]] = set()
        self._empty = 0

    def note(self, share: Share, usable: Tensor) -> None:
        """Record a batch's unusable images, with a warning for each new one.

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
        """Accept a batch without usable pairs, unless it is the first, or the last of many.

        Args:
            share: This process's part of the batch.
            pairs: The batch's usable pairs.
            step: The step, from 1.

        Raises:
            ValueError: The first batch, or `PATIENCE` batches in a row, have no usable pair.
        """
        self._empty = 0 if pairs else self._empty + 1
        if not self._empty:
            return
        if step == 1 or self._empty == PATIENCE:
            which = "the first batch" if step == 1 else f"{PATIENCE} batches up to step {step}"
            raise ValueError(
                f"no pair of {which} can be used: {self.named(share)}; is the folder of the images "
                "the right one?"
            )
        logger.warning("step %d: no pair of its batch can be used; it is skipped", step)

    def named(self, share: Share) -> str:
        """Some unusable images, with the reason where this process has read them."""
        known = sorted(self.images & set(share.batch.images)) or sorted(self.images)
        names = [share.errors.get(image) or name_of(self.groups, image) for image in known]
        more = len(self.images) - len(names[:NAMED_UNUSABLE])
        return "; ".join(names[:NAMED_UNUSABLE]) + (f" and {more} more" if more else "")


def _listed(names: Sequence[str], separator: str) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return separator.join(names[:NAMED]) + more
