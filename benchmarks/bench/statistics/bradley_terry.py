"""A ranking of all models out of their wins over each other, with intervals."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, final

import numpy as np
from scipy.optimize import minimize
from scipy.sparse.csgraph import connected_components
from scipy.special import expit, log_expit
from scipy.stats import rankdata

from .resampling import CONFIDENCE, drawn_prompts
from .winrates import prompt_shares

if TYPE_CHECKING:
    from stablepref.evaluation.means import Array

    from ..score_table import ScoreTable

PRIOR: Final = 0.5
RESAMPLES: Final = 500
"""Fewer than for means: each resample is fitted anew."""
FEWEST: Final = 6
"""Prompts that a sign test needs before it can tell two models apart at 5 %."""
_SLOPE: Final = 1e-9
_FLAT: Final = 1e-6
_FAR: Final = 0.01
"""A search that ends further than this from the minimum has failed."""


@final
@dataclass(frozen=True)
class Strength:
    """A model's place among all.

    Attributes:
        scorer: The scorer that decides.
        model: The model.
        rank: 1 is the best.
        rank_low: Best rank within the 95 % bootstrap interval over prompts.
        rank_high: Worst rank within it.
        strength: On the scale of log-odds, the models' mean being 0: a model wins over another with
            the probability 1 / (1 + exp(other - own)).
        low: Lower bound of its interval; NaN where all prompts say the same.
        high: Upper bound.
        win_probability: Against a model of strength 0, 0 to 1.
    """

    scorer: str
    model: str
    rank: int
    rank_low: int
    rank_high: int
    strength: float
    low: float
    high: float
    win_probability: float


def fit_bradley_terry(wins: Array, *, prior: float = PRIOR, start: Array | None = None) -> Array:
    """Strengths under which the wins are most likely.

    Model i wins over j with the probability 1 / (1 + exp(s_j - s_i)) (Bradley and Terry, 1952).

    Args:
        wins: `(models, models)`, not negative: how often the row's model won over the column's. A
            tie is half a win for both. The diagonal is ignored.
        prior: Wins that are added for both sides of every pair. One half (Haldane, 1956) keeps the
            strength of a model that always wins finite; 0 is the pure maximum of likelihood.
        start: Strengths from which the search starts; the result does not depend on them.

    Returns:
        `(models,)`, log-odds whose mean is 0.

    Raises:
        ValueError: The shape is wrong, or there is no maximum: without a prior every model must
            have won, directly or through others, over every other one (Ford, 1957).
        RuntimeError: The search did not converge.
    """
    if wins.ndim != 2 or wins.shape[0] != wins.shape[1] or len(wins) < 2:
        raise ValueError(
            f"wins has the shape {wins.shape}; expected (models, models) of two models or more"
        )
    counts = wins + prior
    np.fill_diagonal(counts, 0)
    if not (np.isfinite(counts) & (counts >= 0)).all():
        raise ValueError("wins must be finite and not negative")
    if connected_components(counts > 0, connection="strong")[0] > 1:
        raise ValueError(
            "some models have not won over some others, not even through third ones, so that "
            "their strengths are unbounded; add a prior"
        )
    # Strengths but the last, which is held at 0: a shift of all changes nothing.
    begin = np.zeros(len(wins) - 1) if start is None else (start - start[-1])[:-1]
    counts /= counts.sum()
    found = minimize(
        partial(_loss, counts=counts),
        begin,
        jac=partial(_slope, counts=counts),
        hess=partial(_curvature, counts=counts),
        method="trust-exact",
        options={"gtol": _SLOPE},
    )
    # The loss is flat at its minimum; the slope locates the minimum more exactly.
    step = np.linalg.solve(_curvature(found.x, counts), _slope(found.x, counts))
    if np.abs(step).max() > _FAR:
        raise RuntimeError(f"the strengths were not found: {found.message}")
    strengths = np.append(found.x - step, 0.0)
    return np.asarray(strengths - strengths.mean())


def rank_models(
    table: ScoreTable,
    scorer: str,
    *,
    prior: float = PRIOR,
    tie_margin: float = 0.0,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[Strength, ...]:
    """All models by strength, the strongest first; empty with fewer than two models or prompts.

    A model that shares no prompt with another has no strength, and is left out. Each prompt that
    two models share is one contest between them, divided as their images' scores say. Intervals
    draw whole prompts, since all contests of a prompt depend on each other. Where all prompts say
    the same, nothing can be drawn from them and the interval is NaN; those of `compare_models` are
    more informative then. With fewer than six prompts, on which no sign test tells two models
    apart at 5 % (2 x 0.5^5 > 0.05), ranks are open between the first and the last.

    Args:
        table: The scores.
        scorer: One of its scorers.
        prior: Wins that are added for both sides of every pair, see `fit_bradley_terry`.
        tie_margin: Scores that differ by at most this are tied.
        confidence: Share of resamples inside the intervals.
        resamples: How often as many prompts are drawn.
        seed: Of the draws.

    Raises:
        ValueError: As `fit_bradley_terry`, or there is no such scorer.
    """
    scores = table.of(scorer)
    count, prompts = len(scores), len(set(table.words))
    contests = np.zeros((scores.shape[1], count, count))
    for a in range(count):
        for b in range(count):
            if a != b:
                shares = prompt_shares(scores[a], scores[b], tie_margin=tie_margin)
                contests[:, a, b] = np.nan_to_num(shares[:, 0] + shares[:, 1] / 2)
    met = np.flatnonzero((contests.sum(axis=(0, 1)) + contests.sum(axis=(0, 2))) > 0)
    contests = contests[:, met][:, :, met]
    if len(met) < 2 or prompts < 2:
        return ()
    best = fit_bradley_terry(contests.sum(axis=0), prior=prior)

    def fitted(weights: Array) -> Array:
        wins = np.tensordot(weights, contests, axes=1)
        return fit_bradley_terry(wins, prior=prior, start=best)

    (low, high), drawn = drawn_prompts(
        fitted, table.words, confidence=confidence, resamples=resamples, seed=seed
    )
    ranks = rankdata(-drawn, method="min", axis=0)
    tail = (1 - confidence) / 2
    bounds = np.quantile(ranks, [tail, 1 - tail], axis=1, method="nearest").astype(int)
    if prompts < FEWEST:
        bounds = np.tile([[1], [len(met)]], len(met))
    same = np.ptp(drawn, axis=1) <= _FLAT
    low, high = np.where(same, np.nan, low), np.where(same, np.nan, high)
    own = rankdata(-best, method="min").astype(int)
    return tuple(
        Strength(
            scorer=scorer,
            model=table.models[met[place]],
            rank=int(own[place]),
            rank_low=int(bounds[0, place]),
            rank_high=int(bounds[1, place]),
            strength=float(best[place]),
            low=float(low[place]),
            high=float(high[place]),
            win_probability=float(expit(best[place])),
        )
        for place in np.argsort(own, kind="stable")
    )


def _gaps(strengths: Array) -> Array:
    whole = np.append(strengths, 0.0)
    return np.asarray(whole[:, None] - whole[None, :])


def _loss(strengths: Array, counts: Array) -> float:
    """Negative log-likelihood, which is convex."""
    return float(-(counts * log_expit(_gaps(strengths))).sum())


def _slope(strengths: Array, counts: Array) -> Array:
    missed = counts * expit(-_gaps(strengths))
    return np.asarray((missed.sum(axis=0) - missed.sum(axis=1))[:-1])


def _curvature(strengths: Array, counts: Array) -> Array:
    chance = expit(_gaps(strengths))
    bend = (counts + counts.T) * chance * (1 - chance)
    return np.asarray((np.diag(bend.sum(axis=1)) - bend)[:-1, :-1])
