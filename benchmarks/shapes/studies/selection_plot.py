"""The figure of selection: what the best of n candidates is worth, over n."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter

from stablepref.output.figures import save_figure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from ..evaluate import Accuracy


def draw_selection(
    path: Path,
    sizes: Sequence[int],
    rewards: Mapping[str, Sequence[Accuracy]],
    correct: Mapping[str, Sequence[Accuracy]],
) -> None:
    """Write the figure.

    Args:
        path: PNG file to write.
        sizes: each n.
        rewards: by scorer, the score of its choice in standard deviations of a candidate.
        correct: by scorer, the share of its choices that is fully correct.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    colours = {name: f"C{place}" for place, name in enumerate(correct)}
    for name, means in rewards.items():
        _draw(left, sizes, means, name, colours[name])
    for name, means in correct.items():
        _draw(right, sizes, means, name, colours[name], factor=100)
    left.set_ylabel("score of the choice, standard deviations")
    right.set_ylabel("choices fully correct by the oracle, %")
    right.set_ylim(bottom=0)
    for axes in (left, right):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
        axes.set_xlabel("candidates")
    right.legend(title="chosen by", fontsize="small")
    save_figure(figure, path)


def _draw(
    axes: Axes,
    sizes: Sequence[int],
    means: Sequence[Accuracy],
    name: str,
    colour: str,
    *,
    factor: float = 1.0,
) -> None:
    """A line in its band of 95 % intervals."""
    axes.plot(sizes, [factor * mean.value for mean in means], color=colour, label=name)
    low, high = ([factor * getattr(mean, end) for mean in means] for end in ("low", "high"))
    axes.fill_between(sizes, low, high, color=colour, alpha=0.15, linewidth=0)
