"""How a model in training orders pairs that it does not train on."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from stablepref.training.pairs import every_batch
from stablepref.training.step import gathered_scores

if TYPE_CHECKING:
    from collections.abc import Iterable

    from accelerate import Accelerator
    from torch import nn

    from stablepref.data.groups import RankedGroup
    from stablepref.training.guards import LeftOut, Watch
    from stablepref.training.loader import ShareReader


def validation_groups(validation: Iterable[RankedGroup] | None) -> list[RankedGroup]:
    """The groups to validate on; an empty list without a validation.

    Raises:
        ValueError: There is a validation without a single pair of different ranks.
    """
    if validation is None:
        return []
    groups = list(validation)
    if not any(group.pairs() for group in groups):
        raise ValueError(
            f"the validation has {len(groups)} groups and no pair of images of different rank in "
            "them; give groups with ranks that differ, or no validation"
        )
    return groups


def validation_accuracy(
    accelerator: Accelerator,
    module: nn.Module,
    reader: ShareReader,
    *,
    watch: Watch,
    left_out: LeftOut,
    step: int,
    batch_size: int,
    micro_batch_size: int | None = None,
) -> float:
    """Share of the untied pairs whose better image scores higher; equal scores count one half.

    `evaluate` counts in the same way; here it is in the training's precision and over all its
    processes, each of which must call it. Pairs with an image that cannot be read are left out.

    Args:
        accelerator: The distributed engine.
        module: A prepared `ViewScores`.
        reader: Reads this process's shares of the validation groups.
        watch: Names the validation groups' images in errors.
        left_out: Collects the images that cannot be read.
        step: Optimiser steps done, for messages.
        batch_size: Pairs whose images are encoded together.
        micro_batch_size: Images encoded at once; None encodes a share at once.

    Raises:
        FloatingPointError: A score is not finite.
        ValueError: There is no untied pair of images that can be read.
    """
    right, total = 0.0, 0
    with closing(reader.read(enumerate(every_batch(reader.groups, batch_size)))) as shares:
        for _, share in shares:
            found, usable = gathered_scores(
                accelerator, module, share, micro_batch_size=micro_batch_size
            )
            left_out.note(share, usable)
            if not found[usable].isfinite().all():
                what = f"in the validation after step {step} scores are not finite"
                raise watch.error(what, share.batch, found, usable)
            scores, usable = found[:, 0].cpu(), usable.cpu()
            better, worse = share.batch.better, share.batch.worse
            margin = (scores[better] - scores[worse])[usable[better] & usable[worse]]
            right += float((margin > 0).sum() + 0.5 * (margin == 0).sum())
            total += len(margin)
    if not total:
        raise ValueError(f"no untied pair of the validation can be read: {left_out.named(share)}")
    return right / total
