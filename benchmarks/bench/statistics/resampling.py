"""Bootstrap intervals over prompts.

Images of one prompt have much in common, so whole prompts are drawn; a prompt that a list has
several times is drawn with all its places.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Unpack

import numpy as np

from stablepref.evaluation.means import CONFIDENCE, RESAMPLES, Interval, bootstrap, prompt_places

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stablepref.evaluation.means import Array, Bootstrap, BootstrapOptions, Places

__all__: Final = ["CONFIDENCE", "RESAMPLES", "drawn_prompts", "mean_intervals"]


def mean_intervals(
    values: Array, prompts: Sequence[str], **options: Unpack[BootstrapOptions]
) -> list[Interval]:
    """Means with their percentile bootstrap intervals.

    Args:
        values: A row of numbers for each mean, one a prompt, `(rows, prompts)`; NaN is left out.
        prompts: The words of each prompt, which may occur several times.
        options: See `BootstrapOptions`. Rows that have the same prompts share their draws.

    Returns:
        Each row's mean and its bounds; bounds are NaN with fewer than two different prompts, the
        mean without any.
    """
    there = ~np.isnan(values)
    rows_of: dict[bytes, list[int]] = {}
    for row, pattern in enumerate(there):
        rows_of.setdefault(pattern.tobytes(), []).append(row)
    intervals: dict[int, Interval] = {}
    for rows in rows_of.values():
        own = values[rows][:, there[rows[0]]]
        words = [prompts[place] for place in np.flatnonzero(there[rows[0]]).tolist()]
        means = own.mean(axis=1) if words else np.full(len(rows), np.nan)
        bounds = np.full((2, len(rows)), np.nan)
        if len(set(words)) > 1:
            bounds = drawn_prompts(_weighted_means(own), words, **options).bounds
        for row, found in zip(rows, zip(means, *bounds, strict=True), strict=True):
            intervals[row] = Interval(*map(float, found))
    return [intervals[row] for row in range(len(values))]


def drawn_prompts(
    statistic: Callable[[Array], Array], prompts: Sequence[str], **options: Unpack[BootstrapOptions]
) -> Bootstrap:
    """Intervals of numbers that are computed from how often each prompt is drawn.

    Args:
        statistic: Numbers `(k,)` of weights `(prompts,)`: how often each is drawn.
        prompts: The words of each prompt, two or more different ones. Equal ones are drawn
            together.
        options: See `BootstrapOptions`.

    Returns:
        Bounds `(2, k)`, and the numbers of all resamples `(k, resamples)`.
    """
    of, different = prompt_places(prompts), len(set(prompts))

    def of_places(places: Places) -> Array:
        weights = (np.bincount(row, minlength=different)[of].astype(np.float64) for row in places)
        return np.stack([statistic(weight) for weight in weights], axis=-1)

    return bootstrap(of_places, different, **options)


def _weighted_means(values: Array) -> Callable[[Array], Array]:
    return lambda weights: np.asarray(values @ weights / weights.sum())
