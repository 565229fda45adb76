"""Figure 5: how far scorers agree about text-to-image models, from runs of `stablepref bench`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from stablepref.evaluation.correlations import correlation

from .drawn import in_place_of_the_papers
from .methods import METHODS
from .sources import titled
from .table import Ours, PaperCell, PaperRow, PaperTable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ..bench.score_table import ScoreTable

TITLE: Final = "Figure 5: correlation between scorers, of models' mean scores"
NEEDS: Final = (
    "data: images of many text-to-image models for DrawBench's 200 prompts, in one run or several: "
    "`stablepref bench drawbench --model A --model B ... --scorer RUN/best --scorer hps-v2 --out "
    "RUN`",
    f"weights, sp-clip-h-hps: {METHODS['sp-clip-h-hps'].command()}",
    "weights of the other scorers: as `stablepref models` lists them",
)


def figure5(
    table: ScoreTable, *, scorers: Sequence[str] = (), picture: Path | None = None
) -> PaperTable:
    """The first scorer's correlation with each other one, and their scatter plots.

    Args:
        table: Scores of one run, or of several joined.
        scorers: Names of scorers, that of the vertical axis first; empty for all of the table.
        picture: File to write, .png or .svg; None draws nothing.

    Raises:
        ValueError: A scorer is unknown, there are fewer than two, or no image has a score of all
            of them.
        ImportError: matplotlib is not installed; it is in the extra ``bench``.
    """
    chosen = list(scorers) or list(table.scorers)
    if len(chosen) < 2:
        msg = f"a correlation needs two scorers, got only {', '.join(chosen)}: make a run with more"
        raise ValueError(msg)
    scores = np.stack([table.of(name) for name in chosen])
    there = ~np.isnan(scores).any(axis=0)
    if not there.any():
        msg = f"no image has a score of all of {', '.join(chosen)}: choose scorers, --scorer NAME"
        raise ValueError(msg)
    models = [table.models[place] for place in np.nonzero(there)[0]]
    found = correlation(
        {name: own[there] for name, own in zip(chosen, scores, strict=True)}, models=models
    )
    laboratory = in_place_of_the_papers([table], chosen)
    title = titled(
        f"{TITLE} on {len(table.prompts)} prompts of {table.name}", laboratory=laboratory
    )
    rows = [
        PaperRow(
            (chosen[0], chosen[place]),
            tuple(
                PaperCell(None, _ours(float(matrix[0, place]), len(found.labels)))
                for matrix in (found.pearson, found.spearman)
            ),
        )
        for place in range(1, len(chosen))
    ]
    if picture is not None:
        found.save_plot(picture, title=title)
    return PaperTable(
        name="figure5",
        title=title,
        laboratory=laboratory,
        labels=("scorer", "beside"),
        columns=("Pearson", "Spearman"),
        rows=tuple(rows),
        unit="correlation",
        notes=(
            "the paper's Figure 5 is a picture without numbers; the paper says of it that Stable "
            "Preference is positively correlated with the other scorers",
            f"means over the {int(there.sum())} images that have a score of all scorers, of "
            f"{len(found.labels)} models",
        ),
        needs=NEEDS,
        figures=() if picture is None else (picture.name,),
    )


def _ours(value: float, models: int) -> Ours | str:
    if np.isnan(value):
        return f"{models} model{'s' * (models != 1)} whose means do not differ for both"
    note = "two points always lie on a line" if models == 2 else ""
    return Ours(value, note=note)
