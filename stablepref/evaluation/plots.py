"""Plots of evaluation reports. Needs matplotlib, which is in the extra ``bench``."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np

try:
    from matplotlib.figure import Figure
except ImportError as error:
    msg = "plots need matplotlib: pip install 'stablepref[bench]'"
    raise ImportError(msg) from error

from stablepref.evaluation.annotators import majority
from stablepref.output.figures import save_figure

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from stablepref.evaluation.correlations import Correlation
    from stablepref.evaluation.means import Array, Interval
    from stablepref.evaluation.measures import EvaluationReport

_LETTERS_PER_INCH = 13
_GREY = "0.55"
_HALF = 0.5
_MOST_LABELLED = 30


def save_plots(
    reports: Sequence[EvaluationReport], folder: Path, *, suffix: str = ".png"
) -> list[Path]:
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


def save_scatter(correlation: Correlation, path: Path, *, title: str | None = None) -> None:
    """Draw the first scorer against each other one; see `Correlation.save_plot`."""
    others = range(1, len(correlation.scorers))
    figure = Figure(figsize=(3.8 * len(others), 3.8), layout="constrained")
    for place in others:
        axes = figure.add_subplot(1, len(others), place)
        x, y = correlation.points[[place, 0]]
        labelled = len(correlation.labels) <= _MOST_LABELLED
        axes.scatter(x, y, s=16 if labelled and correlation.labels else 6, alpha=0.7, linewidths=0)
        for label, *at in zip(correlation.labels if labelled else (), x, y, strict=False):
            axes.annotate(label, (*at,), fontsize=6, xytext=(3, 3), textcoords="offset points")
        axes.margins(x=0.15)  # room for the labels
        axes.set_xlabel(correlation.scorers[place])
        axes.set_ylabel(correlation.scorers[0])
        r, rho = correlation.pearson[0, place], correlation.spearman[0, place]
        axes.set_title(f"Pearson {r:.2f}, Spearman {rho:.2f}", fontsize="medium")
    if title is not None:
        letters = int(_LETTERS_PER_INCH * figure.get_figwidth())
        figure.suptitle(textwrap.fill(title, letters), fontsize="medium")
    save_figure(figure, path)


def _reliability(reports: Sequence[EvaluationReport]) -> Figure:
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
                label = f"{report.model}, {kind}: error {100 * found.error:.1f} %"
                axes.plot(*points.T, style, markersize=4, label=label)
    axes.set_xlabel("stated probability of the preferred image, per cent")
    axes.set_ylabel("pairs on which people prefer it, per cent")
    axes.legend(fontsize="small")
    return figure


def _perturbations(reports: Sequence[EvaluationReport]) -> Figure:
    names = list(dict.fromkeys(name for report in reports for name in report.perturbations))
    height = 1.4 + len(names) * (0.2 + 0.14 * len(reports))
    figure = Figure(figsize=(7.2, height), layout="constrained")
    changes, flips = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    thick = 0.7 / len(reports)
    for place, report in enumerate(reports):
        at = np.array([names.index(name) for name in report.perturbations])
        at = at + (place - (len(reports) - 1) / 2) * thick
        value, error = _with_error([row.change for row in report.disturbed])
        label = f"{report.model}: {100 * report.accuracy:.1f} % as it is"
        changes.errorbar(value, at, xerr=error, fmt="o", markersize=4, capsize=2, label=label)
        shares = [100 * row.flips.value for row in report.disturbed]
        flips.barh(at, shares, height=0.8 * thick)
    changes.axvline(0, color=_GREY, linewidth=0.8, zorder=0)
    changes.set_yticks(range(len(names)), names)
    changes.invert_yaxis()
    changes.set_xlabel("change of accuracy, points,\nwith 95 % interval over prompts")
    flips.set_xlabel("pairs whose order\nflips, per cent")
    figure.legend(loc="outside upper center", fontsize="small", ncols=2)
    return figure


def _agreement(reports: Sequence[EvaluationReport]) -> Figure:
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.add_subplot()
    bins = reports[0].by_agreement
    at = np.arange(len(bins))
    axes.plot(at, _own_shares(reports[0]), color=_GREY, linestyle="--", label="the annotators")
    for place, report in enumerate(reports):
        shift = (place - (len(reports) - 1) / 2) * 0.1
        value, error = _with_error([b.accuracy.interval() for b in report.by_agreement])
        axes.errorbar(
            at + shift, value, error, fmt="o-", markersize=4, capsize=2, label=report.model
        )
    axes.axhline(100 * _HALF, color=_GREY, linewidth=0.8, zorder=0)
    ticks = [f"up to {100 * b.up_to:g} %\n{b.accuracy.count} pairs" for b in bins]
    axes.set_xticks(at, ticks, fontsize="small")
    axes.set_xlabel("annotators in the majority")
    axes.set_ylabel("accuracy against the majority, per cent")
    axes.legend(fontsize="small")
    return figure


def _own_shares(report: EvaluationReport) -> list[float]:
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
