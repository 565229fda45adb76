"""What a report computes itself: disagreement, correlations, scales and matrices."""

import math
import statistics
from itertools import combinations

import numpy as np
import pytest
from helpers.made_scores import made_table
from scipy import stats

from stablepref.benchmarks.bench.report.boards import (
    boards,
    category_bars,
    decimals,
    duels,
    fixed,
    in_order,
    number,
)
from stablepref.benchmarks.bench.report.correlation import scorer_pairs
from stablepref.benchmarks.bench.report.gallery import scorer_disagreement
from stablepref.benchmarks.bench.score_table import ScoreTable
from stablepref.benchmarks.bench.statistics.summary import summarise


def table_of(scores: np.ndarray) -> ScoreTable:
    """`(models, scorers, prompts)` as a table."""
    first = made_table({f"m{i}": own[0] for i, own in enumerate(scores)})
    names = {f"s{i}": {"unit": "points"} for i in range(scores.shape[1])}
    return ScoreTable("x", first.prompts, first.models, names, scores[..., None], ())


def naive_disagreement(scores: np.ndarray) -> list[float]:
    """The docstring in loops."""
    models, scorers, prompts = scores.shape
    told: list[list[float]] = [[] for _ in range(prompts)]
    for s, t in combinations(range(scorers), 2):
        around: dict[int, dict[int, dict[int, float]]] = {s: {}, t: {}}
        for p in range(prompts):
            both = [m for m in range(models) if not np.isnan(scores[m, [s, t], p]).any()]
            if len(both) < 2:
                continue
            for scorer in (s, t):
                mean = statistics.fmean(scores[m, scorer, p] for m in both)
                around[scorer][p] = {m: scores[m, scorer, p] - mean for m in both}
        scale = {
            scorer: math.sqrt(
                statistics.fmean(x * x for row in own.values() for x in row.values())
            ) or 1.0
            for scorer, own in around.items()
        }  # fmt: skip
        for p, row in around[s].items():
            gaps = [x / scale[s] - around[t][p][m] / scale[t] for m, x in row.items()]
            told[p].append(math.sqrt(statistics.fmean(gap * gap for gap in gaps)))
    return [statistics.fmean(own) if own else math.nan for own in told]


def test_disagreement_is_that_of_plain_loops() -> None:
    scores = np.random.default_rng(0).normal(size=(4, 3, 30))
    scores[0, 1, :5] = math.nan
    scores[1:, :, 7] = math.nan  # one model is no comparison
    scores[:, 2, 9] = math.nan
    found = scorer_disagreement(table_of(scores))
    assert found == pytest.approx(naive_disagreement(scores), nan_ok=True)
    assert math.isnan(found[7])
    assert not math.isnan(found[9])


def test_disagreement_has_no_unit() -> None:
    scores = np.random.default_rng(1).normal(size=(3, 2, 20))
    same = scores.copy()
    same[:, 1] = 5 * same[:, 0] + 100  # other unit, other origin, same opinion
    assert scorer_disagreement(table_of(same)) == pytest.approx(0, abs=1e-12)
    opposite = scores.copy()
    opposite[:, 1] = -opposite[:, 0]
    assert scorer_disagreement(table_of(opposite)).max() > 2
    flat = scores.copy()
    flat[:, 1] = 3.0  # sees no difference anywhere
    assert np.isfinite(scorer_disagreement(table_of(flat))).all()
    many = np.random.default_rng(2).normal(size=(20, 2, 500))
    squares = scorer_disagreement(table_of(many)) ** 2
    assert squares.mean() == pytest.approx(2, abs=0.1)
    assert np.isnan(scorer_disagreement(table_of(scores[:, :1]))).all()


def test_correlations_are_those_of_scipy() -> None:
    rng = np.random.default_rng(3)
    shared = rng.normal(size=(6, 1, 80))
    scores = shared + rng.normal(size=(6, 2, 80)) + rng.normal(size=(1, 1, 80)) * 10
    scores[0, 0, 3] = math.nan
    over_models, over_prompts = scorer_pairs(table_of(scores), resamples=2000)
    assert (over_models.over, over_prompts.over) == ("models", "prompts")
    there = ~np.isnan(scores).any(axis=1)
    means = [[scores[m, s][there[m]].mean() for m in range(6)] for s in range(2)]
    assert over_models.pearson == pytest.approx(stats.pearsonr(*means).statistic)
    assert over_models.spearman == pytest.approx(stats.spearmanr(*means).statistic)
    assert over_models.points == 6
    less = [
        [scores[m, s, p] - scores[there[:, p], s, p].mean() for m, p in np.argwhere(there)]
        for s in range(2)
    ]
    assert over_prompts.pearson == pytest.approx(stats.pearsonr(*less).statistic)
    assert over_prompts.spearman == pytest.approx(stats.spearmanr(*less).statistic)
    assert over_prompts.points == 479
    # Independent points, so Fisher's interval holds but for a prompt's models sharing their mean.
    fisher = stats.pearsonr(*less).confidence_interval()
    assert over_prompts.low == pytest.approx(fisher.low, abs=0.03)
    assert over_prompts.high == pytest.approx(fisher.high, abs=0.03)


def test_plots_are_small_and_in_the_colours_of_the_page() -> None:
    scores = np.random.default_rng(4).normal(size=(3, 2, 1000))
    pairs = scorer_pairs(table_of(scores), resamples=10)
    again = scorer_pairs(table_of(scores), resamples=10)
    assert [pair.plot for pair in again] == [pair.plot for pair in pairs]
    for pair in pairs:
        assert pair.plot.startswith("<svg viewBox=")
        assert pair.plot.endswith("</svg>")
        assert "var(--ink)" in pair.plot
        assert "#0102" not in pair.plot
        assert "http" not in pair.plot
        assert len(pair.plot) < 120_000
    assert ">m0<" in pairs[0].plot
    assert "data:image/png" in pairs[1].plot


def test_scorers_that_see_nothing_do_not_correlate() -> None:
    scores = np.zeros((2, 2, 5))
    scores[1, 0] = 1
    pairs = scorer_pairs(table_of(scores), resamples=10)
    assert all(math.isnan(pair.pearson) and math.isnan(pair.low) for pair in pairs)
    assert scorer_pairs(table_of(scores[:1]), resamples=10) == ()
    assert scorer_pairs(table_of(scores[:, :1]), resamples=10) == ()


def test_bars_lie_where_their_numbers_are() -> None:
    labels = [{"category": name} for name in "xxxyyy"]
    made = made_table({"a": [0, 1, 2, 4, 4, 4], "b": [2, 2, 2, 1, 2, 3]}, labels=labels)
    (bars,) = category_bars(summarise(made, resamples=50, fits=5))
    assert (bars.start, bars.end) == (0, 4)
    assert [(value, count) for value, count, _ in bars.groups] == [("x", 3), ("y", 3)]
    for _, _, rows in bars.groups:
        for standing, bar in rows:
            assert bar.value == pytest.approx(25 * standing.mean, abs=0.01)
            assert bar.low == pytest.approx(25 * standing.low, abs=0.01)
            assert bar.width == pytest.approx(25 * (standing.high - standing.low), abs=0.02)
    # Scores whose differences could not be seen from 0 start just below the lowest bound.
    high = made_table({"a": [27.1, 27.2], "b": [27.3, 27.5]}, labels=[{"style": "z"}] * 2)
    (bars,) = category_bars(summarise(high, resamples=50, fits=5))
    assert 27 < bars.start < 27.1
    negative = made_table({"a": [-1, -2], "b": [3, 4]}, labels=[{"style": "z"}] * 2)
    (bars,) = category_bars(summarise(negative, resamples=50, fits=5))
    assert -3 < bars.start < -2
    missing = made_table({"a": [math.nan, 1], "b": [1, 1]}, labels=[{"tag": "p"}, {"tag": "q"}])
    (bars,) = category_bars(summarise(missing, resamples=50, fits=5))
    (_, _, ((_, gone), (_, one))) = bars.groups[0]
    assert (gone.value, gone.low) == (None, None)
    assert (one.value, one.low) == (50, None)  # the only number is the middle


def test_boards_are_in_the_order_of_ranks() -> None:
    # The mean of b is dragged down by one prompt, the ranking counts its wins.
    made = made_table({"a": [1.0] * 10, "b": [2.0] * 9 + [-100.0], "c": [0.0] * 10})
    rows = boards(summarise(made, resamples=20, fits=5))["made-up"]
    assert [row.standing.model for row in rows] == ["b", "a", "c"]
    assert [row.strength.rank for row in rows if row.strength] == [1, 2, 3]
    # What has no score has no place, though the fit gives everyone a strength.
    gone = made_table(
        {"a": [math.nan] * 3, "b": [1.0] * 3, "c": [2.0] * 3}, labels=[{"tag": "x"}] * 3
    )
    rows = boards(summarise(gone, resamples=20, fits=5))["made-up"]
    assert [(row.standing.model, row.strength is None) for row in rows] == [
        ("c", False), ("b", False), ("a", True)
    ]  # fmt: skip
    nothing = made_table({"a": [math.nan] * 3, "b": [math.nan] * 3}, labels=[{"tag": "x"}] * 3)
    assert category_bars(summarise(nothing, resamples=20, fits=5)) == []
    alone = boards(summarise(made_table({"a": [1.0, 2.0]}), resamples=20, fits=5))
    (row,) = alone["made-up"]
    assert row.strength is None


def test_the_matrix_has_every_pair_both_ways() -> None:
    nan = math.nan
    made = made_table({"a": [1, 2, 3, nan], "b": [2, 2, 1, nan], "c": [nan, nan, nan, 1]})
    summary = summarise(made, resamples=50, fits=5)
    rows = duels(summary, made.models)["made-up"]
    assert [[cell is None for cell in row] for row in rows] == [
        [True, False, True], [False, True, True], [True, True, True]
    ]  # fmt: skip
    ab, ba = rows[0][1], rows[1][0]
    assert ab is not None
    assert ba is not None
    assert (ab.rate, ba.rate) == (0.5, 0.5)
    assert ba.low == pytest.approx(1 - ab.high)
    assert ba.high == pytest.approx(1 - ab.low)
    assert (ab.shade, ab.prompts, ab.distinct) == (0, 3, False)
    assert duels(summarise(made_table({"a": [1]}), resamples=5, fits=5), ["a"]) == {}


def test_numbers_as_people_read_them() -> None:
    cells = (27.12345, 0.0, math.nan, math.inf, None, True, False, 3, "x")
    assert [number(cell) for cell in cells] == ["27.12", "0", "-", "-", "-", "yes", "no", "3", "x"]


def test_the_matrix_stands_in_the_order_of_the_leaderboard() -> None:
    rng = np.random.default_rng(8)
    made = made_table({"a": rng.normal(size=9), "b": rng.normal(3, size=9), "c": [9.0] * 9})
    summary = summarise(made, resamples=20, fits=5)
    order = [row.standing.model for row in boards(summary)["made-up"]]
    assert order == ["c", "b", "a"]
    rows = duels(summary, made.models)["made-up"]
    turned = in_order(rows, made.models, order)
    for row, a in enumerate(order):
        for column, b in enumerate(order):
            cell = turned[row][column]
            assert (cell is None) == (a == b)
            if cell is not None:  # it still leads to its own two models
                assert (made.models[cell.a], made.models[cell.b]) == (a, b)


@pytest.mark.parametrize(
    ("values", "digits", "shown"),
    [
        ([27.1, 27.14159, math.nan], 2, ["27.10", "27.14", "-"]),
        ([0.5, -0.123456], 4, ["0.5000", "-0.1235"]),
        ([1234.5, 7], 0, ["1234", "7"]),
        ([0.0], 3, ["0.000"]),
        ([], 3, []),
    ],
)
def test_numbers_of_a_column_have_equal_digits(
    values: list[float], digits: int, shown: list[str]
) -> None:
    assert decimals(values) == digits
    assert [fixed(value, digits) for value in values] == shown
