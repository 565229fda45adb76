"""How a model in training orders pairs that it does not train on."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from stablepref.batches import every_batch
from stablepref.globalstep import gathered_scores

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn

    from stablepref.shares import ShareReader


def validation_accuracy(
    accelerator: Accelerator,
    module: nn.Module,
    reader: ShareReader,
    *,
    batch_size: int,
    micro_batch_size: int | None = None,
) -> float:
    """Share of the untied pairs whose better image scores higher; equal scores count one half.

    As `evaluate` counts, but in the training's precision and over all its processes, each of which
    must call it.

    Args:
        accelerator: The distributed engine.
        module: A prepared `ViewScores`.
        reader: Of this process's shares of the validation groups.
        batch_size: Pairs whose images are encoded together.
        micro_batch_size: Images encoded at once; None encodes a share at once.

    Raises:
        ValueError: There is no untied pair of images that can be used.
    """
    right, total = 0.0, 0
    with closing(reader.read(enumerate(every_batch(reader.groups, batch_size)))) as shares:
        for _, share in shares:
            scores = gathered_scores(accelerator, module, share, micro_batch_size=micro_batch_size)[
                :, 0
            ].cpu()
            margin = scores[share.batch.better] - scores[share.batch.worse]
            margin = margin[~margin.isnan()]
            right += float((margin > 0).sum() + 0.5 * (margin == 0).sum())
            total += len(margin)
    if not total:
        msg = "the validation groups hold no untied pair of images that can be used"
        raise ValueError(msg)
    return right / total
