"""Muon: momentum whose matrices are made orthogonal before they are stepped along."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

SMALLEST_SIDE = 8
"""Matrices with fewer rows or columns are better left to AdamW."""
_MOMENTUM = 0.95
# Below this share of the largest, a squared singular value is nothing but rounding.
_NOISE = 1e-8


class Muon(torch.optim.Optimizer):
    """Steps along the nearest orthogonal matrix of each gradient's momentum (Jordan et al. 2024).

    A convolution's weight is the matrix `(out, in * height * width)`. The momentum is Nesterov's,
    0.95. Steps are `learning_rate * 0.2 * sqrt(longer side)` times the orthogonal matrix, whose
    entries are then as large as AdamW's steps (Liu et al. 2025). The nearest orthogonal matrix
    comes from an eigendecomposition in the weight's own precision: the usual iteration in
    bfloat16 takes many times longer on a processor that does not multiply it.

    Args:
        params: weights of two dimensions or more, or groups of them.
        lr: learning rate, 0 or more.
        weight_decay: share of a weight that goes, times the learning rate.

    Raises:
        ValueError: a weight has fewer than two dimensions.
    """

    def __init__(
        self, params: Iterable[nn.Parameter], *, lr: float, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.ndim <= 1:
                    msg = f"Muon steps matrices, not weights of shape {tuple(weight.shape)}"
                    raise ValueError(msg)

    # torch declares two overloads, which this one signature covers.
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Step along the gradients; weights without one stay."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state: dict[str, Any] = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                momentum = state["momentum"].lerp_(weight.grad, 1 - _MOMENTUM)
                ahead = weight.grad.lerp(momentum, _MOMENTUM)
                size = 0.2 * max(weight.flatten(1).shape) ** 0.5
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(nearest_orthogonal(ahead), alpha=-group["lr"] * size)
        return loss


def nearest_orthogonal(weight: Tensor) -> Tensor:
    """U Vᵀ of the singular value decomposition U S Vᵀ, `(out, ...)`; directions of no size stay so.

    Found as (M Mᵀ)^(-1/2) M on the shorter side, which is much faster than the decomposition.
    """
    matrix = weight.flatten(1)
    tall = matrix.shape[0] > matrix.shape[1]
    if tall:
        matrix = matrix.mT
    matrix = matrix / matrix.norm().clamp(min=torch.finfo(matrix.dtype).tiny)
    squares, directions = torch.linalg.eigh(matrix @ matrix.mT)
    floor = (_NOISE * squares[-1]).clamp(min=torch.finfo(matrix.dtype).tiny)
    orthogonal = (directions * squares.clamp(min=floor).rsqrt()) @ directions.mT @ matrix
    return (orthogonal.mT if tall else orthogonal).reshape(weight.shape)
