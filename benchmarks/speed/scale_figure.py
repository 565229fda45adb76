"""The figure of what more images cost: processor time, that of each further image, and memory."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from stablepref.output.figures import Figure, literal, save_figure

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["growth_figure", "save_figure"]

MARKERS: Final = "osD^v<>Pp"
MEGA, MILLI = 1e6, 1e-3


def growth_figure(ways: Mapping[str, Mapping[int, Mapping[str, float]]]) -> Figure:
    """Three plots over the number of images, a line for each way.

    Args:
        ways: For each way and number of images "cpu_seconds" and "peak_bytes", as
            `scale.run_way` measures them.
    """
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    total, each, memory = figure.subplots(1, 3)
    for (way, measured), marker in zip(ways.items(), MARKERS, strict=False):
        rows = sorted(measured.items())
        sizes = [size for size, _ in rows]
        style: dict[str, Any] = {
            "marker": marker,
            "markersize": 4,
            "linewidth": 1,
            "label": literal(way),
        }
        total.plot(sizes, [row["cpu_seconds"] for _, row in rows], **style)
        further = [
            (much["cpu_seconds"] - less["cpu_seconds"]) / (more - fewer) / MILLI
            for (fewer, less), (more, much) in pairwise(rows)
        ]
        each.plot(sizes[1:], further, **style)
        memory.plot(sizes, [row["peak_bytes"] / MEGA for _, row in rows], **style)
    for axes, title in (
        (total, "processor time, s"),
        (each, "of each further image, ms"),
        (memory, "largest memory, MB"),
    ):
        axes.set_xscale("log")
        axes.set_xlabel("images")
        axes.set_title(title, fontsize=10)
        axes.grid(visible=True, alpha=0.3)
    total.set_yscale("log")
    each.set_ylim(bottom=0)
    memory.set_ylim(bottom=0)
    total.legend(fontsize=7)
    return figure
