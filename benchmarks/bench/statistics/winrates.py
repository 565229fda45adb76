"""Which of two models wins on the same prompts, how often, and how certain that is."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Unpack, final

import numpy as np
from scipy.stats import binomtest

from stablepref.evaluation.means import Interval, prompt_places

from .power import SIGNIFICANCE, needed_prompts
from .resampling import CONFIDENCE, mean_intervals

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stablepref.evaluation.means import Array, BootstrapOptions

    from ..score_table import ScoreTable


@final
@dataclass(frozen=True)
class PairComparison:
    """Two models on the prompts that both have images of.

    Attributes:
        scorer: The scorer that decides.
        a: One model.
        b: The other.
        prompts: How many both have a score for.
        win: Mean over prompts of the share of image pairs that a wins, 0 to 1.
        tie: The share of image pairs that are tied.
        loss: The share that b wins.
        win_rate: `win` plus half of `tie`: the chance that an image of a is preferred.
        low: Lower bound of its 95 % bootstrap interval over prompts.
        high: Upper bound.
        difference: Mean over prompts of a's mean score less b's, in the scorer's unit.
        difference_low: Lower bound of its interval, likewise.
        difference_high: Upper bound.
        effect_size: Cohen's d of paired differences (Cohen, 1988): their mean over their standard
            deviation. About 0.2 is called small, 0.5 medium, 0.8 large. None if they do not vary.
        p: Of the exact two-sided sign test over prompts (Dixon and Mood, 1946): a prompt counts for
            the model that wins more of its image pairs, and not at all where they are even.
        p_adjusted: The same after Holm's (1979) correction for all pairs of models under this
            scorer.
        distinct: Whether `p_adjusted` is below 0.05.
        needed: How many prompts would distinguish the models with 80 % power if the win rate stays
            the same, at a significance of 0.05 over the number of pairs, see `needed_prompts`; None
            where no number can be given: they are even.
    """

    scorer: str
    a: str
    b: str
    prompts: int
    win: float
    tie: float
    loss: float
    win_rate: float
    low: float
    high: float
    difference: float
    difference_low: float
    difference_high: float
    effect_size: float | None
    p: float
    p_adjusted: float
    distinct: bool
    needed: int | None


def compare_models(
    table: ScoreTable,
    scorer: str,
    *,
    tie_margin: float = 0.0,
    **options: Unpack[BootstrapOptions],
) -> tuple[PairComparison, ...]:
    """Every pair of models under one scorer; pairs without a shared prompt are left out.

    Args:
        table: The scores.
        scorer: One of its scorers.
        tie_margin: Scores that differ by at most this are tied.
        options: Of the intervals, see `BootstrapOptions`.

    Returns:
        The pairs in the order of the table's models.

    Raises:
        ValueError: There is no such scorer.
    """
    scores, means = table.of(scorer), table.means(scorer)
    met = []
    for a, b in combinations(range(len(table.models)), 2):
        shares = prompt_shares(scores[a], scores[b], tie_margin=tie_margin)
        if not np.isnan(shares).all():
            met.append((a, b, shares))
    if not met:
        return ()
    differences = np.stack([means[a] - means[b] for a, b, _ in met])
    rates = np.stack([shares[:, 0] + shares[:, 1] / 2 for _, _, shares in met])
    words = table.words
    # A prompt that the list has several times is decided once.
    decided = [joined_shares(shares, words) for _, _, shares in met]
    p_values = [sign_test(shares) for shares in decided]
    comparisons = []
    for (a, b, shares), of_prompts, row, rate, gap, p, p_adjusted in zip(
        met,
        decided,
        differences,
        win_rate_intervals(rates, words, **options),
        mean_intervals(differences, words, **options),
        p_values,
        holm(p_values),
        strict=True,
    ):
        win, tie, loss = np.nanmean(shares, axis=0)
        comparisons.append(
            PairComparison(
                scorer=scorer,
                a=table.models[a],
                b=table.models[b],
                prompts=int((~np.isnan(row)).sum()),
                win=float(win),
                tie=float(tie),
                loss=float(loss),
                win_rate=rate.value,
                low=rate.low,
                high=rate.high,
                difference=gap.value,
                difference_low=gap.low,
                difference_high=gap.high,
                effect_size=effect_size(row),
                p=p,
                p_adjusted=p_adjusted,
                distinct=p_adjusted < SIGNIFICANCE,
                needed=_needed(of_prompts, SIGNIFICANCE / len(met)),
            )
        )
    return tuple(comparisons)


def prompt_shares(a: Array, b: Array, *, tie_margin: float = 0.0) -> Array:
    """For each prompt the shares of image pairs that a wins, that are tied, and that b wins.

    Every image of a meets every image of b, so that their numbers may differ.

    Args:
        a: Scores `(prompts, images)`; NaN where there is none.
        b: Scores `(prompts, images)`, likewise.
        tie_margin: Scores that differ by at most this are tied.

    Returns:
        `(prompts, 3)`; NaN for prompts without an image of either.
    """
    gaps = a[:, :, None] - b[:, None, :]
    met = (~np.isnan(gaps)).sum(axis=(1, 2))
    outcomes = (gaps > tie_margin, np.abs(gaps) <= tie_margin, gaps < -tie_margin)
    counts = np.stack([outcome.sum(axis=(1, 2)) for outcome in outcomes], axis=1)
    nothing = np.full(counts.shape, np.nan)
    return np.divide(counts, met[:, None], out=nothing, where=met[:, None] > 0)


def joined_shares(shares: Array, prompts: Sequence[str]) -> Array:
    """Mean shares of each different prompt, by first occurrence.

    Args:
        shares: `(prompts, 3)` of `prompt_shares`; NaN is left out.
        prompts: The words of each prompt, which may occur several times.

    Returns:
        `(different prompts, 3)`; NaN where a prompt has no shares.
    """
    places, there = prompt_places(prompts), ~np.isnan(shares[:, 0])
    sums, counts = np.zeros((len(set(prompts)), 3)), np.zeros(len(set(prompts)))
    np.add.at(sums, places[there], shares[there])
    np.add.at(counts, places[there], 1)
    nothing = np.full(sums.shape, np.nan)
    return np.divide(sums, counts[:, None], out=nothing, where=counts[:, None] > 0)


def win_rate_intervals(
    rates: Array, prompts: Sequence[str], **options: Unpack[BootstrapOptions]
) -> list[Interval]:
    """Win rates with bootstrap intervals over prompts.

    Where all prompts say the same, resampling would find no uncertainty at all. Then another
    outcome may still be as frequent as u, the exact bound of Clopper and Pearson (1934) for
    something that has not happened on any of the prompts, and the bounds allow for it both ways.

    Args:
        rates: Wins plus half of the ties of each prompt, 0 to 1, a row for each pair of models,
            `(pairs, prompts)`; NaN is left out, and no row is all NaN.
        prompts: The words of each prompt; equal ones are drawn together.
        options: Of the intervals, see `BootstrapOptions`.
    """
    found = mean_intervals(rates, prompts, **options)
    confidence = options.get("confidence", CONFIDENCE)
    for row, own in enumerate(rates):
        there = own[~np.isnan(own)]
        if np.ptp(there) == 0:
            rate = float(there[0])
            different = len({prompts[place] for place in np.flatnonzero(~np.isnan(own)).tolist()})
            unseen = binomtest(0, different).proportion_ci(confidence, method="exact").high
            found[row] = Interval(rate, rate * (1 - unseen), rate + (1 - rate) * unseen)
    return found


def effect_size(differences: Array) -> float | None:
    """Cohen's d of paired differences `(prompts,)`, NaN left out; None if they do not vary."""
    there = differences[~np.isnan(differences)]
    if len(there) < 2 or np.ptp(there) == 0:
        return None
    return float(there.mean() / there.std(ddof=1))


def sign_test(shares: Array) -> float:
    """The p of the exact two-sided sign test over prompts; 1 if no prompt is decided.

    Args:
        shares: `(prompts, 3)` of `prompt_shares`; NaN is left out.
    """
    won, lost = _decided(shares)
    return float(binomtest(won, won + lost).pvalue) if won + lost else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) correction: the chance of even one false finding among all is kept.

    Args:
        p_values: Of any number of tests, however they depend on each other.

    Returns:
        Adjusted values in the same order, each at most 1.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    raised = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(raised, 1)
    return adjusted.tolist()


def _decided(shares: Array) -> tuple[int, int]:
    """Prompts for a, and for b."""
    return int((shares[:, 0] > shares[:, 2]).sum()), int((shares[:, 2] > shares[:, 0]).sum())


def _needed(shares: Array, significance: float) -> int | None:
    won, lost = _decided(shares)
    if won == lost:
        return None
    decided = (won + lost) / (~np.isnan(shares[:, 0])).sum().item()
    return needed_prompts(won / (won + lost), decided=decided, significance=significance)
