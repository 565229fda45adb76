"""The files of a run's tables: Markdown, JSON and CSV."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from stablepref.output.durable import replacing
from stablepref.output.tables import markdown_text

from .sheets import failure_sheet, score_sheet, sheets

if TYPE_CHECKING:
    from pathlib import Path

    from ..score_table import ScoreTable
    from ..statistics.summary import Summary

SUMMARY_FILE: Final = "leaderboard.json"
MARKDOWN_FILE: Final = "leaderboard.md"


def write_summary(folder: Path, table: ScoreTable, summary: Summary) -> None:
    """Write all tables: Markdown, JSON, and CSV of each with every score and every failure.

    Each file appears whole or not at all, the JSON file last.

    Raises:
        OSError: The folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        f"{sheet.name}.csv": sheet.csv()
        for sheet in (*sheets(summary), score_sheet(table), failure_sheet(table))
    }
    texts[MARKDOWN_FILE] = markdown(summary)
    texts[SUMMARY_FILE] = json.dumps(summary.as_dict(), indent=1) + "\n"
    for name, text in texts.items():
        with replacing(folder / name) as staging:
            staging.write_text(text, encoding="utf-8")


def markdown(summary: Summary) -> str:
    """All tables and warnings as one document."""
    units = "\n".join(
        f"- {markdown_text(name)}: {markdown_text(unit)}" for name, unit in summary.units.items()
    )
    parts = [
        f"# {markdown_text(summary.name)}: {summary.prompts} prompts\n",
        f"Scorers:\n\n{units}\n",
    ]
    if summary.warnings:
        parts.append(
            "\n".join(f"- {markdown_text(warning)}" for warning in summary.warnings) + "\n"
        )
    return "\n".join([*parts, *(sheet.markdown() for sheet in sheets(summary))])
