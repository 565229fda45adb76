"""AdamW, and the logit scale that a training begins with."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import nn

    from stablepref.scorer import Scorer


def build_optimizer(
    module: nn.Module, *, learning_rate: float, weight_decay: float, betas: tuple[float, float],
    eps: float,
) -> torch.optim.AdamW:  # fmt: skip
    """AdamW over the trained parameters, with weight decay on matrices alone.

    Biases, norms, class and position embeddings and the logit scale do not decay: as in
    open_clip's training, where of these the position embeddings do.

    On a CPU each weight is updated in one pass over memory (torch's `fused`).
    """
    trained = [(name, p) for name, p in module.named_parameters() if p.requires_grad]

    def decays(name: str, weight: nn.Parameter) -> bool:
        return weight.ndim > 1 and "position" not in name and "class_embedding" not in name

    groups = [
        {"params": [p for n, p in trained if decays(n, p)], "weight_decay": weight_decay},
        {"params": [p for n, p in trained if not decays(n, p)], "weight_decay": 0.0},
    ]
    on_cpu = all(weight.device.type == "cpu" for _, weight in trained)
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=learning_rate,
        betas=betas,
        eps=eps,
        fused=True if on_cpu else None,
    )


@torch.no_grad()
def begin_with_logit_scale(scorer: Scorer, scale: float) -> None:
    """Give a model, in place, the logit scale that its training begins with.

    Args:
        scorer: A CLIP model, or another that has one.
        scale: The factor between cosine and score.

    Raises:
        ValueError: The model has none.
    """
    if scorer.log_scale is None:
        msg = (
            f"logit_scale is {scale}, but {scorer.name} has none, as only CLIP models have; leave "
            "it out"
        )
        raise ValueError(msg)
    scorer.log_scale.fill_(math.log(scale))
