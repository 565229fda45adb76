"""How well scores agree with people's ranks: pure functions on the numbers of each group.

Everywhere ``scores`` and ``ranks`` are sequences with one array for each group (prompt), of as many
numbers as it has images. Higher scores are better, lower ranks are better. Results are `GroupMean`:
``.value`` is the number, ``.interval()`` its bootstrap interval over prompts.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from stablepref.evaluation.means import Array, GroupMean, Places

TieRule = Literal["half", "hpsv2", "imagereward", "pickscore"]
TIE_RULES: tuple[TieRule, ...] = get_args(TieRule)

Signs = NDArray[np.int8]
"""Orders of the pairs i < j of a group: 1 if i is better, -1 if j is, 0 for a tie."""


def pairwise_accuracy(
    scores: Sequence[ArrayLike],
    ranks: Sequence[ArrayLike],
    rule: TieRule = "half",
    *,
    tie_margin: float = 0.0,
) -> GroupMean:
    """Share of image pairs that the scores put in the order of the ranks.

    The rules differ in what ties do, and in what is averaged:

    ==============  =============================  ==============================  =============
    rule            pair tied by people            pair tied by the scores         mean over
    ==============  =============================  ==============================  =============
    "half"          not counted                    counts one half                 pairs
    "imagereward"   not counted                    wrong                           pairs
    "hpsv2"         right                          the earlier image is preferred  group means
    "pickscore"     right if the scores tie too,   counts one half                 pairs
                    else one half
    ==============  =============================  ==============================  =============

    ``"imagereward"`` is ``acc`` of that project's ``test.py``; ``"hpsv2"`` is ``inversion_score``
    on the order that ``argsort`` makes of the scores (made stable here, so that equal scores have
    a defined order); ``"pickscore"`` is ``calc_score`` of ``eval_preference_predictor.py``, whose
    threshold t on the difference of probabilities equals ``tie_margin`` = 2 artanh(t) for scores
    in units of its logit scale.

    Args:
        scores: Scores of each group's images.
        ranks: Ranks of each group's images.
        rule: What ties do.
        tie_margin: Scores that differ by at most this are tied; not with ``"hpsv2"``.

    Returns:
        The accuracy, from 0 to 1.

    Raises:
        ValueError: If lengths differ, a score is not finite, or an argument is out of range.
    """
    if rule not in _CREDITS:
        raise ValueError(f"rule is {rule!r}; expected one of: {', '.join(_CREDITS)}")
    if tie_margin < 0 or (rule == "hpsv2" and tie_margin):
        raise ValueError(f"tie_margin is {tie_margin}; expected at least 0, and 0 with 'hpsv2'")
    order = _positions if rule == "hpsv2" else np.asarray
    parts = []
    for group_scores, group_ranks in _checked(scores, ranks):
        truth = -pair_signs(group_ranks)
        predicted = pair_signs(order(group_scores), tie_margin)
        parts.append(_CREDITS[rule](truth, predicted))
    counted = _group_sums(parts)
    return counted.by_group() if rule == "hpsv2" else counted


def kendall_tau(scores: Sequence[ArrayLike], ranks: Sequence[ArrayLike]) -> GroupMean:
    """Mean over groups of Kendall's tau-b between scores and people's order, from -1 to 1.

    Groups where all scores or all ranks are equal have no tau and are not counted.

    Raises:
        ValueError: If lengths differ or a score is not finite.
    """
    return _mean_correlation(tau_b, scores, ranks)


def spearman(scores: Sequence[ArrayLike], ranks: Sequence[ArrayLike]) -> GroupMean:
    """Mean over groups of Spearman's rho between scores and people's order, from -1 to 1.

    Groups where all scores or all ranks are equal have no rho and are not counted.

    Raises:
        ValueError: If lengths differ or a score is not finite.
    """
    return _mean_correlation(spearman_rho, scores, ranks)


def top1(scores: Sequence[ArrayLike], ranks: Sequence[ArrayLike]) -> GroupMean:
    """Share of groups whose best-scored image is one of those that people rank best.

    Where several images share the best score, the group counts the share of them that are ranked
    best: what picking one of them at random would give.

    Raises:
        ValueError: If lengths differ or a score is not finite.
    """
    hits = [
        (group_ranks[group_scores == group_scores.max()] == group_ranks.min()).mean()
        for group_scores, group_ranks in _checked(scores, ranks)
    ]
    return GroupMean(np.array(hits, dtype=np.float64), np.ones(len(hits)))


def flip_share(
    before: Sequence[ArrayLike],
    after: Sequence[ArrayLike],
    ranks: Sequence[ArrayLike] | None = None,
) -> GroupMean:
    """Share of pairs whose order changes between two sets of scores of the same images.

    A pair that becomes tied, or stops being tied, counts one half.

    Args:
        before: Scores of each group's images.
        after: Scores of the same images when perturbed, or by another scorer.
        ranks: If given, only pairs that people do not tie are counted.

    Returns:
        The share, from 0 to 1.

    Raises:
        ValueError: If lengths differ or a score is not finite.
    """
    flips = []
    for index, (first, second) in enumerate(_checked(before, after)):
        change = np.abs(pair_signs(first) - pair_signs(second)) / 2
        if ranks is not None:
            group_ranks = np.asarray(ranks[index], dtype=np.float64)
            if group_ranks.shape != first.shape:
                raise ValueError(f"group {index}: {first.size} scores, {group_ranks.size} ranks")
            change = change[pair_signs(group_ranks) != 0]
        flips.append(change)
    return _group_sums(flips)


def untied_margins(scores: Sequence[ArrayLike], ranks: Sequence[ArrayLike]) -> Array:
    """Score of the better image less that of the worse, for every pair people do not tie.

    Returns:
        The margins of all groups one after another, shape ``(pairs,)``.

    Raises:
        ValueError: If lengths differ or a score is not finite.
    """
    margins = []
    for group_scores, group_ranks in _checked(scores, ranks):
        truth = -pair_signs(group_ranks)
        i, j = pair_places(len(group_scores))
        margins.append((truth * (group_scores[i] - group_scores[j]))[truth != 0])
    return np.concatenate(margins) if margins else np.empty(0)


@lru_cache(maxsize=32)
def pair_places(count: int) -> tuple[Places, Places]:
    """The places i and j of every pair i < j of so many, in the order of `pair_signs`.

    Most groups of a data set are of a few sizes: the places of each are made once, read-only.
    """
    i, j = np.triu_indices(count, k=1)
    i.flags.writeable = j.flags.writeable = False
    return i, j


def pair_signs(values: ArrayLike, tie_margin: float = 0.0) -> Signs:
    """Sign of value_i - value_j for every pair i < j, 0 where they differ by at most the margin.

    Args:
        values: Numbers of one group, the last axis counts; shape ``(..., images)``.
        tie_margin: Differences up to this are ties.

    Returns:
        Signs of shape ``(..., images * (images - 1) / 2)``, pairs (0, 1), (0, 2), ..., (1, 2), ...
    """
    values = np.asarray(values, dtype=np.float64)
    i, j = pair_places(values.shape[-1])
    difference = values[..., i] - values[..., j]
    signs = np.where(np.abs(difference) <= tie_margin, 0, np.sign(difference))
    return signs.astype(np.int8)


def tau_b(first: ArrayLike, second: ArrayLike) -> float:
    """Kendall's tau-b of two lists of numbers; NaN if either has no two different numbers."""
    return _correlation(stats.kendalltau, first, second)


def spearman_rho(first: ArrayLike, second: ArrayLike) -> float:
    """Spearman's rho of two lists of numbers, ties at their mean rank.

    NaN if either has no two different numbers.
    """
    return _correlation(stats.spearmanr, first, second)


def pearson_r(first: ArrayLike, second: ArrayLike) -> float:
    """Pearson's r of two lists of numbers; NaN if either has no two different numbers."""
    return _correlation(stats.pearsonr, first, second)


def _half(truth: Signs, predicted: Signs) -> Array:
    return ((1 + truth * predicted) / 2)[truth != 0]


def _imagereward(truth: Signs, predicted: Signs) -> Array:
    return (truth == predicted)[truth != 0].astype(np.float64)


def _hpsv2(truth: Signs, predicted: Signs) -> Array:
    return (truth * predicted >= 0).astype(np.float64)


def _pickscore(truth: Signs, predicted: Signs) -> Array:
    return np.where(truth == predicted, 1.0, np.where(truth * predicted == 0, 0.5, 0.0))


_CREDITS: dict[str, Callable[[Signs, Signs], Array]] = {
    "half": _half,
    "imagereward": _imagereward,
    "hpsv2": _hpsv2,
    "pickscore": _pickscore,
}


def _positions(scores: Array) -> Array:
    """Higher is better, as scores are, but all different: equal scores by position."""
    positions = np.empty(len(scores))
    positions[np.argsort(-scores, kind="stable")] = -np.arange(len(scores))
    return positions


def _correlation(
    measure: Callable[[Array, Array], Any], first: ArrayLike, second: ArrayLike
) -> float:
    x, y = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if not x.size or (x == x[0]).all() or (y == y[0]).all():
        return math.nan
    return float(measure(x, y).statistic)


def _mean_correlation(
    correlation: Callable[[ArrayLike, ArrayLike], float],
    scores: Sequence[ArrayLike],
    ranks: Sequence[ArrayLike],
) -> GroupMean:
    values = np.array([correlation(s, -r) for s, r in _checked(scores, ranks)], dtype=np.float64)
    return GroupMean(np.nan_to_num(values), (~np.isnan(values)).astype(np.float64))


def _group_sums(parts: Sequence[Array]) -> GroupMean:
    return GroupMean(
        np.array([part.sum() for part in parts], dtype=np.float64),
        np.array([len(part) for part in parts], dtype=np.float64),
    )


def _checked(first: Sequence[ArrayLike], second: Sequence[ArrayLike]) -> list[tuple[Array, Array]]:
    """Both as arrays, one pair for each group, or an error that names the group."""
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} groups; expected the same groups in both")
    groups = []
    for index, (a, b) in enumerate(zip(first, second, strict=True)):
        x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
        if x.ndim != 1 or x.shape != y.shape:
            raise ValueError(f"group {index}: shapes {x.shape} and {y.shape}; expected equal lists")
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise ValueError(
                f"group {index} has numbers that are not finite; leave such images out first "
                "(RankedGroup.without)"
            )
        groups.append((x, y))
    return groups
