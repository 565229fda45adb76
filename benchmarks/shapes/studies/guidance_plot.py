"""The figure of guidance: reward and the oracle's judgement over its scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from stablepref.output.figures import save_figure

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from ..evaluate import Accuracy
    from .guidance import Point


def draw_guidance_curve(path: Path, points: Sequence[Point]) -> None:
    """Write the figure.

    Args:
        path: PNG file to write.
        points: the pipeline alone, then those of each scale without and with views.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    alone, *guided = points
    for views in sorted({point.setting.views for point in guided}):
        line = [alone, *(point for point in guided if point.setting.views == views)]
        name = f"guided by {views} views" if views else "guided by the picture alone"
        scales = [point.setting.scale for point in line]
        colour = f"C{int(views > 0)}"
        _draw(left, scales, [p.gains["reward"] for p in line], colour, "-", name)
        _draw(left, scales, [p.gains["robust"] for p in line], colour, ":", f"{name}; over views")
        _draw(right, scales, [p.values["correct"] for p in line], colour, "-", name, factor=100)
    left.set_ylabel("reward, gain over the pipeline alone")
    right.set_ylabel("fully correct by the oracle, %")
    right.set_ylim(bottom=0)
    for axes in (left, right):
        axes.set_xlabel("scale of the guidance")
        axes.legend(fontsize="small")
    save_figure(figure, path)


def _draw(
    axes: Axes,
    scales: Sequence[float],
    means: Sequence[Accuracy],
    colour: str,
    style: str,
    name: str,
    *,
    factor: float = 1.0,
) -> None:
    """A line with its 95 % intervals."""
    values = [factor * mean.value for mean in means]
    below = [factor * (mean.value - mean.low) for mean in means]
    above = [factor * (mean.high - mean.value) for mean in means]
    axes.errorbar(
        scales, values, yerr=[below, above], color=colour, linestyle=style, label=name, capsize=2
    )
