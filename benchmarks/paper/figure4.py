"""Figure 4: the weight of step 1 over the margin, by the paper's formula and by the library."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import torch

from stablepref.losses import order_weight
from stablepref.recipes import TrainConfig

from .numbers import FIGURE_4, Published
from .table import Ours, PaperCell, PaperRow, PaperTable

if TYPE_CHECKING:
    from pathlib import Path

MARGINS: Final = (-0.5, -0.1, 0.0, 0.1, 0.2, 0.3, 0.5)
"""ΔS at which the table has the weight, in units of the score."""


def figure4(*, picture: Path | None = None) -> PaperTable:
    """The weight at some margins, and the curve.

    Args:
        picture: File to draw, .png or .svg; None draws nothing.

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
        # Drawing needs an extra.
        from .figure4_command import draw  # noqa: PLC0415

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
            "the paper's column is its formula, 1 / (1 + exp((ΔS - b) / τ)), as the figure prints "
            "no numbers",
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
