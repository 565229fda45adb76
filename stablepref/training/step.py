"""The gradient of a global batch's loss, the same for any number of processes and micro-batches.

The losses of *Stable Preference* couple all pairs of a batch through the softmax of equation 8, so
the average of parts is not the whole. But a loss reads the scores alone, and these are few: every
process gathers all of them, computes the whole loss and its gradient in each score, and carries
its own scores' gradients back through the model. Where a share does not fit in memory at once, its
scores come from a pass without graph first, and each micro-batch is encoded again for its gradient
(gradient caching: Gao et al. 2021, arXiv:2101.06983).
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from stablepref.objective import Objective
from stablepref.training.loader import shares

if TYPE_CHECKING:
    from collections.abc import Callable

    from accelerate import Accelerator
    from torch import nn

    from stablepref.training.loader import Share


class StepResult(NamedTuple):
    """What a global batch gave, the same in all processes.

    Attributes:
        objective: Loss, margins and weights of the usable pairs, without graph.
        scores: `(images, views)`, float32, NaN for images that cannot be used.
        usable: Bool `(images,)`.
        pairs: Number of usable pairs.
    """

    objective: Objective
    scores: Tensor
    usable: Tensor
    pairs: int


def backward(
    accelerator: Accelerator,
    module: nn.Module,
    share: Share,
    objective: Callable[[Tensor, Tensor, Tensor, Tensor], Objective],
    *,
    micro_batch_size: int | None = None,
) -> StepResult:
    """Add the global loss's gradient to the weights' `.grad`.

    Args:
        accelerator: The distributed engine; its divisions by the numbers of processes and of
            accumulation steps are undone.
        module: A prepared `ViewScores`.
        share: This process's part of the batch.
        objective: Of scores `(images, views)`, better, worse and label; see `batch_objective`.
        micro_batch_size: Images encoded at once; None encodes the share at once.

    Returns:
        The loss and its parts; the gradient of a loss that is not finite is not carried back.
    """
    chunks = _chunks(share, micro_batch_size)
    once = len(chunks) == 1
    with nullcontext() if once else torch.no_grad():
        parts = [_encode(module, share, chunk) for chunk in chunks]
    table, usable = _gathered(accelerator, share, torch.cat(parts).detach())
    leaf = table.clone().requires_grad_()
    better, worse, label = (part.to(table.device) for part in share.batch[1:])
    keep = usable[better] & usable[worse]
    found = objective(leaf, better[keep], worse[keep], label[keep])
    seen = Objective(*(part.detach() for part in found))
    scored = table.masked_fill(~usable[:, None], torch.nan)
    result = StepResult(seen, scored, usable, int(keep.sum()))
    if not found.loss.isfinite():
        return result
    (gradient,) = torch.autograd.grad(found.loss, leaf)
    divided = accelerator.num_processes * accelerator.gradient_accumulation_steps
    first = shares(len(table), accelerator.num_processes)[accelerator.process_index].start
    for number, chunk in enumerate(chunks):
        last = number + 1 == len(chunks)
        with nullcontext() if last else accelerator.no_sync(module):
            scores = parts[0] if once else _encode(module, share, chunk)
            wanted = gradient[first + chunk.start : first + chunk.stop]
            carried = (scores[: len(chunk)] * wanted).sum() + 0 * scores.sum()
            accelerator.backward(carried * divided)
    return result


@torch.no_grad()
def gathered_scores(
    accelerator: Accelerator,
    module: nn.Module,
    share: Share,
    *,
    micro_batch_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Scores `(images, views)` of a global batch without gradient, and which images are usable.

    The scores of the others are NaN; those of usable images are what the model gives.
    """
    parts = [_encode(module, share, chunk) for chunk in _chunks(share, micro_batch_size)]
    scores, usable = _gathered(accelerator, share, torch.cat(parts))
    return scores.masked_fill(~usable[:, None], torch.nan), usable


def _chunks(share: Share, size: int | None) -> list[range]:
    """Micro-batches of the share, as many in every process, since engines may wait for each."""
    number = 1 if size is None else -(-share.largest // size)
    return shares(len(share.pixels), number)


def _encode(module: nn.Module, share: Share, chunk: range) -> Tensor:
    """Scores `(len(chunk), views)`; of an empty chunk one meaningless row, for its graph."""
    if not len(chunk):
        views = share.boxes.shape[1]
        whole = torch.tensor([[[0.0, 0.0, 1.0, 1.0]] * views])
        return module([torch.zeros(3, 1, 1)], ["-"], whole, torch.zeros(1, views).bool())
    part = slice(chunk.start, chunk.stop)
    return module(share.pixels[part], share.prompts[part], share.boxes[part], share.flips[part])


def _gathered(accelerator: Accelerator, share: Share, scores: Tensor) -> tuple[Tensor, Tensor]:
    """All processes' scores in the order of the batch's images, and which images are usable."""
    count, views = len(share.pixels), share.boxes.shape[1]
    table = scores.new_zeros(share.largest, views + 1, dtype=torch.float32)
    table[:count, :views] = scores[:count]
    table[:count, views] = share.usable
    rows = shares(len(share.batch.images), accelerator.num_processes)
    parts = accelerator.gather(table).unflatten(0, (accelerator.num_processes, share.largest))
    table = torch.cat([part[: len(row)] for part, row in zip(parts, rows, strict=True)])
    return table[:, :views], table[:, views].bool()
