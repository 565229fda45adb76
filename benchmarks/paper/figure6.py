"""Figure 6: each scorer's first choice among many images of a prompt, side by side."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

import numpy as np
from PIL import Image

from stablepref.images.decoding import decode
from stablepref.images.rgb import to_rgb
from stablepref.images.sources import Source
from stablepref.output.figures import literal, save_figure

from ..bench.report.pictures import run_pictures
from .drawn import in_place_of_the_papers
from .methods import METHODS
from .sources import titled
from .table import Ours, PaperCell, PaperRow, PaperTable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ..bench.score_table import ScoreTable

TITLE: Final = "Figure 6: first choice of each scorer"
OFFICIAL: Final = 100
"""Images of each prompt in the paper."""
NEEDS: Final = (
    f"data: {OFFICIAL} images of each prompt, in a run: `stablepref bench PROMPTS --model "
    "CompVis/stable-diffusion-v1-4 --images 100 --scorer RUN/best --scorer hps-v2 --out RUN`",
    f"weights, sp-clip-h: {METHODS['sp-clip-h'].command()}",
    "weights of the other scorers: as `stablepref models` lists them",
)
_SIDE: Final = 1.9


@final
@dataclass(frozen=True)
class Choice:
    """The image that a scorer chooses for a prompt.

    Attributes:
        image: Its number, from 0; None where no image has a score.
        score: Its score.
        ties: How many other images have the same score.
        count: How many images have a score.
    """

    image: int | None
    score: float
    ties: int
    count: int


def first_choice(scores: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Choice:
    """The highest of `(images,)` scores, the first of equal ones; NaN is skipped."""
    count = int((~np.isnan(scores)).sum())
    if not count:
        return Choice(None, float("nan"), 0, 0)
    best = int(np.nanargmax(scores))
    return Choice(best, float(scores[best]), int((scores == scores[best]).sum()) - 1, count)


def figure6(
    table: ScoreTable,
    run: Path,
    *,
    scorers: Sequence[str] = (),
    prompts: int,
    picture: Path,
) -> PaperTable:
    """Choose, and draw a row of pictures for each prompt.

    Args:
        table: Scores of a run with several images of each prompt.
        run: The run's folder.
        scorers: Names of scorers; empty for all of the table.
        prompts: How many prompts are shown, from the first.
        picture: File to write, .png or .svg.

    Raises:
        ValueError: A scorer is unknown, or the run has one image of each prompt.
        ImageError: A chosen picture can no longer be read.
        ImportError: matplotlib is not installed; it is in the extra ``bench``.
    """
    chosen = list(scorers) or list(table.scorers)
    images = table.scores.shape[-1]
    if images == 1:
        msg = f"{run} has only one image of each prompt; expected several: use --images 100"
        raise ValueError(msg)
    laboratory = in_place_of_the_papers([table], chosen)
    title = titled(
        f"{TITLE} among {images} images of each prompt of {table.name}", laboratory=laboratory
    )
    files = {one.key: one.image for one in run_pictures(run, table.prompts)}
    rows, drawn = [], []
    for m, model in enumerate(table.models):
        for p, prompt in enumerate(table.prompts[:prompts]):
            choices = [first_choice(table.of(name)[m, p]) for name in chosen]
            rows.append(
                PaperRow(
                    (model, prompt.prompt), tuple(PaperCell(None, _ours(one)) for one in choices)
                )
            )
            pictures = [
                None if one.image is None else _decoded(files[model, p, one.image])
                for one in choices
            ]
            drawn.append((prompt.prompt, list(zip(choices, pictures, strict=True))))
    _draw(picture, title, chosen, drawn)
    wrong = "" if images == OFFICIAL else f"; the paper has {OFFICIAL} images of each"
    return PaperTable(
        name="figure6",
        title=title,
        laboratory=laboratory,
        labels=("model", "prompt"),
        columns=tuple(chosen),
        rows=tuple(rows),
        unit="score of the chosen image, in each scorer's unit",
        notes=(f"the paper's Figure 6 is pictures without numbers{wrong}",),
        needs=NEEDS,
        figures=(picture.name,),
    )


def _ours(choice: Choice) -> Ours | str:
    if choice.image is None:
        return "no image has a score"
    tied = f", the first of {choice.ties + 1} equal ones" if choice.ties else ""
    return Ours(choice.score, note=f"image {choice.image} of {choice.count}{tied}")


def _decoded(image: object) -> Image.Image:
    pixels = decode(Source(0, str(image), image))
    assert isinstance(pixels, Image.Image), "files are decoded by Pillow"
    return to_rgb(pixels)


def _draw(
    path: Path,
    title: str,
    scorers: Sequence[str],
    rows: Sequence[tuple[str, Sequence[tuple[Choice, Image.Image | None]]]],
) -> None:
    """A row of pictures for each prompt, a column for each scorer."""
    # Drawing needs an extra.
    from matplotlib.figure import Figure  # noqa: PLC0415

    width = _SIDE * len(scorers) + 1.6
    figure = Figure(figsize=(width, (_SIDE + 0.25) * len(rows) + 0.7), layout="constrained")
    grid = figure.subplots(len(rows), len(scorers), squeeze=False)
    for axes, scorer in zip(grid[0], scorers, strict=True):
        axes.set_title(literal(scorer), fontsize="small")
    for line, (prompt, cells) in zip(grid, rows, strict=True):
        for place, (axes, (choice, pixels)) in enumerate(zip(line, cells, strict=True)):
            axes.set_xticks([])
            axes.set_yticks([])
            label = "no image has a score"
            if pixels is not None:
                axes.imshow(np.asarray(pixels))
                label = f"image {choice.image}, {choice.score:.2f}"
            axes.set_xlabel(label, fontsize=7)
            if place == 0:
                words = textwrap.fill(prompt.replace("$", r"\$"), 24)
                axes.set_ylabel(words, fontsize=7, rotation=0, ha="right", va="center", labelpad=6)
    figure.suptitle(textwrap.fill(title, int(13 * width)), fontsize="medium")
    save_figure(figure, path)
