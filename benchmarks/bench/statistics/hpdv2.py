"""The protocol of HPD v2's benchmark: the mean and deviation of ten groups' means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

import numpy as np

if TYPE_CHECKING:
    from stablepref.evaluation.means import Array

    from ..score_table import ScoreTable

GROUPS: Final = 10
STYLE_PROMPTS: Final = 800


@final
@dataclass(frozen=True)
class StyleScore:
    """What the official benchmark reports for a model and a style.

    Attributes:
        model: The model.
        scorer: The scorer.
        style: One of the four styles, or "all": the mean of the styles' means, as published tables
            average them.
        mean: Mean of the ten groups' means; None if a score is missing.
        deviation: Their population standard deviation; None likewise, and for "all".
        missing: Prompts without a score.
    """

    model: str
    scorer: str
    style: str
    mean: float | None
    deviation: float | None
    missing: int


def grouped(scores: Array, groups: int = GROUPS) -> tuple[float, float]:
    """Mean and population standard deviation of the means of equal groups, in order.

    This is what the official benchmark of HPD v2 (Wu et al., 2023) reports for a style: its 800
    scores are cut into ten groups of 80 by the index of their prompts.

    Args:
        scores: `(n,)`, without NaN; n is a multiple of `groups`.
        groups: Number of groups.

    Raises:
        ValueError: n is not a multiple of `groups`, or a score is NaN.
    """
    if not len(scores) or len(scores) % groups:
        raise ValueError(f"{len(scores)} scores cannot be cut into {groups} equal groups")
    if np.isnan(scores).any():
        raise ValueError(f"{int(np.isnan(scores).sum())} of {len(scores)} scores are missing")
    means = scores.reshape(groups, -1).mean(axis=1)
    return float(means.mean()), float(means.std())


def style_scores(table: ScoreTable) -> tuple[StyleScore, ...]:
    """The official numbers of every model and scorer; empty for prompt sets other than HPD v2's.

    Several images of a prompt count as their mean.
    """
    styles = table.labels().get("style", {})
    if not styles or any(len(places) != STYLE_PROMPTS for places in styles.values()):
        return ()
    rows = []
    for scorer in table.scorers:
        for model, scores in zip(table.models, table.means(scorer), strict=True):
            means = []
            for style, places in styles.items():
                own = scores[places]
                missing = int(np.isnan(own).sum())
                mean, deviation = (None, None) if missing else grouped(own)
                means.append(mean)
                rows.append(StyleScore(model, scorer, style, mean, deviation, missing))
            whole = [mean for mean in means if mean is not None]
            average = sum(whole) / len(whole) if len(whole) == len(means) else None
            missing = int(np.isnan(scores).sum())
            rows.append(StyleScore(model, scorer, "all", average, None, missing))
    return tuple(rows)
