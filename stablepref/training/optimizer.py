"""AdamW, its learning rate at every step, and the logit scale: its start and its bounds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import torch

from stablepref.models.clip import CLIPScorer
from stablepref.recipes import MAX_LOGIT_SCALE

if TYPE_CHECKING:
    from torch import nn

    from stablepref.scorer import Scorer

MAX_LOG_SCALE: Final = math.log(MAX_LOGIT_SCALE)
"""CLIP's parameter is the logarithm of the logit scale."""


def learning_rate_at(step: int, *, peak: float, steps: int, warmup_steps: int) -> float:
    """The rate of a step, from 0: a linear rise, then a cosine to zero after the last step.

    It counts optimiser steps of the whole run, both steps of the paper together, whatever the
    number of processes.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))


def build_optimizer(
    module: nn.Module, *, learning_rate: float, weight_decay: float, betas: tuple[float, float],
    eps: float,
) -> torch.optim.AdamW:  # fmt: skip
    """AdamW over the trained parameters, with weight decay on matrices alone.

    Biases, norms, class and position embeddings and the logit scale do not decay: as in
    open_clip's training, where of these the position embeddings do.
    """
    trained = [(name, p) for name, p in module.named_parameters() if p.requires_grad]

    def decays(name: str, weight: nn.Parameter) -> bool:
        return weight.ndim > 1 and "position" not in name and "class_embedding" not in name

    groups = [
        {"params": [p for n, p in trained if decays(n, p)], "weight_decay": weight_decay},
        {"params": [p for n, p in trained if not decays(n, p)], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=learning_rate, betas=betas, eps=eps
    )


@torch.no_grad()
def clamp_logit_scale(scorer: Scorer) -> None:
    """Keep a CLIP model's logarithmic logit scale within [0, ln 100]."""
    if isinstance(scorer, CLIPScorer):
        scorer.model.logit_scale.clamp_(0, MAX_LOG_SCALE)


@torch.no_grad()
def begin_with_logit_scale(scorer: Scorer, scale: float) -> None:
    """Give a CLIP model, in place, the logit scale that its training begins with.

    Raises:
        ValueError: It is another model, which has none.
    """
    if not isinstance(scorer, CLIPScorer):
        msg = (
            f"logit_scale is {scale}, but {scorer.name} has none, as only CLIP models have; leave "
            "it out"
        )
        raise ValueError(msg)
    scorer.model.logit_scale.fill_(math.log(scale))
