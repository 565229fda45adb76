"""The statistics as tables: on a terminal, in Markdown, and as CSV."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from stablepref.output.tables import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stablepref.output.tables import Cell

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


def sheets(summary: Summary) -> tuple[Table, ...]:
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


def failure_sheet(table: ScoreTable) -> Table:
    """Every image that could not be made, read or scored."""
    names = ("model", "prompt", "image", "scorer", "reason")
    return _sheet("failures", "Without a score", table.failures, names)


def score_sheet(table: ScoreTable) -> Table:
    """Every image's scores, a column for each scorer."""
    rows: list[tuple[Cell, ...]] = []
    for m, model in enumerate(table.models):
        for p, prompt in enumerate(table.prompts):
            for number in range(table.scores.shape[-1]):
                scores = [float(score) for score in table.scores[m, :, p, number]]
                if not all(map(math.isnan, scores)):
                    rows.append((model, prompt.key, number, prompt.prompt, *scores))
    columns = ("model", "prompt", "image", "text", *table.scorers)
    return Table(name="scores", title="Scores of all images", columns=columns, rows=rows)


def _sheet(name: str, title: str, rows: Sequence[object], shown: tuple[str, ...]) -> Table:
    """Frozen dataclasses as rows, in the order of what is shown, then the rest."""
    rest = [field for field in vars(rows[0]) if field not in shown] if rows else []
    columns = (*shown, *rest)
    cells = tuple(tuple(getattr(row, column) for column in columns) for row in rows)
    return Table(name=name, title=title, columns=columns, rows=cells, shown=shown)


def _categories(rows: Sequence[Standing]) -> Table:
    shown = ("scorer", "label", "value", "model", "mean", "low", "high", "prompts")
    return _sheet("categories", "Mean scores by category", rows, shown)
