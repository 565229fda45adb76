"""Finds the noise at which simulated people agree as much as real ones do.

Run ``python -m stablepref.benchmarks.shapes.people.calibrate --plot FILE.svg``. Needs the extra
``bench``. Groups of nine pictures are ranked by ten people each, and agreement is measured as it is
on real data, by `stablepref.evaluation.annotators.single_vs_single`. Nothing is drawn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, final

import numpy as np
import typer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.progress import track
from scipy.optimize import brentq

from stablepref.data.read import read_groups
from stablepref.evaluation.agreement import pair_signs, pairwise_accuracy
from stablepref.evaluation.annotators import majority_shares, single_vs_rest, single_vs_single
from stablepref.evaluation.means import Array, GroupMean
from stablepref.output.figures import save_figure
from stablepref.output.tables import Table, print_table

from ..world.commands import JsonOption, write_json
from .annotators import annotate, draw_tastes
from .collect import collect
from .settings import SETTINGS, Setting
from .utility import true_utility

IMAGES = 9
ANNOTATORS = 10
CURVE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.4)
_NOISES = (0.05, 5.0)
_BAR = 0.4
"""Width of a bar, in tens of per cent of people."""
_TITLES = {
    "noise": "noise",
    "grid": "grid",
    "single": "one person and another, %",
    "low": "95 % interval, from",
    "high": "to",
    "rest": "one and the mean of the others, %",
    "tied": "pairs that a person ties, %",
    "one_truth": "one and the truth, %",
    "ten_truth": "mean of ten and the truth, %",
}
_FINEST, _WIDEST = 1e-3, 20.0


@final
@dataclass(frozen=True)
class Calibration:
    """What was found for one setting.

    Attributes:
        noise: At which agreement meets the setting's target.
        grid: At which as many pairs are tied as the setting says.
        annotations: People's ranks of each group, at that noise and grid.
    """

    noise: float
    grid: float
    annotations: list[Array]


def collect_terms(setting: Setting, *, groups: int, seed: int) -> list[Array]:
    """Terms of the utilities of nine pictures for each test prompt, ``(9, terms)`` each."""
    collected = collect(setting, split="test", seed=seed, size=IMAGES)
    return [group.terms() for group in islice(collected, groups)]


def simulate(
    setting: Setting, terms: Sequence[Array], *, noise: float, grid: float, seed: int
) -> list[Array]:
    """Ranks of each group by ten people who see no other.

    Equal seeds draw equal people and equal numbers behind their noise, whatever its scale.

    Args:
        setting: Gives the tastes' spread and the lapses.
        terms: Of each group's utilities.
        noise: Replaces the setting's.
        grid: Replaces the setting's.
        seed: Of people and their noise.

    Returns:
        For each group the ranks, shape ``(10, images)``.
    """
    annotations = []
    for index, group in enumerate(terms):
        generator = np.random.default_rng([seed, index])
        tastes = draw_tastes(ANNOTATORS, spread=setting.spread, generator=generator)
        ranks = annotate(
            group, tastes, noise=noise, grid=grid, lapse=setting.lapse, generator=generator
        )
        annotations.append(ranks)
    return annotations


def agreement(annotations: Sequence[Array]) -> GroupMean:
    """Agreement of one person with another over the pairs that neither ties."""
    return single_vs_single(annotations, "skip")


def tied_share(annotations: Sequence[Array]) -> float:
    """Share of all pairs, over all people, that a person ties."""
    return float(np.mean(np.concatenate([pair_signs(ranks) == 0 for ranks in annotations], None)))


def at_noise(setting: Setting, terms: Sequence[Array], *, noise: float, seed: int) -> Calibration:
    """Ranks at one noise, with the grid at which people tie the setting's share of pairs."""

    def ranks(grid: float) -> list[Array]:
        return simulate(setting, terms, noise=noise, grid=grid, seed=seed)

    grid = 0.0
    if setting.tied:
        # Steps are in units of the noise: the widest spans all utilities however small that is.
        widest = _WIDEST * max(1.0, 1 / noise)
        found = brentq(lambda g: tied_share(ranks(g)) - setting.tied, _FINEST, widest, xtol=1e-3)
        grid = float(found)
    return Calibration(noise, grid, ranks(grid))


def calibrate(setting: Setting, terms: Sequence[Array], *, seed: int) -> Calibration:
    """Find the noise at which people agree on the setting's target.

    Args:
        setting: Gives everything but noise and grid.
        terms: Of each group's utilities, see `collect_terms`.
        seed: Of people and their noise.

    Returns:
        Noise and grid, to 0.001, and the ranks there.

    Raises:
        ValueError: If no noise from 0.05 to 5 gives the target.
    """

    def excess(noise: float) -> float:
        found = at_noise(setting, terms, noise=noise, seed=seed)
        return agreement(found.annotations).value - setting.target

    highest, lowest = (setting.target + excess(noise) for noise in _NOISES)
    if not lowest < setting.target < highest:
        raise ValueError(
            f"{setting.name}: for noise from {_NOISES[0]} to {_NOISES[1]} agreement falls from "
            f"{highest:.3f} to {lowest:.3f}, and the target is {setting.target:.3f}; change the "
            "generators, tastes or lapses"
        )
    noise = float(brentq(excess, *_NOISES, xtol=1e-3))
    return at_noise(setting, terms, noise=noise, seed=seed)


def curve(
    setting: Setting, terms: Sequence[Array], noises: Sequence[float], *, seed: int
) -> dict[float, float]:
    """Agreement by noise, each with the grid that belongs to it."""
    shown = track(noises, description=setting.name)
    found = {noise: at_noise(setting, terms, noise=noise, seed=seed) for noise in shown}
    return {noise: agreement(result.annotations).value for noise, result in found.items()}


def main(
    groups: Annotated[int, typer.Option(min=2, help="groups of nine pictures")] = 1000,
    seed: Annotated[int, typer.Option(help="seed of prompts, pictures and people")] = 0,
    gallery: Annotated[
        Path | None, typer.Option(help="real groups with single annotators' ranks, to compare")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="figure to draw, .svg or .png")] = None,
    out: JsonOption = None,
) -> None:
    """Find each setting's noise, print it with the one in use, and draw the curve."""
    results: dict[str, dict[str, float]] = {}
    curves: dict[str, dict[float, float]] = {}
    majorities: dict[str, dict[float, float]] = {}
    for name, setting in SETTINGS.items():
        terms = collect_terms(setting, groups=groups, seed=seed)
        ranks = simulate(setting, terms, noise=setting.noise, grid=setting.grid, seed=seed)
        results[f"{name}, found"] = measured(calibrate(setting, terms, seed=seed), terms)
        in_use = Calibration(setting.noise, setting.grid, ranks)
        results[f"{name}, in use"] = measured(in_use, terms)
        if not setting.tied:  # where people tie, a majority is not out of ten
            majorities[name] = majority_shares([list(group) for group in ranks])
        if plot is not None or out is not None:
            curves[name] = curve(setting, terms, CURVE, seed=seed)
    if gallery is not None:
        majorities["real"] = majority_shares([group.annotations for group in read_groups(gallery)])
    rows = []
    for measure, title in _TITLES.items():
        scale, digits = (1, 3) if measure in ("noise", "grid") else (100, 2)
        rows.append([title, *(f"{scale * r[measure]:.{digits}f}" for r in results.values())])
    print_table(Table(columns=("", *results), rows=rows, right=results))
    if out is not None:
        report = {"groups": groups, "seed": seed, "settings": results, "curves": curves}
        write_json(out, report | {"majorities": majorities})
    if plot is not None:
        used = {name: results[f"{name}, in use"]["single"] for name in SETTINGS}
        draw_calibration(plot, curves, used, majorities)


def measured(calibration: Calibration, terms: Sequence[Array]) -> dict[str, float]:
    """What people's ranks show: shares from 0 to 1, with noise and grid.

    Returns:
        ``single`` with its 95 % interval ``low`` to ``high``: see `agreement`. ``rest``: one person
        against the mean of the others. ``tied``: see `tied_share`. ``one_truth`` and
        ``ten_truth``: pairs of different utility that one person, and the mean of ten, put in the
        true order; ties count one half.
    """
    ranks = calibration.annotations
    value, low, high = agreement(ranks).interval()
    truth = [-true_utility(group) for group in terms]
    repeated = [order for order in truth for _ in range(ANNOTATORS)]
    one = pairwise_accuracy([-person for group in ranks for person in group], repeated)
    ten = pairwise_accuracy([-group.mean(axis=0) for group in ranks], truth)
    return {
        "noise": calibration.noise,
        "grid": calibration.grid,
        "single": value,
        "low": low,
        "high": high,
        "rest": single_vs_rest(ranks, "skip").value,
        "tied": tied_share(ranks),
        "one_truth": one.value,
        "ten_truth": ten.value,
    }


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
    for name, found in curves.items():
        setting = SETTINGS[name]
        levels = sorted(found)
        (line,) = axes.plot(levels, [100 * found[level] for level in levels], ".-", label=name)
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


if __name__ == "__main__":
    typer.run(main)
