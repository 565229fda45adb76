"""All statistics of a table of scores, with warnings of what they do not show."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final, final

import numpy as np

from ..judges import in_laboratory, knows_shapes_only
from . import bradley_terry, resampling
from .bradley_terry import Strength, rank_models
from .hpdv2 import StyleScore, style_scores
from .leaderboard import Standing, category_standings, standings
from .power import POWER
from .winrates import PairComparison, compare_models

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..score_table import ScoreTable

_LARGE: Final = 1_000_000
_NAMED: Final = 6
"""A needed number of prompts above this is not given exactly."""


@final
@dataclass(frozen=True)
class Summary:
    """The statistics of a benchmark.

    Attributes:
        name: The prompt set's name.
        prompts: How many prompts it has.
        units: Each scorer's unit by its name.
        standings: Means over all prompts, see `standings`.
        categories: Means over each category, see `category_standings`.
        styles: HPD v2's own numbers, see `style_scores`; empty for other sets.
        pairs: Every pair of models under every scorer, see `compare_models`.
        strengths: Rankings, see `rank_models`.
        warnings: What to know before drawing conclusions, in words.
    """

    name: str
    prompts: int
    units: dict[str, str]
    standings: tuple[Standing, ...]
    categories: tuple[Standing, ...]
    styles: tuple[StyleScore, ...]
    pairs: tuple[PairComparison, ...]
    strengths: tuple[Strength, ...]
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON; what is not a number is None."""
        return {name: _plain(value) for name, value in asdict(self).items()}


def summarise(
    table: ScoreTable,
    *,
    resamples: int = resampling.RESAMPLES,
    fits: int = bradley_terry.RESAMPLES,
    seed: int = 0,
) -> Summary:
    """All statistics of a table.

    Args:
        table: The scores.
        resamples: How often prompts are drawn for the intervals of means and win rates.
        fits: How often they are drawn for the intervals of rankings.
        seed: Of all draws.
    """
    pairs = [
        pair
        for scorer in table.scorers
        for pair in compare_models(table, scorer, resamples=resamples, seed=seed)
    ]
    strengths = [
        strength
        for scorer in table.scorers
        for strength in rank_models(table, scorer, resamples=fits, seed=seed)
    ]
    return Summary(
        name=table.name,
        prompts=len(table.prompts),
        units={name: str(settings["unit"]) for name, settings in table.scorers.items()},
        standings=standings(table, resamples=resamples, seed=seed),
        categories=category_standings(table, resamples=resamples, seed=seed),
        styles=style_scores(table),
        pairs=tuple(pairs),
        strengths=tuple(strengths),
        warnings=(*_of_coverage(table), *_of_laboratory(table), *_of_close_pairs(pairs)),
    )


def _of_close_pairs(pairs: list[PairComparison]) -> Iterator[str]:
    """One warning of all pairs that the prompts do not distinguish."""
    close = [pair for pair in pairs if not pair.distinct]
    if len(close) == 1:
        yield _undecided(close[0])
    elif close:
        named = [f"{pair.a} from {pair.b} by {pair.scorer}" for pair in close[:_NAMED]]
        more = len(close) - len(named)
        rest = f", and {more} more" if more else ""
        yield (
            f"the prompts do not distinguish {len(close)} of {len(pairs)} pairs of models: "
            f"{', '.join(named)}{rest}; the table of pairs says how many prompts would be needed"
        )


def _undecided(pair: PairComparison) -> str:
    """The warning that the prompts are too few, and how many are needed."""
    start = (
        f"{pair.scorer}: {pair.prompts} prompts do not distinguish {pair.a} from {pair.b} "
        f"(win rate {pair.win_rate:.3f}, {pair.low:.3f} to {pair.high:.3f}; adjusted p "
        f"{pair.p_adjusted:.2g})"
    )
    if pair.needed is None:
        return f"{start}; they are even, so that no number of prompts can be given"
    if pair.needed > _LARGE:
        return f"{start}; more than {_LARGE:,} prompts would be needed"
    number = max(pair.needed, pair.prompts + 1)
    return (
        f"{start}; about {number:,} would, with {POWER:.0%} power, if the win rate stays the same"
    )


def _of_coverage(table: ScoreTable) -> Iterator[str]:
    """Warnings of prompts without a score, and of models whose means are over fewer prompts."""
    for scorer in table.scorers:
        there = ~np.isnan(table.means(scorer))
        if there.all():
            continue
        if (there == there[0]).all():
            yield f"{scorer} has scores for {there[0].sum()} of {len(table.prompts)} prompts only"
            continue
        for model, own in zip(table.models, there, strict=True):
            if not own.all():
                yield (
                    f"{scorer}: {model} has scores for {own.sum()} of {len(table.prompts)} prompts "
                    "only; its mean is over these, pairs are over the prompts that both have"
                )


def _of_laboratory(table: ScoreTable) -> Iterator[str]:
    """Warnings of scorers that only know coloured shapes."""
    foreign = sum(not in_laboratory(one.prompt) for one in table.prompts)
    for scorer in table.scorers:
        if not knows_shapes_only(scorer):
            continue
        if foreign:
            yield (
                f"{scorer} is a model of the shapes laboratory, and {foreign} of "
                f"{len(table.prompts)} prompts are outside its grammar: its scores show that the "
                "benchmark runs and rank nothing"
            )
        else:
            yield (
                f"{scorer} is a model of the shapes laboratory: it knows coloured shapes and "
                "nothing of human taste"
            )


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and np.isnan(value) else value
