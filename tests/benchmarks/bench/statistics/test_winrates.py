"""Paired win rates against naive loops, and how they are corrected and told."""

import math
from itertools import product

import numpy as np
import pytest
from helpers.made_scores import made_table
from numpy.typing import NDArray
from scipy.stats import binom

from stablepref.benchmarks.bench.statistics.bradley_terry import rank_models
from stablepref.benchmarks.bench.statistics.power import needed_prompts
from stablepref.benchmarks.bench.statistics.winrates import (
    compare_models,
    effect_size,
    holm,
    prompt_shares,
    sign_test,
    win_rate_intervals,
)


def naive_shares(
    a: NDArray[np.float64], b: NDArray[np.float64], margin: float
) -> list[list[float]]:
    rows = []
    for one, other in zip(a, b, strict=True):
        counts = [0, 0, 0]
        for x, y in product(one, other):
            if not (math.isnan(x) or math.isnan(y)):
                counts[0 if x - y > margin else 2 if y - x > margin else 1] += 1
        met = sum(counts)
        rows.append([n / met for n in counts] if met else [math.nan] * 3)
    return rows


@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_shares_are_those_of_a_naive_loop(margin: float) -> None:
    rng = np.random.default_rng(0)
    a = rng.integers(0, 4, (30, 3)).astype(float)
    b = rng.integers(0, 4, (30, 2)) / 2
    a[3, 1] = a[4] = b[5] = math.nan
    expected = naive_shares(a, b, margin)
    np.testing.assert_allclose(prompt_shares(a, b, tie_margin=margin), expected)


def test_a_pair_worked_by_hand() -> None:
    # Two wins, one tie, one loss; differences 1, 2, 0, -1.
    (pair,) = compare_models(made_table({"a": [2, 3, 1, 0], "b": [1, 1, 1, 1]}), "made-up")
    assert (pair.win, pair.tie, pair.loss) == (0.5, 0.25, 0.25)
    assert pair.win_rate == 0.625
    assert pair.difference == 0.5
    assert pair.effect_size == pytest.approx(0.5 / math.sqrt(5 / 3))
    # Two of three decided prompts: P(0, 1, 2 or 3 of 3) = 1.
    assert pair.p == pair.p_adjusted == 1
    assert not pair.distinct
    assert pair.prompts == 4
    assert pair.low <= pair.win_rate <= pair.high


def test_the_sign_test_is_the_binomial_one() -> None:
    # 9 of 10 decided prompts, 2 even ones: P(X <= 1) + P(X >= 9) of 10 fair tosses.
    shares = np.array([[1, 0, 0]] * 9 + [[0, 0, 1]] + [[0, 1, 0]] * 2, dtype=float)
    assert sign_test(shares) == pytest.approx(2 * (1 + 10) / 1024)
    assert sign_test(np.array([[0.5, 0, 0.5], [0, 1, 0]])) == 1


def test_several_images_of_a_prompt_are_one_decision() -> None:
    a, b = [[3, 1], [2, 2]], [[2], [1]]
    (pair,) = compare_models(made_table({"a": a, "b": b}), "made-up")
    assert pair.win == pytest.approx((0.5 + 1) / 2)
    assert pair.prompts == 2


def test_holm_is_the_step_down_rule() -> None:
    rng = np.random.default_rng(1)
    for size in (1, 2, 7):
        p = rng.random(size).round(1)
        adjusted = holm(p)
        for significance in (0.049, 0.251, 0.51):
            # Reject from the smallest on, until one is above its share of the significance.
            rejected = [False] * size
            for step, place in enumerate(np.argsort(p, kind="stable")):
                if p[place] > significance / (size - step):
                    break
                rejected[place] = True
            assert [x <= significance for x in adjusted] == rejected
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


def test_all_pairs_are_corrected_together() -> None:
    rng = np.random.default_rng(2)
    base = rng.normal(size=40)
    scores = {name: base + shift + rng.normal(size=40) for name, shift in
              (("a", 0.0), ("b", 0.3), ("c", 1.5))}  # fmt: skip
    pairs = compare_models(made_table(scores), "made-up")
    assert [(pair.a, pair.b) for pair in pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [pair.p_adjusted for pair in pairs] == holm([pair.p for pair in pairs])
    assert pairs[1].distinct
    assert pairs[1].win_rate < 0.2
    (alone,) = compare_models(made_table({"a": scores["a"], "b": scores["b"]}), "made-up")
    assert alone.p == pairs[0].p
    assert alone.p_adjusted <= pairs[0].p_adjusted


def test_only_shared_prompts_count() -> None:
    nan = math.nan
    table = made_table({"a": [1, 2, nan, 4], "b": [0, 3, 5, nan], "c": [nan, nan, 1, nan]})
    pairs = {(pair.a, pair.b): pair for pair in compare_models(table, "made-up")}
    assert set(pairs) == {("a", "b"), ("b", "c")}  # a and c share none
    assert pairs["a", "b"].prompts == 2
    assert pairs["a", "b"].win_rate == 0.5
    assert pairs["a", "b"].needed is None
    assert pairs["b", "c"].prompts == 1


def test_a_list_given_twice_is_no_more_certain() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.normal(size=(2, 12)) + np.array([[0.9], [0.0]])
    words = [f"prompt {place}" for place in range(12)]
    (once,) = compare_models(made_table({"a": a, "b": b}, words=words), "made-up")
    table = made_table({"a": np.tile(a, 3), "b": np.tile(b, 3)}, words=words * 3)
    (thrice,) = compare_models(table, "made-up")
    assert (thrice.p, thrice.needed) == (once.p, once.needed)
    for name in ("win_rate", "low", "high", "difference", "difference_low", "difference_high"):
        assert getattr(thrice, name) == pytest.approx(getattr(once, name)), name
    single = made_table({"a": a, "b": b}, words=words)
    own, again = (
        rank_models(one, "made-up", prior=prior)[0] for one, prior in ((single, 0.5), (table, 1.5))
    )
    assert (again.strength, again.low, again.high) == pytest.approx(
        (own.strength, own.low, own.high)
    )


def test_intervals_cover_the_true_rate() -> None:
    rng = np.random.default_rng(3)
    rates = rng.choice([0.0, 0.5, 1.0], p=[0.3, 0.1, 0.6], size=(300, 80))  # the mean is 0.65
    found = win_rate_intervals(rates, [str(place) for place in range(80)], resamples=300)
    covered = np.mean([one.low <= 0.65 <= one.high for one in found])
    assert 0.91 < covered < 0.98
    np.testing.assert_allclose([one.value for one in found], rates.mean(axis=1))


def test_unanimous_prompts_are_not_certainty() -> None:
    wins, ties = win_rate_intervals(
        np.array([[1.0] * 20, [0.5] * 20]), [str(place) for place in range(20)]
    )
    # What has not happened on 20 prompts may happen with 1 - 0.025^(1/20).
    unseen = 1 - 0.025 ** (1 / 20)
    assert wins == pytest.approx((1, 1 - unseen, 1))
    assert ties == pytest.approx((0.5, 0.5 - unseen / 2, 0.5 + unseen / 2))


def test_effect_size_needs_variation() -> None:
    assert effect_size(np.array([1.0, 1.0])) is None
    assert effect_size(np.array([1.0, math.nan])) is None
    assert effect_size(np.array([1.0, 3.0, math.nan])) == pytest.approx(2 / math.sqrt(2))


@pytest.mark.parametrize("share", [0.55, 0.6, 0.3])
@pytest.mark.parametrize("significance", [0.05, 0.05 / 3])
def test_the_number_of_prompts_has_the_power(share: float, significance: float) -> None:
    n = needed_prompts(share, significance=significance)
    assert n is not None
    # The exact test at this n: reject where both tails together are below the significance.
    wins = np.arange(n + 1)
    p = np.minimum(1, 2 * binom.cdf(np.minimum(wins, n - wins), n, 0.5))
    power = binom.pmf(wins, n, share)[p < significance].sum()
    assert power == pytest.approx(0.8, abs=0.04)
    assert needed_prompts(share, decided=0.5, significance=significance) in (2 * n, 2 * n - 1)


def test_no_number_of_prompts_tells_equals_apart() -> None:
    assert needed_prompts(0.5) is None
    with pytest.raises(ValueError, match="expected a share from 0 to 1"):
        needed_prompts(1.5)
    with pytest.raises(ValueError, match="decided is 0"):
        needed_prompts(0.6, decided=0)
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        needed_prompts(0.6, power=1)


def test_an_unknown_scorer_is_named() -> None:
    with pytest.raises(ValueError, match="no scorer 'x'; there are: made-up"):
        compare_models(made_table({"a": [1], "b": [2]}), "x")
