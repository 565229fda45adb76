"""Bootstrap intervals over prompts, by scipy.

Images of one prompt have much in common, so whole prompts are drawn.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import stats

from stablepref.evaluation.means import Interval

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from stablepref.evaluation.means import Array

CONFIDENCE: Final = 0.95
RESAMPLES: Final = 2000
_NUMBERS: Final = 2**20  # drawn at once, so that memory stays at some 25 MB
_TWO: Final = 2


def mean_intervals(
    values: Array,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Interval]:
    """Means with their percentile bootstrap intervals (Efron, 1979).

    Args:
        values: A row of numbers for each mean, one a prompt, `(rows, prompts)`; NaN is left out.
        confidence: Share of resamples inside.
        resamples: How often as many prompts are drawn with replacement.
        seed: Of the draws. Rows that have the same prompts share them.

    Returns:
        Each row's mean and its bounds; bounds are NaN with fewer than two prompts, the mean without
        any.
    """
    there = ~np.isnan(values)
    rows_of: dict[bytes, list[int]] = {}
    for row, pattern in enumerate(there):
        rows_of.setdefault(pattern.tobytes(), []).append(row)
    intervals: dict[int, Interval] = {}
    for rows in rows_of.values():
        own = values[rows][:, there[rows[0]]]
        prompts = own.shape[1]
        means = own.mean(axis=1) if prompts else np.full(len(rows), np.nan)
        low = high = np.full(len(rows), np.nan)
        if prompts >= _TWO:
            low, high, _ = drawn_prompts(
                partial(_weighted_means, own),
                prompts,
                confidence=confidence,
                resamples=resamples,
                seed=seed,
            )
        for row, found in zip(rows, zip(means, low, high, strict=True), strict=True):
            intervals[row] = Interval(*map(float, found))
    return [intervals[row] for row in range(len(values))]


def drawn_prompts(
    statistic: Callable[[Array], Array],
    prompts: int,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[Array, Array, Array]:
    """Intervals of numbers that are computed from how often each prompt is drawn.

    Args:
        statistic: Numbers `(k,)` of weights `(prompts,)`, whole numbers that sum to `prompts`.
        prompts: How many there are, two or more.
        confidence: As in `mean_intervals`, as are `resamples` and `seed`.
        resamples: As above.
        seed: As above.

    Returns:
        Lower bounds `(k,)`, upper bounds `(k,)`, and the numbers of all resamples `(k, resamples)`.
    """

    def of_places(places: NDArray[np.int64], axis: int = -1) -> Array:
        rows = np.moveaxis(places, axis, -1).reshape(-1, prompts)
        weights = (np.bincount(row, minlength=prompts).astype(np.float64) for row in rows)
        found = np.stack([statistic(weight) for weight in weights], axis=-1)
        return found if places.ndim > 1 else found[:, 0]

    found = stats.bootstrap(
        (np.arange(prompts),),
        of_places,
        method="percentile",
        vectorized=True,
        axis=-1,
        confidence_level=confidence,
        n_resamples=resamples,
        batch=max(1, _NUMBERS // prompts),
        rng=np.random.default_rng(seed),
    )
    low, high = found.confidence_interval
    return low, high, found.bootstrap_distribution


def _weighted_means(values: Array, weights: Array) -> Array:
    return np.asarray(values @ weights / weights.sum())
