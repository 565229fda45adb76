"""What an evaluation found, with its measures in every form: values, tables, plots and files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, final

from stablepref.evaluation.measures import Measures
from stablepref.evaluation.serialize import report_dict, save_reports
from stablepref.evaluation.tables import report_lines, report_tables

if TYPE_CHECKING:
    import os


@final
@dataclass(frozen=True, eq=False)
class EvaluationReport(Measures):
    """A scorer's agreement with people, and how stable its choices are; see `Measures`."""

    def as_dict(self, *, scores: bool = False) -> dict[str, object]:
        """All of it as plain values for JSON; with `scores` also every image's."""
        return report_dict(self, scores=scores)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `as_dict` with the scores as JSON; the file appears whole or not at all."""
        save_reports(Path(path), [self])

    def lines(self) -> list[str]:
        """The tables of `stablepref eval` as lines of text."""
        return report_lines([self])

    def _repr_html_(self) -> str:
        return "".join(table.html() for table in report_tables([self]))

    def save_plots(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Draw what there is to draw into a folder; see `stablepref.evaluation.plots.save_plots`.

        Raises:
            ImportError: matplotlib is not installed; it is in the extra ``bench``.
        """
        from stablepref.evaluation.plots import save_plots  # noqa: PLC0415 (an optional extra)

        return save_plots([self], Path(folder))
