"""The figure of the calibration: agreement over noise, and the sizes of majorities."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stablepref.output.figures import save_figure

from .settings import SETTINGS

_BAR = 0.4


def draw_calibration(
    path: Path,
    curves: Mapping[str, Mapping[float, float]],
    in_use: Mapping[str, float],
    majorities: Mapping[str, Mapping[float, float]],
) -> None:
    """Write the figure; equal inputs give equal bytes in SVG.

    Args:
        path: File to write, .svg or .png.
        curves: For each setting, agreement by noise.
        in_use: For each setting, agreement at its own noise.
        majorities: By name, the share of image pairs by the size of the majority among ten people.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_curves(left, curves, in_use)
    _draw_majorities(right, majorities)
    save_figure(figure, path)


def _draw_curves(
    axes: Axes, curves: Mapping[str, Mapping[float, float]], in_use: Mapping[str, float]
) -> None:
    for name, curve in curves.items():
        setting = SETTINGS[name]
        levels = sorted(curve)
        (line,) = axes.plot(levels, [100 * curve[level] for level in levels], ".-", label=name)
        axes.axhline(100 * setting.target, color=line.get_color(), linewidth=0.8, linestyle=":")
        axes.plot([setting.noise], [100 * in_use[name]], "o", color=line.get_color())
    axes.set_xlabel("noise, in units of utility")
    axes.set_ylabel("single person against single, %")
    axes.legend(title="setting (dot: in use; dotted: target)", title_fontsize="small")


def _draw_majorities(axes: Axes, majorities: Mapping[str, Mapping[float, float]]) -> None:
    for number, (name, shares) in enumerate(majorities.items()):
        people = [10 * size + _BAR * (number - (len(majorities) - 1) / 2) for size in shares]
        axes.bar(people, [100 * share for share in shares.values()], _BAR, label=name)
    axes.set_xlabel("people of ten who agree on a pair of pictures")
    axes.set_ylabel("share of pairs, %")
    axes.legend()
