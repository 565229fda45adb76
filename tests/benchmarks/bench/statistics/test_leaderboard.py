"""Means, categories, HPD v2's protocol and intervals, against loops and official arithmetic."""

import math
import statistics

import numpy as np
import pytest
from helpers.made_scores import made_table

from stablepref.benchmarks.bench.score_table import Failure, joined, unshared
from stablepref.benchmarks.bench.statistics.hpdv2 import grouped, style_scores
from stablepref.benchmarks.bench.statistics.leaderboard import category_standings, standings
from stablepref.benchmarks.bench.statistics.resampling import mean_intervals
from stablepref.benchmarks.bench.statistics.summary import summarise
from stablepref.evaluation.means import GroupMean, bootstrap


def test_ten_groups_of_eighty() -> None:
    """The official arithmetic in plain loops: means of 80 by index, their mean and pstdev."""
    scores = np.random.default_rng(0).normal(27, 2, 800)
    means = []
    for start in range(0, 800, 80):
        total = 0.0
        for score in scores[start : start + 80]:
            total += score
        means.append(total / 80)
    mean, deviation = grouped(scores)
    assert mean == pytest.approx(statistics.fmean(means))
    assert deviation == pytest.approx(statistics.pstdev(means))
    assert deviation != pytest.approx(statistics.stdev(means))
    assert grouped(np.repeat([1.0, 3.0], 400)) == (2, 1)


def test_what_cannot_be_grouped() -> None:
    with pytest.raises(ValueError, match="801 scores cannot be cut into 10"):
        grouped(np.zeros(801))
    with pytest.raises(ValueError, match="1 of 800 scores are missing"):
        grouped(np.array([math.nan] + [0.0] * 799))


def test_styles_of_hpdv2() -> None:
    rng = np.random.default_rng(1)
    names = ("anime", "photo")
    labels = [{"style": name} for name in names for _ in range(800)]
    a, b = rng.normal(size=(2, 1600))
    b[900] = math.nan
    rows = style_scores(made_table({"a": a, "b": b}, labels=labels))
    found = {(row.model, row.style): row for row in rows}
    assert len(rows) == 6
    for place, name in enumerate(names):
        own = a[800 * place :][:800]
        row = found["a", name]
        assert (row.mean, row.deviation) == grouped(own)
    whole = found["a", "all"]
    assert whole.mean == pytest.approx(a.mean())
    assert found["b", "anime"].mean is not None
    missing = found["b", "photo"]
    assert (missing.mean, missing.deviation, missing.missing) == (None, None, 1)
    assert found["b", "all"].mean is None
    # Other sets have no such numbers, whatever their columns are called.
    assert style_scores(made_table({"a": a[:80]}, labels=labels[:80])) == ()
    assert style_scores(made_table({"a": a[:80]})) == ()


def test_each_prompt_counts_once() -> None:
    scores = {"a": [[1, 3], [math.nan, 8], [math.nan, math.nan]], "b": [[5], [6], [7]]}
    failures = [Failure("a", "00001", 0, "made-up", "x"), Failure("a", "00002", 0, "made-up", "x")]
    b, a = standings(made_table(scores, failures=failures))
    assert (b.model, a.model) == ("b", "a")  # best first
    assert a.mean == 5
    assert (a.prompts, a.images, a.failed) == (2, 3, 2)
    assert (b.mean, b.prompts, b.images, b.failed) == (6, 3, 3, 0)


def test_categories_are_kept_apart() -> None:
    labels = [{"category": "x", "challenge": "1"}, {"category": "x"}, {"category": "y"}]
    rows = category_standings(made_table({"a": [1, 3, 5], "b": [2, 2, math.nan]}, labels=labels))
    found = {(row.label, row.value, row.model): (row.mean, row.prompts) for row in rows}
    assert found["category", "x", "a"] == (2, 2)
    assert found["category", "y", "a"] == (5, 1)
    assert found["challenge", "1", "b"] == (2, 1)
    mean, count = found["category", "y", "b"]
    assert math.isnan(mean)
    assert count == 0
    assert len(rows) == 6


def test_intervals_are_those_of_another_bootstrap() -> None:
    values = np.random.default_rng(2).exponential(size=(3, 150))
    found = mean_intervals(values, [str(place) for place in range(150)], resamples=20_000)
    for row, interval in zip(values, found, strict=True):
        _, low, high = GroupMean(row, np.ones(150)).interval(resamples=20_000, seed=5)
        assert interval.value == pytest.approx(row.mean())
        assert interval.low == pytest.approx(low, abs=0.01)
        assert interval.high == pytest.approx(high, abs=0.01)


def test_intervals_leave_missing_prompts_out() -> None:
    nan = math.nan
    values = np.array([[1, 2, 4, nan], [nan, nan, 3, nan], [nan] * 4, [1, 2, 4, 8]])
    found = mean_intervals(values, "abcd")
    assert found[0] == mean_intervals(np.array([[1.0, 2, 4]]), "abc")[0]
    assert found[1].value == 3
    assert math.isnan(found[1].low)
    assert math.isnan(found[2].value)
    assert found[3].value == 3.75


def test_prompts_of_a_list_that_occur_again_are_drawn_together() -> None:
    """Against a naive loop over the same draws; a list given twice is no more certain."""
    values = np.random.default_rng(5).normal(size=(1, 7))
    words = ["a", "b", "a", "c", "b", "a", "d"]
    places = bootstrap(lambda drawn: drawn.T.astype(float), 4, resamples=300).draws.astype(int).T
    means = []
    for drawn in places:
        taken = [
            value
            for prompt in drawn
            for value, word in zip(values[0], words, strict=True)
            if word == "abcd"[prompt]
        ]
        means.append(sum(taken) / len(taken))
    (found,) = mean_intervals(values, words, resamples=300)
    assert found == pytest.approx((values.mean(), *np.quantile(means, [0.025, 0.975])))

    twice = mean_intervals(np.tile(values, 2), [str(place) for place in range(7)] * 2)
    assert twice[0] == pytest.approx(mean_intervals(values, [str(i) for i in range(7)])[0])
    alone = mean_intervals(values, ["the same"] * 7)
    assert math.isnan(alone[0].low)


def test_runs_join_on_equal_prompts_and_scorers() -> None:
    one, other = made_table({"a": [1, 2]}), made_table({"b": [[3, 5], [4, 4]]})
    both = joined([one, other])
    assert both.models == ("a", "b")
    assert unshared([one, other]) == []
    assert unshared([one, made_table({"b": [1, 2]}, scorer="x")]) == ["made-up", "x"]
    assert both.means("made-up").tolist() == [[1, 2], [4, 4]]
    with pytest.raises(ValueError, match="a is in two of the runs"):
        joined([one, one])
    with pytest.raises(ValueError, match="different prompts: 2 of made-up and 3 of made-up"):
        joined([one, made_table({"b": [1, 2, 3]})])
    with pytest.raises(ValueError, match="no scorer is in all"):
        joined([one, made_table({"b": [1, 2]}, scorer="x")])
    with pytest.raises(ValueError, match="expected one or more runs, got none"):
        joined([])


def test_warnings_say_how_many_prompts_would_do() -> None:
    rng = np.random.default_rng(3)
    close = {"a": rng.normal(size=40), "b": rng.normal(0.2, size=40)}
    (warning,) = summarise(made_table(close), resamples=50, fits=50).warnings
    assert warning.startswith("made-up: 40 prompts do not distinguish a from b")
    assert "would, with 80% power" in warning
    far = {"a": rng.normal(size=40), "b": rng.normal(3, size=40)}
    assert summarise(made_table(far), resamples=50, fits=50).warnings == ()


def test_close_pairs_are_one_warning() -> None:
    rng = np.random.default_rng(5)
    close = {name: rng.normal(size=40) for name in "abcde"}
    (warning,) = summarise(made_table(close), resamples=50, fits=50).warnings
    assert warning.startswith("the prompts do not distinguish 10 of 10 pairs of models: a from b")
    assert "and 4 more" in warning


def test_warnings_name_uneven_coverage_and_the_laboratory() -> None:
    uneven = made_table({"a": [1, math.nan], "b": [2, 3]}, scorer="sp-shapes")
    warnings = summarise(uneven, resamples=50, fits=50).warnings
    assert any("a has scores for 1 of 2 prompts only" in text for text in warnings)
    assert any("outside its grammar" in text and "rank nothing" in text for text in warnings)
