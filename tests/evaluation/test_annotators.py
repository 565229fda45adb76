"""Human agreement against naive loops and small cases worked by hand."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from stablepref.data.read import read_groups
from stablepref.evaluation.annotators import (
    Ties,
    accuracy_by_agreement,
    majority,
    majority_shares,
    single_vs_rest,
    single_vs_single,
)

Ranks = list[NDArray[np.float64]]


def random_annotations(seed: int) -> Ranks:
    """20 groups of 2 to 6 annotators with ties."""
    generator = np.random.default_rng(seed)
    sizes = [(generator.integers(2, 7), generator.integers(2, 8)) for _ in range(20)]
    return [generator.integers(1, 5, size=size).astype(np.float64) for size in sizes]


def order(first: float, second: float) -> int:
    """-1, 0 or 1."""
    return int(first > second) - int(first < second)


def naive_mean(comparisons: list[tuple[int, int]], ties: Ties) -> float:
    """Mean agreement of pairs of orders by the stated rule for ties."""
    points = []
    for one, other in comparisons:
        if one and other:
            points.append(float(one == other))
        elif ties == "half":
            points.append(0.5)
    return sum(points) / len(points)


@pytest.mark.parametrize("ties", ["half", "skip"])
def test_single_vs_single_equals_a_naive_loop(ties: Ties) -> None:
    annotations = random_annotations(0)
    comparisons = [
        (order(a[i], a[j]), order(b[i], b[j]))
        for group in annotations
        for a, b in combinations(group, 2)
        for i, j in combinations(range(len(a)), 2)
    ]
    result = single_vs_single(annotations, ties)
    assert result.value == pytest.approx(naive_mean(comparisons, ties), rel=1e-12)


@pytest.mark.parametrize("ties", ["half", "skip"])
def test_single_vs_rest_equals_a_naive_loop(ties: Ties) -> None:
    annotations = random_annotations(1)
    comparisons = []
    for group in annotations:
        for index, own in enumerate(group):
            rest = [other for place, other in enumerate(group) if place != index]
            means = [sum(r[i] for r in rest) / len(rest) for i in range(len(own))]
            for i, j in combinations(range(len(own)), 2):
                comparisons.append((order(own[i], own[j]), order(means[i], means[j])))
    result = single_vs_rest(annotations, ties)
    assert result.value == pytest.approx(naive_mean(comparisons, ties), rel=1e-12)


def test_three_annotators_by_hand() -> None:
    # In pairs ab, ac, bc: x and y prefer a, a, b; z prefers a, c, c.
    x, y, z = [1, 2, 3], [1, 2, 3], [2, 3, 1]
    # Single against single: x and y agree on 3 pairs, x and z on 1, y and z on 1.
    assert single_vs_single([[x, y, z]]).value == pytest.approx(5 / 9)
    # Mean of y and z: a 1.5, b 2.5, c 2 -> ab a, ac a, bc c: x agrees on 2 of 3; so does y.
    # Mean of x and y: 1, 2, 3 -> z agrees on ab: 1 of 3.
    assert single_vs_rest([[x, y, z]]).value == pytest.approx(5 / 9)
    votes, share = majority([x, y, z])
    assert votes.tolist() == [1, 1, 1]
    assert share.tolist() == pytest.approx([1.0, 2 / 3, 2 / 3])


def test_equal_and_opposite_annotators() -> None:
    same, opposite = [[1, 2, 3]] * 4, [[1, 2, 3], [3, 2, 1]]
    for measure in (single_vs_single, single_vs_rest):
        assert measure([same]).value == 1.0
        assert measure([opposite]).value == 0.0
        assert measure([same, opposite]).count > measure([same]).count


def test_a_tied_mean_counts_one_half_or_nothing() -> None:
    annotations = [[[1, 2], [1, 2], [2, 1]]]
    # The first and second against the others: others are even (tied). The third: wrong.
    assert single_vs_rest(annotations).value == pytest.approx((0.5 + 0.5 + 0) / 3)
    skipped = single_vs_rest(annotations, "skip")
    assert (skipped.value, skipped.count) == (0.0, 1)


def test_human_agreement_on_the_gallery(shared_data: Path) -> None:
    """Near an independent count over 75 groups of the same set: 78.96 % and 84.25 %."""
    groups = read_groups(shared_data / "hpdv2_gallery" / "groups.json")
    annotations = [group.annotations for group in groups]
    single, rest = single_vs_single(annotations), single_vs_rest(annotations)
    assert single.value == pytest.approx(0.7896, abs=0.02)
    assert rest.value == pytest.approx(0.8425, abs=0.02)
    # 45 couples or 10 annotators, and 36 or 45 pairs of images.
    assert single.count == 45 * (29 * 36 + 11 * 45)
    assert rest.count == 10 * (29 * 36 + 11 * 45)
    assert single_vs_single(annotations, "skip").value == single.value  # there are no ties


def test_majority_with_ties() -> None:
    votes, share = majority([[1, 1, 2], [1, 2, 1], [1, 2, 2], [1, 2, 3]])
    # ab: tie, a, a, a -> 3 of 3. ac: a, tie, a, a -> 3 of 3. bc: b, c, tie, b -> 2 of 3.
    assert votes.tolist() == [1, 1, 1]
    assert share.tolist() == pytest.approx([1, 1, 2 / 3])
    votes, share = majority([[1, 1, 2], [1, 1, 1]])
    assert (votes.tolist(), share.tolist()) == ([0, 1, 1], [0.5, 1.0, 1.0])


def test_accuracy_by_agreement_by_hand() -> None:
    ten = [[1, 2, 3]] * 6 + [[1, 3, 2]] * 3 + [[3, 2, 1]] * 1
    # ab: 9 of 10 for a; ac: 9 of 10 for a; bc: 6 for b, 4 for c.
    five = [[1, 2]] * 5 + [[2, 1]] * 5  # even: not counted
    bins = accuracy_by_agreement([[3.0, 1.0, 2.0], [1.0, 2.0]], [ten, five])
    assert [(b.above, b.up_to, b.accuracy.count) for b in bins] == [
        (0.5, 0.6, 1),
        (0.6, 0.7, 0),
        (0.7, 0.8, 0),
        (0.8, 0.9, 2),
        (0.9, 1.0, 0),
    ]
    assert (bins[0].accuracy.value, bins[3].accuracy.value) == (0.0, 1.0)
    tied = accuracy_by_agreement([[1.0, 1.0, 1.0]], [ten], (0.5, 1.0))
    assert (tied[0].accuracy.value, tied[0].accuracy.count) == (0.5, 3)


def test_majorities_by_hand() -> None:
    # Of four annotators 3 prefer the first image in one group, all four in the other.
    groups = [[(1, 2)] * 3 + [(2, 1)], [(1, 2)] * 4]
    assert majority_shares(groups) == {0.75: 0.5, 1.0: 0.5}


def test_bins_partition_the_pairs_that_have_a_majority() -> None:
    annotations = random_annotations(3)
    generator = np.random.default_rng(4)
    scores = [generator.random(group.shape[1]) for group in annotations]
    bins = accuracy_by_agreement(scores, annotations)
    decided = sum(np.count_nonzero(majority(group)[0]) for group in annotations)
    assert sum(b.accuracy.count for b in bins) == decided


def test_wrong_arguments_are_named() -> None:
    good = [[1, 2], [2, 1]]
    with pytest.raises(ValueError, match=r"group 1: annotations of shape \(1, 2\)"):
        single_vs_single([good, np.array([[1, 2]])])
    with pytest.raises(ValueError, match=r"group 0: annotations of shape \(0,\)"):
        single_vs_rest([[]])
    with pytest.raises(ValueError, match="group 0 has ranks that are not finite"):
        single_vs_rest([[[1.0, float("nan")], [1.0, 2.0]]])
    with pytest.raises(ValueError, match="ties is 'drop'"):
        single_vs_rest([good], "drop")  # type: ignore[arg-type]  # a user's mistake
    with pytest.raises(ValueError, match="group 0: expected 2 finite scores"):
        accuracy_by_agreement([[1.0, 2.0, 3.0]], [good])
    with pytest.raises(ValueError, match="2 groups of scores, 1 of annotations"):
        accuracy_by_agreement([[1.0, 2.0]] * 2, [good])
    for edges in ([0.5], [1.0, 0.5], [0.5, 0.5, 1.0]):
        with pytest.raises(ValueError, match="edges are"):
            accuracy_by_agreement([[1.0, 2.0]], [good], edges)
