"""A mean over pairs or groups that knows which prompt each part came from, for its uncertainty.

Pairs of one prompt share images and annotators, so they say less than as many independent pairs
would. The bootstrap here draws whole prompts.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_BLOCK = 2**22  # numbers drawn at once, so that memory stays at some 100 MB for any data set


class Interval(NamedTuple):
    """A value with the bounds of its confidence interval."""

    value: float
    low: float
    high: float


@final
@dataclass(frozen=True, eq=False)
class GroupMean:
    """A mean kept as a sum and a count for each group (prompt).

    Attributes:
        sums: Sum of what is averaged, for each group, shape ``(groups,)``.
        counts: How many items that sum has, shape ``(groups,)``; 0 for groups without any.
    """

    sums: Array
    counts: Array

    @property
    def value(self) -> float:
        """All sums over all counts; NaN if nothing was counted."""
        return _ratio(self.sums.sum(), self.counts.sum()).item()

    @property
    def count(self) -> int:
        """How many items were counted, over all groups."""
        return int(self.counts.sum())

    @property
    def groups(self) -> int:
        """How many groups have at least one item."""
        return int(np.count_nonzero(self.counts))

    def by_group(self) -> "GroupMean":
        """The mean of the groups' means: every group that has items counts once."""
        counted = self.counts > 0
        means = np.divide(self.sums, self.counts, out=np.zeros(len(self.sums)), where=counted)
        return GroupMean(means, counted.astype(np.float64))

    def interval(
        self, confidence: float = 0.95, *, resamples: int = 2000, seed: int = 0
    ) -> Interval:
        """Bootstrap confidence interval over groups, by the percentile method.

        Args:
            confidence: Share of resamples inside, between 0 and 1.
            resamples: How often as many groups are drawn with replacement.
            seed: Of the draws. Equal seeds and numbers of groups draw the same groups.

        Returns:
            The value and its bounds; NaN bounds if nothing was counted.

        Raises:
            ValueError: If ``confidence`` is not strictly between 0 and 1.
        """
        draws = [_ratio(*pair) for pair in self._draws(resamples, seed)]
        return Interval(self.value, *_bounds(np.concatenate(draws), confidence))

    def difference(
        self, other: "GroupMean", confidence: float = 0.95, *, resamples: int = 2000, seed: int = 0
    ) -> Interval:
        """This value less another's on the same groups, with a paired bootstrap interval.

        Both are computed on the same drawn groups, so what the groups have in common cancels.

        Args:
            other: The same measure of another scorer, or on disturbed images.
            confidence: As for `interval`.
            resamples: As for `interval`.
            seed: As for `interval`.

        Returns:
            The difference and its bounds.

        Raises:
            ValueError: If the numbers of groups differ, or ``confidence`` is out of range.
        """
        if len(self.sums) != len(other.sums):
            raise ValueError(
                f"{len(self.sums)} and {len(other.sums)} groups; expected the same groups in both"
            )
        pairs = zip(self._draws(resamples, seed), other._draws(resamples, seed), strict=True)
        draws = np.concatenate([_ratio(*mine) - _ratio(*theirs) for mine, theirs in pairs])
        return Interval(self.value - other.value, *_bounds(draws, confidence))

    def _draws(self, resamples: int, seed: int) -> Iterator[tuple[Array, Array]]:
        generator = np.random.default_rng(seed)
        groups = len(self.sums)
        block = max(1, _BLOCK // max(1, groups))
        for start in range(0, resamples, block):
            rows = min(block, resamples - start)
            drawn = generator.integers(max(1, groups), size=(rows, groups))
            yield self.sums[drawn].sum(axis=1), self.counts[drawn].sum(axis=1)


def _ratio(sums: Array, counts: Array) -> Array:
    with np.errstate(invalid="ignore"):
        return np.asarray(np.divide(sums, counts), dtype=np.float64)


def _bounds(draws: Array, confidence: float) -> tuple[float, float]:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; expected a number strictly from 0 to 1")
    defined = draws[~np.isnan(draws)]
    if not defined.size:
        return float("nan"), float("nan")
    tail = (1 - confidence) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)
