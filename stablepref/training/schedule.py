"""The learning rate at every step of a training."""

from __future__ import annotations

import math
from typing import Literal

LRScheduler = Literal["constant", "linear", "cosine"]


def learning_rate_at(
    step: int, *, peak: float, steps: int, warmup_steps: int, scheduler: LRScheduler = "cosine"
) -> float:
    """The rate of a step, from 0: a linear rise, then constant or down to zero after the last step.

    It counts optimiser steps of the whole run, both steps of the paper together, whatever the
    number of processes.

    Args:
        step: From 0.
        peak: The largest rate.
        steps: Of the whole run.
        warmup_steps: Over which it rises.
        scheduler: How it goes on then: constant, or down in a line or a cosine (diffusers' names).
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    if scheduler == "constant":
        return peak
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    if scheduler == "linear":
        return peak * (1 - progress)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))
