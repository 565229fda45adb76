"""The statistics as tables: on a terminal, in Markdown, and as CSV."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from rich import box
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..score_table import ScoreTable
    from ..statistics.leaderboard import Standing
    from ..statistics.summary import Summary

_PAIR_COLUMNS: Final = (
    "scorer",
    "a",
    "b",
    "win",
    "tie",
    "loss",
    "win_rate",
    "low",
    "high",
    "effect_size",
    "p_adjusted",
    "distinct",
    "prompts",
    "needed",
)
_RANKING_COLUMNS: Final = (
    "scorer",
    "rank",
    "model",
    "strength",
    "low",
    "high",
    "rank_low",
    "rank_high",
    "win_probability",
)

Cell = str | int | float | bool | None


@final
@dataclass(frozen=True)
class Sheet:
    """One table.

    Attributes:
        name: Of its file.
        title: Above it.
        columns: Names.
        rows: Cells; None, and what is not a number, is shown as "-" and empty in CSV.
        shown: Which columns people see; CSV has all.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    shown: tuple[str, ...]

    def table(self) -> Table:
        """For a terminal."""
        drawn = Table(title=self.title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for name in self.shown:
            number = any(isinstance(cell, int | float) for cell in self._column(name))
            drawn.add_column(name, justify="right" if number else "left", overflow="fold")
        for row in self._cells():
            drawn.add_row(*row)
        return drawn

    def markdown(self) -> str:
        """As a table of Markdown under its title."""
        lines = [self.shown, ["---"] * len(self.shown), *self._cells()]
        escaped = [[cell.replace("|", "\\|") for cell in line] for line in lines]
        body = "\n".join(f"| {' | '.join(line)} |" for line in escaped)
        return f"## {self.title}\n\n{body}\n"

    def csv(self) -> str:
        """All columns, numbers in full."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([_whole(cell) for cell in row] for row in self.rows)
        return text.getvalue()

    def _column(self, name: str) -> list[Cell]:
        place = self.columns.index(name)
        return [row[place] for row in self.rows]

    def _cells(self) -> list[list[str]]:
        """What people see, as text."""
        places = [self.columns.index(name) for name in self.shown]
        return [[_text(row[place]) for place in places] for row in self.rows]


def sheets(summary: Summary) -> tuple[Sheet, ...]:
    """All tables of a summary that have rows."""
    made = (
        _sheet(
            "leaderboard",
            f"{summary.name}: mean scores, with 95 % intervals over {summary.prompts} prompts",
            summary.standings,
            ("scorer", "model", "mean", "low", "high", "prompts", "images", "failed"),
        ),
        _sheet(
            "styles",
            "By HPD v2's protocol: mean and deviation of ten groups of 80",
            summary.styles,
            ("scorer", "model", "style", "mean", "deviation", "missing"),
        ),
        _categories(summary.categories),
        _sheet(
            "pairs",
            "Pairs: how often the first model wins on the same prompts",
            summary.pairs,
            _PAIR_COLUMNS,
        ),
        _sheet(
            "ranking",
            "Bradley-Terry ranking, with 95 % intervals over prompts",
            summary.strengths,
            _RANKING_COLUMNS,
        ),
    )
    return tuple(sheet for sheet in made if sheet.rows)


def failure_sheet(table: ScoreTable) -> Sheet:
    """Every image that could not be made, read or scored."""
    names = ("model", "prompt", "image", "scorer", "reason")
    return _sheet("failures", "Without a score", table.failures, names)


def score_sheet(table: ScoreTable) -> Sheet:
    """Every image's scores, a column for each scorer."""
    rows: list[tuple[Cell, ...]] = []
    for m, model in enumerate(table.models):
        for p, prompt in enumerate(table.prompts):
            for number in range(table.scores.shape[-1]):
                scores = [float(score) for score in table.scores[m, :, p, number]]
                if not all(map(math.isnan, scores)):
                    rows.append((model, prompt.key, number, prompt.prompt, *scores))
    columns = ("model", "prompt", "image", "text", *table.scorers)
    return Sheet("scores", "Scores of all images", columns, tuple(rows), columns)


def _sheet(name: str, title: str, rows: Sequence[object], shown: tuple[str, ...]) -> Sheet:
    """Frozen dataclasses as rows, in the order of what is shown, then the rest."""
    rest = [field for field in vars(rows[0]) if field not in shown] if rows else []
    columns = (*shown, *rest)
    cells = tuple(tuple(getattr(row, column) for column in columns) for row in rows)
    return Sheet(name, title, columns, cells, shown)


def _categories(rows: Sequence[Standing]) -> Sheet:
    shown = ("scorer", "label", "value", "model", "mean", "low", "high", "prompts")
    return _sheet("categories", "Mean scores by category", rows, shown)


def _text(cell: Cell) -> str:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return "-"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)


def _whole(cell: Cell) -> Cell:
    return "" if cell is None or (isinstance(cell, float) and math.isnan(cell)) else cell
