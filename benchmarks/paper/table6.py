"""Table 6: text-to-image models by the score of SP (CLIP-H†), from runs of `stablepref bench`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from ..bench.judges import knows_shapes_only
from ..bench.prompt_sets import NAMED
from ..bench.statistics.hpdv2 import style_scores
from ..bench.statistics.resampling import mean_intervals
from .drawn import NAME, in_place_of_the_papers
from .methods import METHODS, plain_name
from .numbers import STYLES, TABLE_6, Published
from .sources import titled
from .table import (
    Ours,
    PaperCell,
    PaperRow,
    PaperTable,
    of_interval,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..bench.score_table import ScoreTable
    from .numbers import System

TITLE: Final = "Table 6: text-to-image models by the score of"
SCORER: Final = "sp-clip-h-hps"
"""The scorer of the paper, by the name of its recipe."""
_SETS: Final = ("hpdv2", "drawbench")
_COLUMNS: Final = (*(f"HPD v2 {style}" for style in STYLES), "DrawBench")
NEEDS: Final = (
    "data: each model's images of HPD v2's 3,200 prompts and of DrawBench's 200, in runs: "
    "`stablepref bench hpdv2 --model 'GLIDE=FOLDER' ... --scorer RUN/best --out RUN`",
    f"weights, {SCORER}: {METHODS[SCORER].command()}",
)


def one_scorer(tables: Sequence[ScoreTable], wanted: str | None) -> str:
    """The scorer whose numbers the table shows: the one asked for, the paper's, or the only one.

    Raises:
        ValueError: Not all runs have the scorer, or there are several to choose from.
    """
    shared = [name for name in tables[0].scorers if all(name in t.scorers for t in tables)]
    if wanted is not None or SCORER in shared:
        name = wanted or SCORER
        if name not in shared:
            msg = f"--scorer {name}: not all runs have it; all have: {', '.join(shared) or 'none'}"
            raise ValueError(msg)
        return name
    if len(shared) != 1:
        there = ", ".join(shared) or "none that all have"
        msg = f"the runs have several scorers ({there}): choose one, --scorer NAME"
        raise ValueError(msg)
    return shared[0]


def table6(
    tables: Sequence[ScoreTable],
    *,
    scorer: str | None = None,
    names: Mapping[str, str] | None = None,
) -> PaperTable:
    """The paper's models and those of the runs beside them.

    Args:
        tables: Scores of runs with the prompts of `hpdv2`, `drawbench` or the laboratory.
        scorer: Name of the scorer whose numbers are shown; None for the paper's, or the only one.
        names: Names of the paper's models in the runs, where they differ in more than punctuation.

    Raises:
        ValueError: A run has other prompts, two runs have the same prompts, or there is no single
            scorer, see `one_scorer`.
    """
    chosen = one_scorer(tables, scorer)
    cells: dict[str, dict[str, Ours | str]] = {}
    for table in tables:
        for model, found in _cells(table, chosen).items():
            for column, cell in found.items():
                if column in cells.setdefault(model, {}):
                    msg = f"{model} has images for {column} in two of the runs: give one of them"
                    raise ValueError(msg)
                cells[model][column] = cell
    known = {plain_name(name): name for name in cells}
    rows = []
    for system in TABLE_6:
        name = (names or {}).get(system.name) or known.get(plain_name(system.name))
        if name is not None and name not in cells:
            msg = f"no run has a model {name!r}; the runs have: {', '.join(cells)}"
            raise ValueError(msg)
        rows.append(_row(system, None if name is None else cells.pop(name)))
    rows += [PaperRow((name,), _ours_alone(own)) for name, own in cells.items()]
    laboratory = in_place_of_the_papers(tables, [chosen])
    title = titled(f"{TITLE} {chosen}", laboratory=laboratory)
    if not laboratory and chosen != SCORER:
        title += ", not of the paper's model"
    return PaperTable(
        name="table6",
        title=title,
        laboratory=laboratory,
        labels=("model",),
        columns=_COLUMNS,
        rows=tuple(rows),
        unit=str(tables[0].scorers[chosen]["unit"]),
        notes=_notes(tables, chosen),
        needs=NEEDS,
        failed=sum(one.scorer == chosen for table in tables for one in table.failures),
        scored=sum(int((~np.isnan(table.of(chosen))).sum()) for table in tables),
    )


def _cells(table: ScoreTable, scorer: str) -> dict[str, dict[str, Ours | str]]:
    """A run's numbers by model and column."""
    if table.name == "hpdv2" and len(table.prompts) == NAMED["hpdv2"].count:
        found: dict[str, dict[str, Ours | str]] = {}
        columns = {style: f"HPD v2 {name}" for name, style in STYLES.items()}
        for one in style_scores(table):
            if one.scorer == scorer and one.style in columns:
                cell: Ours | str = f"{one.missing} of 800 images have no score"
                if one.mean is not None:
                    cell = Ours(one.mean, deviation=one.deviation)
                found.setdefault(one.model, {})[columns[one.style]] = cell
        return found
    whole = table.name == "drawbench" and len(table.prompts) == NAMED["drawbench"].count
    if not whole and table.name != NAME:
        msg = (
            f"a run has {len(table.prompts)} prompts of {table.name}; Table 6 takes runs of "
            f"{' and '.join(_SETS)}"
        )
        raise ValueError(msg)
    note = "" if whole else "mean over the laboratory's prompts"
    intervals = mean_intervals(table.means(scorer), table.words)
    cells = {}
    for model, interval in zip(table.models, intervals, strict=True):
        none = math.isnan(interval.value)
        cell = "no image has a score" if none else of_interval(interval, note=note)
        cells[model] = {_COLUMNS[-1]: cell}
    return cells


def _row(system: System, own: Mapping[str, Ours | str] | None) -> PaperRow:
    printed = [Published(mean, f"{mean:.2f}±{sd:.3f}") for mean, sd in system.styles]
    printed.append(Published(system.drawbench, f"{system.drawbench:.2f}"))
    absent = "no run has images of it" if own is None else "no run has these prompts"
    cells = [
        PaperCell(number, (own or {}).get(column, absent))
        for column, number in zip(_COLUMNS, printed, strict=True)
    ]
    return PaperRow((system.name,), tuple(cells))


def _ours_alone(own: Mapping[str, Ours | str]) -> tuple[PaperCell, ...]:
    return tuple(PaperCell(None, own.get(name, "no run has these prompts")) for name in _COLUMNS)


def _notes(tables: Sequence[ScoreTable], scorer: str) -> tuple[str, ...]:
    notes = [
        "HPD v2: mean and standard deviation of ten groups' means, of 80 prompts each; DrawBench: "
        "mean over all images",
        "rows without a number of the paper are models of the runs that it does not have",
    ]
    if any(table.name == NAME for table in tables):
        notes.append(
            "ours: generators of the laboratory on its own prompts, in DrawBench's column; the "
            "units are another model's, so that nothing compares with the paper's column"
        )
    elif knows_shapes_only(scorer):
        notes.append(f"{scorer} knows coloured shapes only: its scores rank nothing here")
    return tuple(notes)
