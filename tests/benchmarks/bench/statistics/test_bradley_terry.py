"""The ranking: worked by hand, recovered from known strengths, and where there is none."""

import math

import numpy as np
import pytest
from helpers.made_scores import made_table

from stablepref.benchmarks.bench.statistics.bradley_terry import fit_bradley_terry, rank_models


def test_two_models_are_their_log_odds() -> None:
    wins = np.array([[0.0, 30.0], [10.0, 0.0]])
    pure = fit_bradley_terry(wins, prior=0)
    assert pure == pytest.approx([math.log(3) / 2, -math.log(3) / 2])
    assert fit_bradley_terry(wins)[0] * 2 == pytest.approx(math.log(30.5 / 10.5))


def test_three_models_worked_by_hand() -> None:
    # 2:1, 2:1 and 4:1 are the odds of strengths log 4, log 2 and 0, so the fit is exact.
    wins = np.array([[0.0, 6, 12], [3, 0, 8], [3, 4, 0]])
    expected = np.log([4, 2, 1]) - np.log([4, 2, 1]).mean()
    assert fit_bradley_terry(wins, prior=0) == pytest.approx(expected)


@pytest.mark.parametrize("prior", [0.0, 0.5])
def test_the_fit_satisfies_zermelos_equations(prior: float) -> None:
    # At the maximum each model has as many wins as its strength expects (Zermelo, 1929).
    rng = np.random.default_rng(0)
    for models in (2, 5, 22):
        wins = rng.integers(1, 200, (models, models)).astype(float)
        strengths = fit_bradley_terry(wins, prior=prior)
        for i in range(models):
            won = expected = 0.0
            for j in range(models):
                if i != j:
                    won += wins[i, j] + prior
                    met = wins[i, j] + wins[j, i] + 2 * prior
                    expected += met / (1 + math.exp(strengths[j] - strengths[i]))
            assert won == pytest.approx(expected, rel=1e-9)
        assert strengths.sum() == pytest.approx(0, abs=1e-9)


def test_known_strengths_are_recovered_within_their_intervals() -> None:
    # Scores with Gumbel noise: their differences are logistic, as the model says.
    rng = np.random.default_rng(1)
    true = np.array([0.6, 0.1, -0.1, -0.6])
    scores = true[:, None] + rng.gumbel(size=(4, 2000))
    ranked = rank_models(
        made_table(dict(zip("dbca", scores, strict=True))), "made-up", resamples=200
    )
    assert [one.model for one in ranked] == ["d", "b", "c", "a"]
    assert [one.rank for one in ranked] == [1, 2, 3, 4]
    for one, strength in zip(ranked, true, strict=True):
        assert one.low <= strength <= one.high
        assert one.strength == pytest.approx(strength, abs=0.1)
        assert one.win_probability == pytest.approx(1 / (1 + math.exp(-one.strength)))
        assert one.rank_low == one.rank_high == one.rank
    assert ranked[0].high - ranked[0].low < 0.2


def test_equal_models_share_ranks() -> None:
    rng = np.random.default_rng(2)
    table = made_table({name: rng.normal(size=50) for name in "abc"})
    for one in rank_models(table, "made-up", resamples=100):
        assert (one.rank_low, one.rank_high) == (1, 3)
    tied = rank_models(made_table({"a": [1, 2], "b": [1, 2]}), "made-up", resamples=50)
    assert [(one.rank, one.strength) for one in tied] == [(1, 0), (1, 0)]


def test_prompts_that_all_say_the_same_have_no_interval() -> None:
    """Two prompts on which a wins: every draw of them is the same two."""
    few = rank_models(made_table({"a": [2, 3], "b": [1, 2]}), "made-up", resamples=50)
    for one in few:
        assert math.isnan(one.low)
        assert math.isnan(one.high)
        assert (one.rank_low, one.rank_high) == (1, 2)
    many = rank_models(made_table({"a": [2.0] * 6, "b": [1.0] * 6}), "made-up", resamples=50)
    assert [(one.rank_low, one.rank_high) for one in many] == [(1, 1), (2, 2)]


def test_a_model_that_always_wins_is_finite_with_the_prior_alone() -> None:
    table = made_table({"best": [3, 3, 3], "middle": [2, 2, 1], "worst": [1, 1, 2]})
    ranked = rank_models(table, "made-up", resamples=50)
    assert ranked[0].model == "best"
    assert all(math.isfinite(one.strength) for one in ranked)
    with pytest.raises(ValueError, match="add a prior"):
        rank_models(table, "made-up", prior=0, resamples=50)


def test_missing_prompts_are_no_contests() -> None:
    nan = math.nan
    table = made_table({"a": [1, 1, nan, 1], "b": [0, 2, 5, 0], "c": [0, 0, 0, nan]})
    ranked = {one.model: one.strength for one in rank_models(table, "made-up", resamples=50)}
    wins = np.array([[0, 2.0, 2], [1, 0, 2.5], [0, 0.5, 0]])
    assert [ranked[name] for name in "abc"] == pytest.approx(fit_bradley_terry(wins).tolist())


def test_a_model_that_meets_no_other_has_no_strength() -> None:
    nan = math.nan
    scores = {"a": [1, 2, 3, nan], "none": [nan] * 4, "alone": [nan] * 3 + [9], "b": [2, 1, 2, nan]}
    ranked = rank_models(made_table(scores), "made-up", resamples=50)
    assert [one.model for one in ranked] == ["a", "b"]
    without = {name: own[:3] for name, own in scores.items() if name in "ab"}
    expected = rank_models(made_table(without), "made-up", resamples=50)
    assert [one.strength for one in ranked] == pytest.approx([one.strength for one in expected])


def test_one_model_or_prompt_has_no_ranking() -> None:
    assert rank_models(made_table({"a": [1, 2]}), "made-up") == ()
    assert rank_models(made_table({"a": [1], "b": [2]}), "made-up") == ()


def test_wrong_wins() -> None:
    with pytest.raises(ValueError, match=r"expected \(models, models\)"):
        fit_bradley_terry(np.ones((2, 3)))
    with pytest.raises(ValueError, match="not negative"):
        fit_bradley_terry(np.array([[0.0, -3], [1, 0]]))
    with pytest.raises(ValueError, match="not negative"):
        fit_bradley_terry(np.array([[0.0, math.nan], [1, 0]]))
