"""Seeds' spread and paired differences, against the plain arithmetic and scipy."""

import math
import statistics

import numpy as np
import pytest
from scipy import stats

from stablepref.benchmarks.shapes.ablation.statistics import (
    Paired,
    decline,
    paired,
    spread,
    together,
)
from stablepref.evaluation.means import GroupMean


def mean_of(*shares: float, counts: float = 10) -> GroupMean:
    return GroupMean(np.array(shares) * counts, np.full(len(shares), counts))


def drawn(seed: int, groups: int = 12) -> GroupMean:
    generator = np.random.default_rng(seed)
    counts = generator.integers(5, 37, groups).astype(float)
    return GroupMean(generator.integers(0, counts + 1).astype(float), counts)


def test_spread_is_that_of_the_seeds() -> None:
    found = spread([mean_of(0.5, 0.7), None, mean_of(0.8, 0.8), mean_of(0.7, 0.7)])
    assert found.mean == pytest.approx(0.7)
    assert found.deviation == pytest.approx(statistics.stdev([0.6, 0.8, 0.7]))
    assert (found.seeds, found.of) == (3, 4)
    assert math.isnan(spread([mean_of(0.5)]).deviation)
    assert spread([None]).seeds == 0
    assert math.isnan(spread([]).mean)


def test_a_pair_is_compared_prompt_by_prompt() -> None:
    ours = [drawn(0), drawn(1), drawn(2)]
    theirs = [GroupMean(np.maximum(o.sums - 2, 0), o.counts) for o in ours]
    found = paired(ours, theirs)
    assert found is not None
    sums = [sum(o.sums.sum() for o in each) for each in (ours, theirs)]
    pairs = sum(o.counts.sum() for o in ours)
    assert found.difference == pytest.approx((sums[0] - sums[1]) / pairs)
    prompts = [
        sum(o.sums[g] - t.sums[g] for o, t in zip(ours, theirs, strict=True))
        / sum(o.counts[g] for o in ours)
        for g in range(12)
    ]
    assert found.p == pytest.approx(stats.wilcoxon(prompts).pvalue)
    assert (found.higher, found.seeds, found.verdict) == (3, 3, "held")
    assert 0 < found.low < found.difference < found.high
    swapped = paired(theirs, ours)
    assert swapped is not None
    assert (swapped.higher, swapped.verdict) == (0, "the opposite")


def test_equal_methods_do_not_differ() -> None:
    found = paired([drawn(0)], [drawn(0)])
    assert found == Paired(0.0, 0.0, 0.0, 1.0, 0, 1, 1)
    assert found.verdict == "no difference"


@pytest.mark.parametrize(
    ("low", "high", "higher", "seeds", "verdict"),
    [
        (0.1, 0.3, 3, 3, "held"),
        (0.1, 0.3, 2, 3, "not decided"),  # a seed says otherwise
        (0.1, 0.3, 2, 2, "not decided"),  # a seed diverged
        (-0.1, 0.3, 3, 3, "not decided"),
        (-0.3, -0.1, 0, 3, "the opposite"),
        (-0.3, -0.1, 1, 3, "not decided"),
        (-0.3, -0.1, 0, 2, "not decided"),
    ],
)
def test_a_claim_holds_if_interval_and_all_seeds_say_so(
    low: float, high: float, higher: int, seeds: int, verdict: str
) -> None:
    assert Paired((low + high) / 2, low, high, 0.01, higher, seeds, 3).verdict == verdict


def test_seeds_that_one_side_lacks_do_not_count() -> None:
    found = paired([drawn(0), None, drawn(2), drawn(3)], [drawn(1), drawn(1), drawn(1)])
    expected = paired([drawn(0), drawn(2)], [drawn(1), drawn(1)])
    assert expected is not None
    assert found == expected._replace(of=4)
    assert paired([None], [drawn(0)]) is None


def test_prompts_without_pairs_do_not_count() -> None:
    def with_empty(mean: GroupMean) -> GroupMean:
        return GroupMean(np.append(mean.sums, 0), np.append(mean.counts, 0))

    one, other = paired([drawn(0)], [drawn(1)]), None
    other = paired([with_empty(drawn(0))], [with_empty(drawn(1))])
    assert one is not None
    assert other is not None
    assert other.p == pytest.approx(one.p)
    assert other.difference == pytest.approx(one.difference)


def test_sums_and_declines() -> None:
    first, second = mean_of(0.5, 0.9), mean_of(0.3, 0.4, counts=30)
    assert together([first, second]).value == pytest.approx((5 + 9 + 9 + 12) / 80)
    lost = decline(mean_of(0.5, 0.9), mean_of(0.4, 0.9))
    assert lost.value == pytest.approx(0.05)
    assert lost.sums.tolist() == pytest.approx([1, 0])
