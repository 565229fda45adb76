"""The statistics of a benchmark as a page lays them out: boards, matrices, bars."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stablepref.output.tables import Cell

    from ..statistics.bradley_terry import Strength
    from ..statistics.leaderboard import Standing
    from ..statistics.summary import Summary
    from ..statistics.winrates import PairComparison

_STRONGEST: Final = 55
"""Per cent of a colour behind a number that stays readable on it."""


@final
@dataclass(frozen=True)
class Bar:
    """Where a mean and its interval lie on a scale, in per cent of its width.

    Attributes:
        value: Of the mean; None where there is none.
        low: Of the lower bound; None with fewer than two prompts.
        width: From there to the upper bound; None without one.
    """

    value: float | None
    low: float | None
    width: float | None


@final
@dataclass(frozen=True)
class BoardRow:
    """A model under one scorer.

    Attributes:
        standing: Its mean.
        strength: Its place in the ranking; None where nothing is ranked.
        bar: Of its mean, among the means of this scorer.
    """

    standing: Standing
    strength: Strength | None
    bar: Bar


@final
@dataclass(frozen=True)
class Duel:
    """A cell of the matrix: the row's model against the column's.

    Attributes:
        a: Place of the row's model.
        b: Place of the column's.
        rate: The row's win rate, 0 to 1.
        low: Lower bound of its interval.
        high: Upper bound.
        prompts: On how many.
        distinct: Whether the prompts tell the two apart.
        shade: Per cent of colour: 0 at a rate of one half.
    """

    a: int
    b: int
    rate: float
    low: float
    high: float
    prompts: int
    distinct: bool
    shade: int


@final
@dataclass(frozen=True)
class Bars:
    """The means of the groups of one label under one scorer.

    Attributes:
        scorer: The scorer.
        label: Such as "category".
        start: Where all bars start, in the scorer's unit.
        end: Where the scale ends.
        groups: Each value of the label with its number of prompts, and each model's mean and bar.
    """

    scorer: str
    label: str
    start: float
    end: float
    groups: tuple[tuple[str, int, tuple[tuple[Standing, Bar], ...]], ...]


def boards(summary: Summary) -> dict[str, list[BoardRow]]:
    """The leaderboard of each scorer, best first: by rank, or else by mean.

    A model without any score is last and has no rank.
    """
    scored = {(one.scorer, one.model) for one in summary.standings if math.isfinite(one.mean)}
    strengths = {(one.scorer, one.model): one for one in summary.strengths}
    strengths = {key: one for key, one in strengths.items() if key in scored}
    found: dict[str, list[BoardRow]] = {}
    for scorer in summary.units:
        own = [one for one in summary.standings if one.scorer == scorer]
        start, end = _span(own, zero=False)
        rows = [
            BoardRow(one, strengths.get((scorer, one.model)), _bar(one, start, end)) for one in own
        ]
        rows.sort(key=lambda row: row.strength.rank if row.strength else 1 + len(own))
        found[scorer] = rows
    return found


def duels(summary: Summary, models: Sequence[str]) -> dict[str, list[list[Duel | None]]]:
    """The win-rate matrix of each scorer, `[row][column]`; None where two models never meet.

    Args:
        summary: The statistics.
        models: In the order of rows and columns.
    """
    pairs = {(one.scorer, one.a, one.b): one for one in summary.pairs}
    found: dict[str, list[list[Duel | None]]] = {}
    for scorer in summary.units:
        rows = []
        for i, a in enumerate(models):
            row: list[Duel | None] = []
            for j, b in enumerate(models):
                forth, back = pairs.get((scorer, a, b)), pairs.get((scorer, b, a))
                if forth is not None:
                    row.append(_duel(i, j, forth, (forth.win_rate, forth.low, forth.high)))
                elif back is not None:
                    own = (1 - back.win_rate, 1 - back.high, 1 - back.low)
                    row.append(_duel(i, j, back, own))
                else:
                    row.append(None)
            rows.append(row)
        if any(cell is not None for row in rows for cell in row):
            found[scorer] = rows
    return found


def in_order(
    rows: Sequence[Sequence[Duel | None]], models: Sequence[str], order: Sequence[str]
) -> list[list[Duel | None]]:
    """A matrix with its rows and columns in another order, such as that of the leaderboard.

    Args:
        rows: Of `duels`.
        models: The order that they are in.
        order: The same models in the order that they shall be in.
    """
    places = [list(models).index(name) for name in order]
    return [[rows[row][column] for column in places] for row in places]


def decimals(values: Iterable[float]) -> int:
    """Digits after the point with which all of a column are shown: four digits for the largest."""
    largest = max((abs(x) for x in values if math.isfinite(x)), default=0.0)
    return max(0, 3 - math.floor(math.log10(largest))) if largest else 3


def fixed(value: float, digits: int) -> str:
    """A number with so many digits after its point; "-" where there is none."""
    return f"{value:.{digits}f}" if math.isfinite(value) else "-"


def category_bars(summary: Summary) -> list[Bars]:
    """Bars for each scorer and label with a score, groups in the order of the prompts."""
    scored = [one for one in summary.categories if math.isfinite(one.mean)]
    kinds = dict.fromkeys((one.scorer, one.label) for one in scored)
    found = []
    for scorer, label in kinds:
        own = [one for one in summary.categories if (one.scorer, one.label) == (scorer, label)]
        start, end = _span(own, zero=True)
        groups = []
        for value in dict.fromkeys(one.value for one in own):
            rows = [one for one in own if one.value == value]
            count = max(one.prompts for one in rows)
            groups.append((value, count, tuple((one, _bar(one, start, end)) for one in rows)))
        found.append(Bars(scorer, label, start, end, tuple(groups)))
    return found


def number(cell: Cell) -> str:
    """As people read it: four digits; "-" where there is none."""
    if cell is None or (isinstance(cell, float) and not math.isfinite(cell)):
        return "-"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)


def _duel(a: int, b: int, pair: PairComparison, rates: tuple[float, float, float]) -> Duel:
    rate, low, high = rates
    shade = round(_STRONGEST * abs(2 * rate - 1))
    return Duel(a, b, rate, low, high, pair.prompts, pair.distinct, shade)


def _span(rows: Iterable[Standing], *, zero: bool) -> tuple[float, float]:
    """A scale that holds all means and bounds.

    With `zero` it starts at 0 if that takes no more than half of it. Otherwise differences could
    hardly be seen, as between scores of 27.1 and 27.4, and it starts just below the lowest bound.
    """
    numbers = [x for one in rows for x in (one.mean, one.low, one.high) if math.isfinite(x)]
    low, high = min(numbers, default=0.0), max(numbers, default=1.0)
    room = high - low
    if zero and low >= 0 and low <= room:
        return 0.0, high if high > 0 else 1.0
    if not room:
        return low - 0.5, high + 0.5
    return low - room / 20, high + room / 20


def _bar(one: Standing, start: float, end: float) -> Bar:
    def place(x: float) -> float:
        return round(100 * (x - start) / (end - start), 2)

    if not math.isfinite(one.mean):
        return Bar(None, None, None)
    if not math.isfinite(one.low):
        return Bar(place(one.mean), None, None)
    return Bar(place(one.mean), place(one.low), round(place(one.high) - place(one.low), 2))
