"""Figure 4: the weight of step 1 over the margin, by the paper's formula and by the library.

Run ``python -m stablepref.benchmarks.paper.figure4 docs/assets/figure4.svg`` to draw it. Needs the
extra ``bench``.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch

from stablepref.losses import order_weight
from stablepref.output.figures import save_figure
from stablepref.recipes import TrainConfig

from .numbers import FIGURE_4, Published
from .table import Ours, PaperCell, PaperRow, PaperTable

if TYPE_CHECKING:
    from collections.abc import Sequence

MARGINS: Final = (-0.5, -0.1, 0.0, 0.1, 0.2, 0.3, 0.5)
"""ΔS at which the table gives the weight, in score units."""
CURVES: Final = (
    (*FIGURE_4, "Figure 4 of the paper"),
    (TrainConfig().b, TrainConfig().tau, "default, section 4.2"),
)
"""b, τ and where they come from."""


def figure4(*, picture: Path | None = None) -> PaperTable:
    """The weight at the `MARGINS`, and the curve.

    Args:
        picture: File to write the curve to, .png or .svg; None draws nothing.

    Raises:
        ImportError: matplotlib is not installed; it is in the extra ``bench``.
    """
    b, tau = FIGURE_4
    ours = order_weight(torch.tensor(MARGINS, dtype=torch.float64), b, tau).tolist()
    rows = [
        PaperRow(
            (f"{margin:+.1f}",),
            (PaperCell(_by_formula(margin, b, tau), Ours(weight)),),
        )
        for margin, weight in zip(MARGINS, ours, strict=True)
    ]
    if picture is not None:
        draw(picture)
    default = TrainConfig()
    at_zero = _by_formula(0.0, default.b, default.tau).value
    return PaperTable(
        name="figure4",
        title=f"Figure 4: weight of a pair in step 1 at b = {b}, τ = {tau}",
        laboratory=False,
        labels=("ΔS",),
        columns=("weight",),
        rows=tuple(rows),
        unit="1; ΔS in units of the score",
        decimals=4,
        notes=(
            "the paper's column is its formula, 1 / (1 + exp((ΔS - b) / τ)): the figure prints no "
            "numbers",
            "misprint: the text before the figure has ε above the fraction, the figure's own title "
            "has 1",
            f"the trainings use b = {default.b} and τ = {default.tau} (section 4.2): the weight at "
            f"ΔS = 0 is then {at_zero:.3f}, and not the about 1 of section 3.3",
        ),
        needs=("nothing: it is a formula",),
        figures=() if picture is None else (picture.name,),
    )


def _by_formula(margin: float, b: float, tau: float) -> Published:
    value = 1 / (1 + math.exp((margin - b) / tau))
    return Published(value, f"{value:.4f}")


def draw(path: Path) -> None:
    """Write the figure, .svg or .png; equal inputs give equal bytes in SVG.

    Raises:
        ImportError: matplotlib is not installed; it is in the extra ``bench``.
    """
    # Drawing needs an extra.
    from matplotlib.figure import Figure  # noqa: PLC0415

    margin = torch.linspace(-1, 2, 601, dtype=torch.float64)
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for b, tau, origin in CURVES:
        label = f"b = {b}, τ = {tau} ({origin})"
        (line,) = axes.plot(margin.numpy(), order_weight(margin, b, tau).numpy(), label=label)
        axes.plot([b], [0.5], "o", color=line.get_color())
    axes.axvline(0, color="0.7", linewidth=0.8, zorder=0)
    axes.set_xlabel("margin ΔS = S(better) - S(worse), in model units")
    axes.set_ylabel("weight of the pair in step 1")
    axes.annotate("wrong order", (-0.5, 0.06), ha="center", color="0.4")
    axes.annotate("right order", (1.3, 0.06), ha="center", color="0.4")
    axes.legend(loc="upper right")
    save_figure(figure, path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw to the file named on the command line."""
    parser = argparse.ArgumentParser(description="The weight of step 1 over the margin")
    parser.add_argument("path", type=Path, help="file to write, .svg or .png")
    draw(parser.parse_args(arguments).path)


if __name__ == "__main__":
    main()
