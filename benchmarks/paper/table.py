"""A table with the paper's numbers beside ours: for a terminal, Markdown, CSV and JSON."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final, final

from stablepref.output.tables import Table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stablepref.evaluation.means import Interval

    from .numbers import Published

ABSENT: Final = "-"
_SIDE_BY_SIDE: Final = 2
"""Tables with more columns than this have a line for the paper and one for us in each row."""


@final
@dataclass(frozen=True)
class Ours:
    """A number that was measured here.

    Attributes:
        value: In the table's unit.
        low: Lower bound of its 95 % interval; NaN if it has no interval.
        high: Upper bound of its 95 % interval; NaN if it has no interval.
        deviation: Standard deviation over HPD v2's ten groups, if the number is their mean.
        change: Difference from the row's first column, if measured under a perturbation.
        change_low: Lower bound of the change's 95 % interval.
        change_high: Upper bound of the change's 95 % interval.
        note: What a reader must know, such as how many seeds it is a mean of.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    deviation: float | None = None
    change: float | None = None
    change_low: float = math.nan
    change_high: float = math.nan
    note: str = ""

    def text(self, decimals: int) -> str:
        """As tables show it: with its interval, or with its change and the change's interval."""
        shown = f"{self.value:.{decimals}f}"
        if self.deviation is not None:
            return f"{shown}±{self.deviation:.3f}"
        if self.change is not None:
            bounds = f"{self.change_low:+.{decimals}f} to {self.change_high:+.{decimals}f}"
            return f"{shown} ({self.change:+.{decimals}f}; {bounds})"
        if math.isnan(self.low):
            return shown
        return f"{shown} ({self.low:.{decimals}f} to {self.high:.{decimals}f})"


@final
@dataclass(frozen=True)
class PaperCell:
    """One number of the paper, and ours or the reason why it is missing.

    Attributes:
        published: None where the paper has no number, as for a model that it does not test.
        ours: The number, or in words why it is missing.
    """

    published: Published | None
    ours: Ours | str


@final
@dataclass(frozen=True)
class PaperRow:
    """A row of a table.

    Attributes:
        labels: Cells before its numbers.
        cells: One for each column.
    """

    labels: tuple[str, ...]
    cells: tuple[PaperCell, ...]

    def notes(self, columns: Iterable[str]) -> str:
        """Why numbers are missing, and the notes on others; each once."""
        notes: dict[str, list[str]] = {}
        for column, cell in zip(columns, self.cells, strict=True):
            text = cell.ours if isinstance(cell.ours, str) else cell.ours.note
            if text:
                notes.setdefault(text, []).append(column)
        if len(notes) == 1 and len(next(iter(notes.values()))) == len(self.cells):
            return next(iter(notes))
        return "; ".join(f"{', '.join(where)}: {text}" for text, where in notes.items())


@final
@dataclass(frozen=True)
class PaperTable:
    """A table or figure of the paper, with the paper's numbers and ours.

    Attributes:
        name: Such as "table4".
        title: What it is, and the data and models that our numbers were measured with.
        laboratory: Whether data or models of the laboratory stand in for the paper's.
        labels: Names of the columns before the numbers.
        columns: Names of the columns with numbers.
        rows: All rows of the paper, in its order; then those that it does not have.
        unit: Unit of the numbers.
        decimals: Decimals of our numbers.
        notes: Misprints, and how our numbers were measured.
        needs: The data and weights that it needs, and which of them were found.
        figures: Names of the files that were drawn.
        failed: Number of images that could not be scored.
        scored: Number of images that were scored.
    """

    name: str
    title: str
    laboratory: bool
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[PaperRow, ...]
    unit: str
    decimals: int = 2
    notes: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    figures: tuple[str, ...] = ()
    failed: int = field(default=0, kw_only=True)
    scored: int = field(default=0, kw_only=True)

    def sheet(self) -> Table:
        """For readers: the paper's number and ours side by side, or one below the other."""
        title = f"{self.title} ({self.unit})"
        if not any(cell.published for row in self.rows for cell in row.cells):
            columns = (*self.labels, *self.columns, "note")
            lines = [(*row.labels, *self._ours(row), row.notes(self.columns)) for row in self.rows]
            return Table(name=self.name, title=title, columns=columns, rows=lines)
        beside = len(self.columns) <= _SIDE_BY_SIDE
        if beside:
            heads = [f"{column}, {who}" for column in self.columns for who in ("paper", "ours")]
        else:
            heads = ["whose", *self.columns]
        rows = [line for row in self.rows for line in self._lines(row, beside=beside)]
        columns = (*self.labels, *heads, "note")
        return Table(name=self.name, title=title, columns=columns, rows=rows)

    def markdown(self) -> str:
        """The table with its notes and figures."""
        parts = [self.sheet().markdown()]
        parts += ["\n".join(f"- {note}" for note in self.notes) + "\n"] if self.notes else []
        parts += [f"![{self.title}]({figure})\n" for figure in self.figures]
        return "\n".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; NaN becomes None."""
        found = asdict(self)
        found["rows"] = [
            {
                **dict(zip(self.labels, row.labels, strict=True)),
                "cells": [
                    _cell(column, cell)
                    for column, cell in zip(self.columns, row.cells, strict=True)
                ],
            }
            for row in self.rows
        ]
        return found

    def _lines(self, row: PaperRow, *, beside: bool) -> list[tuple[str, ...]]:
        paper = [ABSENT if c.published is None else c.published.printed for c in row.cells]
        ours = self._ours(row)
        note = row.notes(self.columns)
        if beside:
            pairs = [text for pair in zip(paper, ours, strict=True) for text in pair]
            return [(*row.labels, *pairs, note)]
        blank = ("",) * len(row.labels)
        mine = (*blank, "ours", *ours, note)
        if all(cell.published is None for cell in row.cells):
            return [(*row.labels, *mine[len(blank) :])]
        return [(*row.labels, "paper", *paper, ""), mine]

    def _ours(self, row: PaperRow) -> list[str]:
        cells = [cell.ours for cell in row.cells]
        return [ABSENT if isinstance(one, str) else one.text(self.decimals) for one in cells]


def of_interval(interval: Interval, *, scale: float = 1.0, note: str = "") -> Ours:
    """A number with its interval, multiplied by `scale`."""
    value, low, high = (scale * bound for bound in interval)
    return Ours(value, low, high, note=note)


def _cell(column: str, cell: PaperCell) -> dict[str, object]:
    found: dict[str, object] = {
        "column": column,
        "published": None if cell.published is None else cell.published.value,
        "printed": None if cell.published is None else cell.published.printed,
    }
    if isinstance(cell.ours, str):
        return found | {"ours": None, "why_not": cell.ours}
    ours = {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in asdict(cell.ours).items()
    }
    return found | {"ours": ours, "why_not": None}
