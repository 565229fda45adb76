"""A mean over pairs or groups that knows which prompt each part came from, for its uncertainty.

Pairs of one prompt share images and annotators, so they say less than as many independent pairs
would. The bootstrap here draws whole prompts; where several groups share a prompt,
`GroupMean.by_prompt` joins them first, which makes it a cluster bootstrap (Davison and Hinkley,
*Bootstrap Methods and their Application*, 1997, section 3.8).
"""

import warnings
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypedDict, Unpack, final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]
Places = NDArray[np.int64]

CONFIDENCE = 0.95
RESAMPLES = 2000
_BLOCK = 2**22  # numbers drawn at once, so that memory stays at some 100 MB for any data set


class Interval(NamedTuple):
    """A value with the bounds of its confidence interval."""

    value: float
    low: float
    high: float


class BootstrapOptions(TypedDict, total=False):
    """How an interval is drawn.

    Attributes:
        confidence: Share of resamples inside the interval, 0.95 by default.
        resamples: How often as many groups are drawn with replacement, 2000 by default.
        seed: Of the draws, 0 by default. Equal seeds and numbers of groups draw the same groups.
    """

    confidence: float
    resamples: int
    seed: int


class Bootstrap(NamedTuple):
    """Numbers of many resamples, and the interval that most of them lie in.

    Attributes:
        bounds: The lower and the upper bound, ``(2, ...)``; NaN where no resample has a number.
        draws: The numbers of all resamples, ``(..., resamples)``.
    """

    bounds: Array
    draws: Array


def bootstrap(
    statistic: Callable[[Places], Array],
    groups: int,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Bootstrap:
    """Percentile bootstrap over groups (Efron, 1979), drawn by `scipy.stats.bootstrap`.

    Args:
        statistic: Numbers ``(..., draws)`` of the places of drawn groups, ``(draws, groups)``. NaN
            stands for a resample that has no number; it is left out of the interval.
        groups: How many there are.
        confidence: Share of resamples inside the interval.
        resamples: How often as many groups are drawn with replacement.
        seed: Of the draws.

    Returns:
        The bounds and all resamples. Of a single group every resample is that group; of none there
        is nothing.

    Raises:
        ValueError: If ``confidence`` is not strictly between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; expected a number strictly from 0 to 1")
    if groups < 2:  # which scipy refuses
        draws = statistic(np.zeros((resamples, groups), dtype=np.int64))
    else:
        with warnings.catch_warnings():
            # Its own interval has no number where a single resample has none.
            warnings.simplefilter("ignore", stats.DegenerateDataWarning)
            draws = stats.bootstrap(
                (np.arange(groups),),
                lambda places, axis: statistic(places),
                method="percentile",
                vectorized=True,
                axis=-1,
                confidence_level=confidence,
                n_resamples=resamples,
                batch=max(1, _BLOCK // groups),
                rng=np.random.default_rng(seed),
            ).bootstrap_distribution
    tail = (1 - confidence) / 2
    nothing = np.asarray(np.isnan(draws).all(axis=-1))
    known = np.where(nothing[..., None], 0.0, draws)
    bounds = np.nanquantile(known, [tail, 1 - tail], axis=-1)
    return Bootstrap(np.where(nothing, np.nan, bounds), draws)


def prompt_places(prompts: Sequence[Hashable]) -> Places:
    """For each item the place of its prompt among the different ones, by first occurrence."""
    places = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompts))}
    return np.array([places[prompt] for prompt in prompts], dtype=np.int64)


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

    def by_prompt(self, prompts: Sequence[Hashable]) -> "GroupMean":
        """The same mean, with the groups of each prompt joined so that they are drawn together.

        Several groups share a prompt where people compared its images in pairs, or where each
        annotator has a group. Drawn one by one, they would count as independent, and the interval
        would be too narrow.

        Args:
            prompts: The prompt of each group.

        Returns:
            Of the same value and count, with one group for each different prompt, by first
            occurrence; the same numbers where all prompts differ.

        Raises:
            ValueError: If there is not one prompt for each group.
        """
        if len(prompts) != len(self.sums):
            raise ValueError(
                f"{len(prompts)} prompts for {len(self.sums)} groups; expected one each"
            )
        places = prompt_places(prompts)
        sums, counts = np.zeros((2, len(set(prompts))))
        np.add.at(sums, places, self.sums)
        np.add.at(counts, places, self.counts)
        return GroupMean(sums, counts)

    def interval(self, **options: Unpack[BootstrapOptions]) -> Interval:
        """The mean with its bootstrap confidence interval over groups.

        Args:
            options: See `BootstrapOptions`.

        Returns:
            The value and its bounds; NaN bounds if nothing was counted. With a single group, which
            says nothing of others, all three are equal.

        Raises:
            ValueError: If ``confidence`` is not strictly between 0 and 1.
        """
        bounds = bootstrap(self._drawn, len(self.sums), **options).bounds
        return Interval(self.value, *bounds.tolist())

    def difference(self, other: "GroupMean", **options: Unpack[BootstrapOptions]) -> Interval:
        """This value less another's on the same groups, with a paired bootstrap interval.

        Both are computed on the same drawn groups, so what the groups have in common cancels.

        Args:
            other: The same measure of another scorer, or on perturbed images.
            options: See `BootstrapOptions`.

        Returns:
            The difference and its bounds; NaN as for `interval`.

        Raises:
            ValueError: If the numbers of groups differ, or ``confidence`` is out of range.
        """
        if len(self.sums) != len(other.sums):
            raise ValueError(
                f"{len(self.sums)} and {len(other.sums)} groups; expected the same groups in both"
            )

        def drawn(places: Places) -> Array:
            return self._drawn(places) - other._drawn(places)

        bounds = bootstrap(drawn, len(self.sums), **options).bounds
        return Interval(self.value - other.value, *bounds.tolist())

    def _drawn(self, places: Places) -> Array:
        """The means over groups drawn with replacement, ``(..., groups)`` to ``(...)``."""
        return _ratio(self.sums[places].sum(axis=-1), self.counts[places].sum(axis=-1))


def _ratio(sums: Array, counts: Array) -> Array:
    with np.errstate(invalid="ignore"):
        return np.asarray(np.divide(sums, counts), dtype=np.float64)
