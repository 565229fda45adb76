"""A training that has diverged stops before anything of it is saved as good."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple, final

from stablepref.training.checkpoints import newest_checkpoint
from stablepref.training.pairs import name_of
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

NAMED: Final = 10
"""Images, or weights, that a message names."""
_LOWEST_SCALE: Final = 1.0


@final
class Watch(NamedTuple):
    """What the messages say of a training.

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

        fp16 overflows now and then: its scaler leaves such steps out and lowers its scale, to
        below 1 only where the gradient itself is not finite.

        Raises:
            FloatingPointError: As `loss`.
        """
        if math.isfinite(norm):
            return
        scaler = accelerator.scaler
        if scaler is None or scaler.get_scale() < _LOWEST_SCALE:
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
            FloatingPointError: As `loss`.
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
            scores: Theirs, `(images, views)`.
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


def _listed(names: Sequence[str], separator: str) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return separator.join(names[:NAMED]) + more
