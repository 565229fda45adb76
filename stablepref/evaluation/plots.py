"""Plots of evaluation reports. Needs matplotlib, which is in the extra ``bench``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stablepref.evaluation.annotators import majority
from stablepref.output.figures import Figure, literal, save_figure

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from stablepref.evaluation.means import Array, Interval
    from stablepref.evaluation.measures import Measures

_GREY = "0.55"


def save_plots(reports: Sequence[Measures], folder: Path, *, suffix: str = ".png") -> list[Path]:
    """Draw what the reports hold, all scorers in the same pictures.

    Args:
        reports: Of the same data.
        folder: Made if it is not there. ``reliability`` needs a scorer that states probabilities,
            ``agreement`` single annotators' ranks, and ``perturbations`` perturbations; what there
            is nothing for is not drawn.
        suffix: ``.png``, ``.svg`` or ``.pdf``.

    Returns:
        The files written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, draw, wanted in (
        ("reliability", _reliability, [r for r in reports if r.calibration is not None]),
        ("perturbations", _perturbations, [r for r in reports if r.perturbations]),
        ("agreement", _agreement, [r for r in reports if r.by_agreement]),
    ):
        if wanted:
            drawn.append(folder / f"{name}{suffix}")
            save_figure(draw(wanted), drawn[-1])
    return drawn


def _reliability(reports: Sequence[Measures]) -> Figure:
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([50, 100], [50, 100], color=_GREY, linestyle="--", label="as stated")
    for report in reports:
        for found, kind, style in (
            (report.calibration, "ranks", "o-"),
            (report.calibration_single, "single people", "s:"),
        ):
            if found is not None:
                points = 100 * np.array([point[:2] for point in found.bins])
                label = f"{literal(report.model)}, {kind}: error {100 * found.error:.1f} %"
                axes.plot(*points.T, style, markersize=4, label=label)
    axes.set_xlabel("stated probability of the preferred image, per cent")
    axes.set_ylabel("pairs on which people prefer it, per cent")
    axes.legend(fontsize="small")
    return figure


def _perturbations(reports: Sequence[Measures]) -> Figure:
    names = list(dict.fromkeys(name for report in reports for name in report.perturbations))
    height = 1.4 + len(names) * (0.2 + 0.14 * len(reports))
    figure = Figure(figsize=(7.2, height), layout="constrained")
    changes, flips = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    thick = 0.7 / len(reports)
    for place, report in enumerate(reports):
        at = np.array([names.index(name) for name in report.perturbations])
        at = at + (place - (len(reports) - 1) / 2) * thick
        value, error = _with_error([row.change for row in report.disturbed])
        label = f"{literal(report.model)}: {100 * report.accuracy:.1f} % as it is"
        changes.errorbar(value, at, xerr=error, fmt="o", markersize=4, capsize=2, label=label)
        shares = [100 * row.flips.value for row in report.disturbed]
        flips.barh(at, shares, height=0.8 * thick)
    changes.axvline(0, color=_GREY, linewidth=0.8, zorder=0)
    changes.set_yticks(range(len(names)), [literal(name) for name in names])
    changes.invert_yaxis()
    changes.set_xlabel("change of accuracy, points,\nwith 95 % interval over prompts")
    flips.set_xlabel("pairs whose order\nflips, per cent")
    figure.legend(loc="outside upper center", fontsize="small", ncols=2)
    return figure


def _agreement(reports: Sequence[Measures]) -> Figure:
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.add_subplot()
    bins = reports[0].by_agreement
    at = np.arange(len(bins))
    axes.plot(at, _own_shares(reports[0]), color=_GREY, linestyle="--", label="the annotators")
    for place, report in enumerate(reports):
        shift = (place - (len(reports) - 1) / 2) * 0.1
        value, error = _with_error([b.accuracy.interval() for b in report.by_agreement])
        axes.errorbar(
            at + shift, value, error, fmt="o-", markersize=4, capsize=2, label=literal(report.model)
        )
    axes.axhline(50, color=_GREY, linewidth=0.8, zorder=0)
    ticks = [f"up to {100 * b.up_to:g} %\n{b.accuracy.count} pairs" for b in bins]
    axes.set_xticks(at, ticks, fontsize="small")
    axes.set_xlabel("annotators in the majority")
    axes.set_ylabel("accuracy against the majority, per cent")
    axes.legend(fontsize="small")
    return figure


def _own_shares(report: Measures) -> list[float]:
    """Per cent of the annotators who are in the majority themselves, for each bin."""
    sizes = []
    for group in report.groups:
        if len(group.annotations) > 1:
            order, share = majority(group.annotations)
            sizes.append(share[order != 0])
    shares = np.concatenate(sizes)
    inside = [shares[(shares > b.above) & (shares <= b.up_to)] for b in report.by_agreement]
    return [100 * float(own.mean()) if own.size else float("nan") for own in inside]


def _with_error(intervals: Sequence[Interval]) -> tuple[Array, Array]:
    """Values in per cent, and how far the intervals reach below and above them."""
    value, low, high = 100 * np.array(intervals).T
    # An interval of resamples need not hold the value, and rounding can set it outside.
    return value, np.maximum([value - low, high - value], 0)
