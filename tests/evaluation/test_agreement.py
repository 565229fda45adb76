"""Agreement metrics against naive loops, hand-worked cases and the official definitions."""

import math
import statistics
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from stablepref.data.read import read_groups
from stablepref.evaluation.agreement import (
    TieRule,
    flip_share,
    kendall_tau,
    pair_signs,
    pairwise_accuracy,
    pearson_r,
    spearman,
    spearman_rho,
    tau_b,
    top1,
    untied_margins,
)

Groups = list[NDArray[np.float64]]


def random_groups(seed: int, count: int = 60) -> tuple[Groups, Groups]:
    """Scores and ranks of groups of 2 to 9 images, with plenty of ties in both."""
    generator = np.random.default_rng(seed)
    sizes = generator.integers(2, 10, size=count)
    scores = [generator.integers(0, 6, size=n) / 2 + 20 for n in sizes]
    ranks = [generator.integers(1, 6, size=n).astype(float) for n in sizes]
    return scores, ranks


def naive_accuracy(scores: Groups, ranks: Groups, rule: TieRule, margin: float = 0.0) -> float:
    """Each rule written out case by case from its project's code."""
    group_means, total, counted = [], 0.0, 0
    for group_scores, group_ranks in zip(scores, ranks, strict=True):
        points = []
        order = sorted(range(len(group_scores)), key=lambda i: -group_scores[i])
        for i, j in combinations(range(len(group_scores)), 2):
            difference = group_scores[i] - group_scores[j]
            predicted = "tie" if abs(difference) <= margin else "i" if difference > 0 else "j"
            truth = "i" if group_ranks[i] < group_ranks[j] else "j"
            if group_ranks[i] == group_ranks[j]:
                truth = "tie"
            if rule == "hpsv2":
                inverted = (order.index(i) < order.index(j) and truth == "j") or (
                    order.index(j) < order.index(i) and truth == "i"
                )
                points.append(0.0 if inverted else 1.0)
            elif rule == "pickscore":
                half = 0.5 if "tie" in (truth, predicted) else 0.0
                points.append(1.0 if truth == predicted else half)
            elif truth != "tie":
                tied = 0.5 if rule == "half" else 0.0
                points.append(tied if predicted == "tie" else float(truth == predicted))
        total, counted = total + sum(points), counted + len(points)
        group_means.append(sum(points) / len(points) if points else math.nan)
    return float(np.mean(group_means)) if rule == "hpsv2" else total / counted


@pytest.mark.parametrize("rule", ["half", "hpsv2", "imagereward", "pickscore"])
@pytest.mark.parametrize("seed", [0, 1])
def test_accuracy_equals_a_naive_loop(seed: int, rule: TieRule) -> None:
    scores, ranks = random_groups(seed)
    result = pairwise_accuracy(scores, ranks, rule)
    assert result.value == pytest.approx(naive_accuracy(scores, ranks, rule), rel=1e-12)


@pytest.mark.parametrize("rule", ["half", "imagereward", "pickscore"])
def test_a_tie_margin_widens_predicted_ties(rule: TieRule) -> None:
    scores, ranks = random_groups(2)
    result = pairwise_accuracy(scores, ranks, rule, tie_margin=0.5)
    assert result.value == pytest.approx(naive_accuracy(scores, ranks, rule, 0.5), rel=1e-12)
    assert result.value != pairwise_accuracy(scores, ranks, rule).value


def test_the_four_rules_on_one_group_worked_by_hand() -> None:
    # Images a b c d, ranks 1 2 2 3, scores 5 5 7 1. Pair: people, scores ->
    #          half  imagereward  hpsv2              pickscore
    # ab: a, tie  0.5     0       1 (a is earlier)      0.5
    # ac: a, c    0       0       0                     0
    # ad: a, a    1       1       1                     1
    # bc: tie, c  -       -       1                     0.5
    # bd: b, b    1       1       1                     1
    # cd: c, c    1       1       1                     1
    scores, ranks = [[5.0, 5.0, 7.0, 1.0]], [[1, 2, 2, 3]]
    expected = {"half": 3.5 / 5, "imagereward": 3 / 5, "hpsv2": 5 / 6, "pickscore": 4 / 6}
    rules: tuple[TieRule, ...] = ("half", "imagereward", "hpsv2", "pickscore")
    found = {rule: pairwise_accuracy(scores, ranks, rule) for rule in rules}
    assert {rule: mean.value for rule, mean in found.items()} == pytest.approx(expected)
    assert [found[rule].count for rule in rules] == [5, 5, 1, 6]


def test_groups_count_once_for_hpsv2_and_by_their_pairs_otherwise() -> None:
    # One group of 2 images, right; one of 4 images, all 6 pairs wrong.
    scores, ranks = [[2.0, 1.0], [1.0, 2.0, 3.0, 4.0]], [[1, 2], [1, 2, 3, 4]]
    assert pairwise_accuracy(scores, ranks).value == pytest.approx(1 / 7)
    assert pairwise_accuracy(scores, ranks, "imagereward").value == pytest.approx(1 / 7)
    assert pairwise_accuracy(scores, ranks, "hpsv2").value == pytest.approx(1 / 2)


@pytest.mark.parametrize("measure", [tau_b, spearman_rho, pearson_r])
@pytest.mark.parametrize(
    ("x", "y"), [([], []), ([1], [2]), ([1, 1, 1], [1, 2, 3]), ([1, 2], [0.1, 0.1])]
)
def test_numbers_that_do_not_vary_have_no_correlation(
    measure: Callable[[list[float], list[float]], float],
    x: list[float],
    y: list[float],
    recwarn: pytest.WarningsRecorder,
) -> None:
    assert math.isnan(measure(x, y))
    assert math.isnan(measure(y, x))
    assert not recwarn.list


def test_pearson_by_hand() -> None:
    # Deviations (-1, 0, 1) and (-2, 1, 1): 3 over the root of 2 times 6.
    assert pearson_r([1, 2, 3], [1, 4, 4]) == pytest.approx(3 / math.sqrt(12))


def test_perfect_and_reversed_scores_on_the_imagereward_split(shared_data: Path) -> None:
    ranks = [group.ranks for group in read_groups(shared_data / "imagereward" / "test.json")]
    perfect = [[-rank for rank in group] for group in ranks]
    result = pairwise_accuracy(perfect, ranks, "imagereward")
    assert (result.value, result.count) == (1.0, 6399)
    assert pairwise_accuracy(ranks, ranks, "imagereward").value == 0.0
    assert pairwise_accuracy(perfect, ranks, "pickscore").count == 7230
    assert top1(perfect, ranks).value == 1.0


def naive_tau(x: Sequence[float], y: Sequence[float]) -> float:
    """Kendall's tau-b, pair by pair."""
    pairs = [(np.sign(x[i] - x[j]), np.sign(y[i] - y[j])) for i in range(len(x)) for j in range(i)]
    untied = [sum(pair[place] != 0 for pair in pairs) for place in (0, 1)]
    return float(sum(a * b for a, b in pairs)) / math.sqrt(untied[0] * untied[1])


def naive_rho(x: Sequence[float], y: Sequence[float]) -> float:
    """Pearson's r of ranks, where equal numbers share the mean of their places."""
    ranks = [
        [sum(b < a for b in values) + (sum(b == a for b in values) + 1) / 2 for a in values]
        for values in (x, y)
    ]
    return statistics.correlation(*ranks)


def test_correlations_equal_naive_loops() -> None:
    scores, ranks = random_groups(3)
    taus, rhos = [], []
    for group_scores, group_ranks in zip(scores, ranks, strict=True):
        if len(set(group_scores)) == 1 or len(set(group_ranks)) == 1:
            assert math.isnan(tau_b(group_scores, group_ranks))
            assert math.isnan(spearman_rho(group_scores, group_ranks))
            continue
        taus.append(naive_tau(group_scores, -group_ranks))
        rhos.append(naive_rho(group_scores, -group_ranks))
        assert tau_b(group_scores, -group_ranks) == pytest.approx(taus[-1], abs=1e-12)
        assert spearman_rho(group_scores, -group_ranks) == pytest.approx(rhos[-1], abs=1e-12)
    assert 0 < len(taus) < len(scores)
    tau, rho = kendall_tau(scores, ranks), spearman(scores, ranks)
    assert (tau.value, rho.value) == pytest.approx((np.mean(taus), np.mean(rhos)))
    assert tau.groups == rho.groups == len(taus)


def test_top1_by_hand() -> None:
    scores = [[3.0, 1.0, 2.0], [1.0, 2.0], [4.0, 4.0, 1.0], [1.0, 1.0]]
    ranks = [[1, 2, 3], [1, 2], [2, 1, 3], [1, 1]]
    # Right; wrong; one of the two best-scored is best; both are best.
    assert top1(scores, ranks).sums.tolist() == [1.0, 0.0, 0.5, 1.0]
    assert top1(scores, ranks).value == 2.5 / 4


def test_flips_by_hand() -> None:
    before = [[1.0, 2.0, 3.0], [1.0, 1.0]]
    after = [[2.0, 1.0, 2.0], [1.0, 2.0]]
    # ab flips (1); ac becomes a tie (0.5); bc stays (0). Second group: a tie ends (0.5).
    assert flip_share(before, after).sums.tolist() == [1.5, 0.5]
    assert flip_share(before, after).value == 2 / 4
    assert flip_share(before, before).value == 0.0
    # People tie ab, and the pair of the second group.
    counted = flip_share(before, after, ranks=[[1, 1, 2], [1, 1]])
    assert (counted.value, counted.count) == (0.25, 2)


def test_margins_of_untied_pairs() -> None:
    scores, ranks = random_groups(4)
    expected = []
    for group_scores, group_ranks in zip(scores, ranks, strict=True):
        for i, j in combinations(range(len(group_scores)), 2):
            if group_ranks[i] != group_ranks[j]:
                better, worse = (i, j) if group_ranks[i] < group_ranks[j] else (j, i)
                expected.append(group_scores[better] - group_scores[worse])
    margins = untied_margins(scores, ranks)
    assert margins.tolist() == expected
    right = (margins > 0).mean() + (margins == 0).mean() / 2
    assert right == pytest.approx(pairwise_accuracy(scores, ranks).value)


def test_pair_signs_keep_leading_axes() -> None:
    assert pair_signs([[3, 1, 1], [1, 2, 3]]).tolist() == [[1, 1, 0], [-1, -1, -1]]


@pytest.mark.parametrize(
    ("scores", "ranks", "message"),
    [
        ([[1.0, 2.0]], [], "1 and 0 groups"),
        ([[1.0, 2.0]], [[1, 2, 3]], r"group 0: shapes \(2,\) and \(3,\)"),
        ([[1.0, 2.0], [1.0, math.nan]], [[1, 2], [1, 2]], "group 1 has numbers that are not"),
    ],
)
def test_groups_that_do_not_fit_are_named(
    scores: list[list[float]], ranks: list[list[int]], message: str
) -> None:
    for metric in (pairwise_accuracy, kendall_tau, spearman, top1, untied_margins):
        with pytest.raises(ValueError, match=message):
            metric(scores, ranks)


def test_wrong_arguments_are_named() -> None:
    scores, ranks = [[1.0, 2.0]], [[1, 2]]
    with pytest.raises(ValueError, match="rule is 'best'; expected one of: half, imagereward"):
        pairwise_accuracy(scores, ranks, "best")  # type: ignore[arg-type]  # a user's mistake
    with pytest.raises(ValueError, match="tie_margin is -1"):
        pairwise_accuracy(scores, ranks, tie_margin=-1)
    with pytest.raises(ValueError, match=r"tie_margin is 0.5; .* 0 with 'hpsv2'"):
        pairwise_accuracy(scores, ranks, "hpsv2", tie_margin=0.5)
    with pytest.raises(ValueError, match="group 0: 2 scores, 3 ranks"):
        flip_share(scores, scores, [[1, 2, 3]])
