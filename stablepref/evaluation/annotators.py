"""How well people agree with each other, from the raw ranks of several annotators.

``annotations`` is everywhere a sequence with one array for each group, of shape
``(annotators, images)``: the ranks that each annotator gave, lower is better.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from stablepref.evaluation.agreement import Signs, pair_places, pair_signs
from stablepref.evaluation.means import Array, GroupMean

Ties = Literal["half", "skip"]

_DECILES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


class AgreementBin(NamedTuple):
    """Accuracy on the pairs on which a certain share of the annotators agree.

    Attributes:
        above: The share is more than this (or equal to it, for the lowest bin).
        up_to: And at most this.
        accuracy: Of the scores against the majority, on these pairs.
    """

    above: float
    up_to: float
    accuracy: GroupMean


def single_vs_single(annotations: Sequence[ArrayLike], ties: Ties = "half") -> GroupMean:
    """Human agreement, single against single.

    For every unordered pair of annotators of a group and every pair of its images: do both put the
    images in the same order? The mean over all of these, each counting once. A pair of images
    that one of the two ties counts one half, or with ``ties="skip"`` is not counted.

    Args:
        annotations: Ranks by annotator, for each group.
        ties: What pairs of images do that an annotator ties.

    Returns:
        The share of agreement, from 0 to 1.

    Raises:
        ValueError: If a group has fewer than two annotators or a rank is not finite.
    """
    sums, counts = [], []
    for ranks in _checked(annotations, ties):
        signs = pair_signs(ranks).astype(np.float64)
        # (annotators, annotators): agreements less disagreements, and pairs that neither ties.
        balance, decided = signs @ signs.T, np.abs(signs) @ np.abs(signs).T
        couples = pair_places(len(signs))
        agreed, counted = (decided + balance) / 2, decided
        if ties == "half":
            counted = np.full_like(decided, signs.shape[1])
            agreed = (counted + balance) / 2
        sums.append(agreed[couples].sum())
        counts.append(counted[couples].sum())
    return GroupMean(np.array(sums, dtype=np.float64), np.array(counts, dtype=np.float64))


def single_vs_rest(annotations: Sequence[ArrayLike], ties: Ties = "half") -> GroupMean:
    """Human agreement, single against the average of the others.

    For every annotator of a group and every pair of its images: does the annotator's order equal
    that of the mean ranks of the group's *other* annotators? The mean over all of these. A pair of
    images whose mean ranks are equal, or that the annotator ties, counts one half, or with
    ``ties="skip"`` is not counted. (An average that included the annotator would agree more.)

    Args:
        annotations: Ranks by annotator, for each group.
        ties: What tied pairs of images do.

    Returns:
        The share of agreement, from 0 to 1.

    Raises:
        ValueError: If a group has fewer than two annotators or a rank is not finite.
    """
    sums, counts = [], []
    for ranks in _checked(annotations, ties):
        # Sums order as means do, and sums of whole ranks are exact, so that ties are found.
        product = pair_signs(ranks) * pair_signs(ranks.sum(axis=0) - ranks)
        decided = np.count_nonzero(product)
        counted = product.size if ties == "half" else decided
        sums.append((counted + product.sum(dtype=np.int64)) / 2)
        counts.append(counted)
    return GroupMean(np.array(sums, dtype=np.float64), np.array(counts, dtype=np.float64))


def majority(annotations: ArrayLike) -> tuple[Signs, Array]:
    """The order of a group's pairs by majority of its annotators, and how large the majority is.

    Args:
        annotations: Ranks of one group, shape ``(annotators, images)``.

    Returns:
        For each pair i < j: 1 if most annotators prefer i, -1 if most prefer j, 0 if they are
        even; and the share of the majority among those who do not tie the pair (one half where
        all tie it). Both of shape ``(pairs,)``.
    """
    signs = -pair_signs(annotations).astype(np.int64)
    balance, voters = signs.sum(axis=0), np.abs(signs).sum(axis=0)
    share = (1 + np.abs(balance) / np.maximum(voters, 1)) / 2
    return np.sign(balance).astype(np.int8), share


def majority_shares(annotations: Sequence[ArrayLike]) -> dict[float, float]:
    """How frequent majorities of each size are, over all pairs of images.

    Args:
        annotations: Ranks by annotator, for each group.

    Returns:
        The share of the pairs, from 0 to 1, by the size of the majority as `majority` gives it,
        to three digits and in ascending order.
    """
    sizes = np.concatenate([majority(group)[1] for group in annotations]).round(3)
    values, counts = np.unique(sizes, return_counts=True)
    return {float(v): float(n / counts.sum()) for v, n in zip(values, counts, strict=True)}


def accuracy_by_agreement(
    scores: Sequence[ArrayLike],
    annotations: Sequence[ArrayLike],
    edges: Sequence[float] = _DECILES,
) -> list[AgreementBin]:
    """Accuracy of scores against the annotators' majority, by the size of that majority.

    Pairs on which the annotators are even are not counted; pairs that the scores tie count one
    half. With ten annotators the default edges give a bin for each possible majority.

    Args:
        scores: Scores of each group's images.
        annotations: Ranks by annotator, for each group.
        edges: Bounds of the bins, ascending from 0.5 to 1.

    Returns:
        One entry for each bin, from the smallest majority to the largest.

    Raises:
        ValueError: If lengths differ, a number is not finite, or the edges do not ascend.
    """
    if len(edges) < 2 or list(edges) != sorted(set(edges)):
        raise ValueError(f"edges are {tuple(edges)}; expected two or more ascending numbers")
    if len(scores) != len(annotations):
        raise ValueError(f"{len(scores)} groups of scores, {len(annotations)} of annotations")
    sums = np.zeros((len(edges) - 1, len(scores)))
    counts = np.zeros_like(sums)
    for group, ranks in enumerate(_checked(annotations, "half")):
        own = np.asarray(scores[group], dtype=np.float64)
        if own.shape != ranks.shape[1:] or not np.isfinite(own).all():
            raise ValueError(
                f"group {group}: expected {ranks.shape[1]} finite scores, got {own.tolist()}"
            )
        order, share = majority(ranks)
        credit = (1 + order * pair_signs(own)) / 2
        # A bin holds shares above its lower edge; the lowest edge itself belongs to the first bin.
        place = np.maximum(np.searchsorted(np.asarray(edges), share, side="left") - 1, 0)
        inside = (order != 0) & (share >= edges[0]) & (share <= edges[-1])
        np.add.at(sums[:, group], place[inside], credit[inside])
        np.add.at(counts[:, group], place[inside], 1)
    return [
        AgreementBin(edges[index], edges[index + 1], GroupMean(sums[index], counts[index]))
        for index in range(len(edges) - 1)
    ]


def _checked(annotations: Sequence[ArrayLike], ties: Ties) -> list[Array]:
    if ties not in ("half", "skip"):
        raise ValueError(f"ties is {ties!r}; expected 'half' or 'skip'")
    groups = []
    for index, rows in enumerate(annotations):
        ranks = np.asarray(rows, dtype=np.float64)
        if ranks.ndim != 2 or len(ranks) < 2:
            raise ValueError(
                f"group {index}: annotations of shape {ranks.shape}; expected ranks of two or more "
                "annotators, shape (annotators, images)"
            )
        if not np.isfinite(ranks).all():
            raise ValueError(f"group {index} has ranks that are not finite")
        groups.append(ranks)
    return groups
