"""Draws a group of pictures with their utilities: `python -m stablepref.benchmarks.shapes.sheet`.

Needs the extra ``bench``.
"""

import textwrap
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from matplotlib.figure import Figure

from stablepref.output.figures import literal, save_figure

from .people.alignment import MISTAKE_COSTS
from .people.collect import Collected, collect
from .people.fidelity import FAULT_COSTS
from .people.generators import Picture
from .people.settings import SETTINGS, SettingName
from .people.utility import TERMS, true_utility

_LINE = 22


def draw_sheet(path: Path, groups: Sequence[Collected], *, columns: int = 9) -> None:
    """Write one row for each group, best utility first.

    Args:
        path: File to write.
        groups: The groups, of at most ``columns`` pictures.
        columns: Pictures in a row.
    """
    figure = Figure(figsize=(1.45 * columns, 2.8 * len(groups)), layout="constrained")
    for group, row in zip(
        groups, figure.subfigures(len(groups), 1, squeeze=False)[:, 0], strict=True
    ):
        row.suptitle(literal(group.prompt), fontsize=10)
        utilities, ranks = true_utility(group.terms()), group.annotations.mean(axis=0)
        for axes in (places := row.subplots(1, columns)):
            axes.axis("off")
        for axes, index in zip(places, np.argsort(-utilities, kind="stable"), strict=False):
            picture = group.pictures[index]
            axes.imshow(picture.draw())
            caption = f"u = {utilities[index] + 0.0:.2f}, rank {ranks[index]:.1f}"
            axes.set_title(f"{caption}\n{literal(picture.generator)}", fontsize=7)
            axes.text(
                0.5,
                -0.04,
                textwrap.fill(what_is_wrong(picture), _LINE),
                transform=axes.transAxes,
                ha="center",
                va="top",
                fontsize=6.5,
            )
    save_figure(figure, path, dpi=90)


def what_is_wrong(picture: Picture) -> str:
    """Mistakes and faults of a picture: "2 colour, 1 missing, blur 0.41", or "flawless"."""
    terms = dict(zip(TERMS, picture.terms().tolist(), strict=True))
    mistakes = [f"{terms[name]:.0f} {name}" for name in MISTAKE_COSTS if terms[name]]
    faults = [f"{name} {terms[name]:.2f}" for name in FAULT_COSTS if terms[name]]
    return ", ".join(mistakes + faults) or "flawless"


def main(
    out: Annotated[Path, typer.Argument(help="file to draw, .png")],
    setting: Annotated[SettingName, typer.Option(help="kind of preference data")] = "hpdv2",
    groups: Annotated[int, typer.Option(min=1, help="groups to draw, one in each row")] = 2,
    seed: Annotated[int, typer.Option(help="seed of prompts, pictures and people")] = 0,
) -> None:
    """Draw groups of pictures with true utilities and people's mean ranks."""
    collected = collect(SETTINGS[setting], split="test", seed=seed)
    draw_sheet(out, list(islice(collected, groups)))
    typer.echo(out)


if __name__ == "__main__":
    typer.run(main)
