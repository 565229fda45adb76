"""What a score's standard deviation means for a preference: expectations over normal margins.

With two scores that are normal, mu_a with sigma_a and mu_b with sigma_b, their difference z is
normal with mean mu_a - mu_b and variance sigma_a^2 + sigma_b^2. HPS v3 (Ma et al. 2025,
arXiv:2508.03789) trains -E[log sigmoid(z)], estimated there by 1000 random draws. Here both
expectations are integrals, the same on every call:

- for a standard deviation up to 2 by Gauss-Hermite quadrature over z;
- above, sigmoid(z) is the probability that a logistic variable L is below z, and softplus(-z) the
  mean of max(L - z, 0), so that the integral over L holds a smooth normal function of L.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable

_NARROW: Final = 2.0
_NODES, _WEIGHTS = np.polynomial.hermite.hermgauss(64)
_SPACING: Final = 0.25
_LOGISTIC: Final = np.arange(-40, 40 + _SPACING / 2, _SPACING)
_DENSITY: Final = _SPACING / (4 * np.cosh(_LOGISTIC / 2) ** 2)


def difference_deviation(log_std_a: Tensor, log_std_b: Tensor) -> Tensor:
    """Standard deviation of the difference of two independent scores, from their logarithms."""
    return torch.logaddexp(2 * log_std_a, 2 * log_std_b).div(2).exp()


def preference_probability(margin: Tensor, std: Tensor) -> Tensor:
    """E[sigmoid(z)] of a normal z: the probability that the first of two images is preferred.

    Args:
        margin: Mean of z, in log-odds.
        std: Standard deviation of z, 0 or more, of the same shape.

    Returns:
        Probabilities, of the same shape, within 1e-6; sigmoid(margin) where `std` is 0.
    """

    def wide(levels: Tensor, margin: Tensor, std: Tensor) -> Tensor:
        return torch.special.ndtr((margin - levels) / std)

    return _expected(torch.sigmoid, wide, margin, std)


def uncertain_preference_loss(margin: Tensor, std: Tensor) -> Tensor:
    """-E[log sigmoid(z)] of a normal z: HPS v3's loss of a pair, without sampling noise.

    Args:
        margin: Mean of z: the better score minus the worse, in log-odds.
        std: Standard deviation of z, 0 or more, of the same shape.

    Returns:
        Losses, of the same shape, within 1e-6; -log sigmoid(margin) where `std` is 0.
    """

    def narrow(z: Tensor) -> Tensor:
        return torch.nn.functional.softplus(-z)

    def wide(levels: Tensor, margin: Tensor, std: Tensor) -> Tensor:
        gap = (levels - margin) / std
        density = torch.exp(-(gap**2) / 2) / math.sqrt(2 * math.pi)
        return std * (density + gap * torch.special.ndtr(gap))

    return _expected(narrow, wide, margin, std)


def _expected(
    narrow: Callable[[Tensor], Tensor],
    wide: Callable[[Tensor, Tensor, Tensor], Tensor],
    margin: Tensor,
    std: Tensor,
) -> Tensor:
    """The expectation by whichever of the two integrals converges, without NaN in either gradient.

    Args:
        narrow: A function of z.
        wide: The same function's mean over z, given a value of the logistic variable.
        margin: Mean of z.
        std: Standard deviation of z.
    """
    is_wide = std > _NARROW
    dtype, device = margin.dtype, margin.device
    nodes, weights, levels, density = (
        torch.as_tensor(values, dtype=dtype, device=device)
        for values in (_NODES, _WEIGHTS, _LOGISTIC, _DENSITY)
    )
    small = torch.where(is_wide, torch.zeros_like(std), std)
    z = margin[..., None] + math.sqrt(2) * small[..., None] * nodes
    by_nodes = (narrow(z) * weights).sum(-1) / math.sqrt(math.pi)
    large = torch.where(is_wide, std, torch.full_like(std, _NARROW))
    by_levels = (wide(levels, margin[..., None], large[..., None]) * density).sum(-1)
    return torch.where(is_wide, by_levels, by_nodes)
