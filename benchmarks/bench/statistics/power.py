"""How many prompts are needed to distinguish two models."""

from __future__ import annotations

import math
from typing import Final

from scipy.stats import norm

SIGNIFICANCE: Final = 0.05
POWER: Final = 0.8


def needed_prompts(
    win_share: float,
    *,
    decided: float = 1.0,
    significance: float = SIGNIFICANCE,
    power: float = POWER,
) -> int | None:
    """Prompts with which the two-sided sign test finds a difference of this size.

    n = (z(1 - significance / 2) + z(power))² / (4 (p - 1/2)²) decided prompts
    (Noether, 1987, "Sample size determination for some common nonparametric tests"), and
    accordingly more with undecided ones.

    Args:
        win_share: p, the first model's share of the decided prompts, 0 to 1.
        decided: Share of all prompts that are not ties, above 0 and up to 1.
        significance: The probability of finding a difference where there is none.
        power: The probability of finding a difference that exists.

    Returns:
        The number, rounded up; None if the share is exactly one half, for which no number suffices.

    Raises:
        ValueError: An argument is out of its range.
    """
    if not 0 <= win_share <= 1:
        raise ValueError(f"win_share is {win_share}; expected a share from 0 to 1")
    if not 0 < decided <= 1:
        raise ValueError(f"decided is {decided}; expected a share above 0 and up to 1")
    if not (0 < significance < 1 and 0 < power < 1):
        raise ValueError(
            f"significance {significance} and power {power} must lie strictly between 0 and 1"
        )
    if win_share == 0.5:
        return None
    reach = float(norm.ppf(1 - significance / 2) + norm.ppf(power))
    return math.ceil(reach**2 / (4 * (win_share - 0.5) ** 2) / decided)
