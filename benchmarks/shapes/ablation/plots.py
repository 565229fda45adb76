"""The ablations' figures: surfaces of rates and steps, and curves far past the optimum."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from stablepref.output.figures import save_figure

from .plan import START
from .statistics import spread
from .tables import title_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from stablepref.evaluation.means import Array

    from .cells import Result
    from .plan import Row

_RANGE: Final = 1e6
_BRIGHT: Final = 0.6
"""Share of the colour scale above which black text is easier to read."""


def draw_surfaces(path: Path, surfaces: Mapping[str, Sequence[Result]]) -> None:
    """Agreement with the truth over rates and steps, and the gradient's norm below it.

    Args:
        path: SVG file to write.
        surfaces: Tunings of each method on one setting, lowest rate first.
    """
    figure = Figure(figsize=(1 + 3.6 * len(surfaces), 6), layout="constrained")
    axes = figure.subplots(2, len(surfaces), squeeze=False, sharex=True, sharey=True)
    for row, (key, label, scale) in enumerate(
        (("oracle", "truth, % of validation pairs", 100), ("grad_norm", "gradient norm", 1))
    ):
        grids = {name: scale * _grid(results, key) for name, results in surfaces.items()}
        low = min(float(np.nanmin(grid)) for grid in grids.values())
        high = max(float(np.nanmax(grid)) for grid in grids.values())
        for column, (name, grid) in enumerate(grids.items()):
            one = axes[row][column]
            # Step 2's gradient may vanish, which a logarithm cannot show.
            logarithmic = key == "grad_norm" and high > 0
            norm = (
                LogNorm(max(low, high / _RANGE), high, clip=True)
                if logarithmic
                else Normalize(low, high)
            )
            image = one.imshow(grid, norm=norm, cmap="cividis", origin="lower", aspect="auto")
            for (y, x), value in np.ndenumerate(grid):
                if not np.isnan(value):
                    colour = "black" if norm(value) > _BRIGHT else "white"
                    style = {"ha": "center", "va": "center", "fontsize": 6, "color": colour}
                    one.text(x, y, f"{value:.3g}", **style)
            _label(one, surfaces[name], title=title_of(name) if row == 0 else "")
        figure.colorbar(image, ax=list(axes[row]), label=label)
    for one in axes[1]:
        one.set_xlabel("step")
    for one in axes[:, 0]:
        one.set_ylabel("peak of the learning rate")
    save_figure(figure, path)


def draw_overfitting(path: Path, rows: Mapping[str, Sequence[Row]]) -> None:
    """Agreement with the truth on test groups, and with the training pairs, over the steps.

    Args:
        path: SVG file to write.
        rows: Long trainings of each setting; bands are one standard deviation over seeds.
    """
    figure = Figure(figsize=(4.8 * len(rows), 4), layout="constrained")
    axes = figure.subplots(1, len(rows), squeeze=False)[0]
    for one, (setting, some) in zip(axes, rows.items(), strict=True):
        for number, row in enumerate(each for each in some if each.method != START):
            for names, style, what in (
                ((setting, "oracle"), "-", "truth, test"),
                (("fit",), ":", "people, training pairs"),
            ):
                steps = row.results[0].cell.tested
                found = [spread([r.tested(s, *names) for r in row.results]) for s in steps]
                mean, deviation = (
                    100 * np.array([getattr(each, part) for each in found])
                    for part in ("mean", "deviation")
                )
                label, colour = f"{title_of(row.method)}: {what}", f"C{number}"
                one.plot(steps, mean, style, color=colour, label=label)
                one.fill_between(
                    steps, mean - deviation, mean + deviation, color=colour, alpha=0.15, linewidth=0
                )
        one.set_xscale("symlog", linthresh=max(1, min(s for s in steps if s)))
        one.set_xlabel("training steps")
        one.set_ylabel("pairs in the right order, %")
        one.set_title(f"{setting}, {some[0].results[0].cell.model}")
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", fontsize="small", ncols=2
    )
    save_figure(figure, path)


def _grid(results: Sequence[Result], key: str) -> Array:
    """Values `(rates, steps)`, NaN after a training had diverged."""
    steps = max(len(result.watched) for result in results)
    grid = np.full((len(results), steps), np.nan)
    for place, result in enumerate(results):
        values = [row[key] for row in result.watched]
        grid[place, : len(values)] = values
    return grid


def _label(axes: Axes, results: Sequence[Result], *, title: str) -> None:
    steps = [int(row["step"]) for row in max((r.watched for r in results), key=len)]
    axes.set_xticks(range(len(steps)), map(str, steps), fontsize="small", rotation=45)
    rates = [f"{result.cell.config.learning_rate:g}" for result in results]
    axes.set_yticks(range(len(rates)), rates, fontsize="small")
    axes.set_title(title)
