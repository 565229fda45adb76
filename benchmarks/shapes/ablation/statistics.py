"""Spread over seeds, and the uncertainty of differences between methods, prompt by prompt."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.stats import wilcoxon

from stablepref.evaluation.means import GroupMean

if TYPE_CHECKING:
    from collections.abc import Sequence


class Spread(NamedTuple):
    """Values of several seeds.

    Attributes:
        mean: Their mean; NaN without any.
        deviation: Their standard deviation, with n - 1; NaN for fewer than two.
        seeds: How many.
        of: How many were trained, those without a value among them.
    """

    mean: float
    deviation: float
    seeds: int
    of: int


class Paired(NamedTuple):
    """One method less another on the same prompts, over the seeds that both have.

    Attributes:
        difference: Of the accuracies of all seeds together.
        low: Lower end of its 95 % bootstrap interval over prompts.
        high: Upper end.
        p: Wilcoxon's signed-rank test (1945) on the prompts' differences, each a mean over seeds;
            two-sided, not corrected for the number of comparisons.
        higher: Seeds in which the difference is above 0.
        seeds: Seeds that both have.
        of: Seeds that were trained.
    """

    difference: float
    low: float
    high: float
    p: float
    higher: int
    seeds: int
    of: int

    @property
    def same(self) -> bool:
        """Whether nothing differs, as where both are one training."""
        return self.low == self.high == 0

    @property
    def verdict(self) -> str:
        """Of the claim that the first is higher: what the interval and all seeds say."""
        if self.same:
            return "no difference"
        if self.low > 0 and self.higher == self.of:
            return "held"
        against = self.high < 0 and not self.higher and self.seeds == self.of
        return "the opposite" if against else "not decided"


def spread(means: Sequence[GroupMean | None]) -> Spread:
    """Mean and standard deviation over seeds; seeds without a value are left out."""
    values = [mean.value for mean in means if mean is not None]
    return Spread(
        statistics.fmean(values) if values else float("nan"),
        statistics.stdev(values) if len(values) > 1 else float("nan"),
        len(values),
        len(means),
    )


def paired(ours: Sequence[GroupMean | None], theirs: Sequence[GroupMean | None]) -> Paired | None:
    """Compare two methods seed by seed and prompt by prompt.

    Args:
        ours: A measure of the first method for each seed.
        theirs: Of the second, on the same prompts, for the same seeds.

    Returns:
        The comparison, or None if no seed has both.
    """
    both = [
        (own, other)
        for own, other in zip(ours, theirs, strict=False)
        if own is not None and other is not None
    ]
    if not both:
        return None
    first, second = (together([pair[side] for pair in both]) for side in (0, 1))
    value, low, high = first.difference(second)
    counted = (first.counts > 0) & (second.counts > 0)
    change = first.by_group().sums[counted] - second.by_group().sums[counted]
    # Without any difference there is nothing to rank.
    p = float(wilcoxon(change).pvalue) if np.any(change) else 1.0
    higher = sum(own.value > other.value for own, other in both)
    return Paired(value, low, high, p, higher, len(both), max(len(ours), len(theirs)))


def together(means: Sequence[GroupMean]) -> GroupMean:
    """Several means over the same groups as one: sums and counts are added."""
    return GroupMean(
        np.sum([mean.sums for mean in means], axis=0),
        np.sum([mean.counts for mean in means], axis=0),
    )


def decline(before: GroupMean, after: GroupMean) -> GroupMean:
    """What is lost from one to the other, on the same pairs of the same groups."""
    return GroupMean(before.sums - after.sums, before.counts)
