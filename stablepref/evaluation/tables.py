"""Evaluation reports as tables: one row for each scorer, and what people reach among themselves."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from stablepref.evaluation.agreement import TIE_RULES
from stablepref.evaluation.compare import compare_reports
from stablepref.output.tables import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stablepref.evaluation.means import Interval
    from stablepref.evaluation.measures import Measures


def report_tables(reports: Sequence[Measures]) -> list[Table]:
    """All tables that the reports give; with several, each scorer is set beside the first.

    Raises:
        ValueError: As `stablepref.evaluation.compare.compare_reports`.
    """
    tables = [_agreement(reports), _rules(reports)]
    if any(report.perturbations for report in reports):
        tables.append(_perturbations(reports))
    if any(report.by_agreement for report in reports):
        tables.append(_majorities(reports))
    if len(reports) > 1:
        tables.append(_beside(reports))
    return tables


def report_lines(reports: Sequence[Measures]) -> list[str]:
    """The tables as lines of text."""
    lines: list[str] = []
    for table in report_tables(reports):
        lines += [*([""] if lines else []), *table.lines()]
    return lines


def _agreement(reports: Sequence[Measures]) -> Table:
    first = reports[0]
    margin = f", scores within {first.tie_margin:g} tied" if first.tie_margin else ""
    rows: list[list[str]] = []
    for report in reports:
        calibration = report.calibration
        rows.append(
            [
                report.model,
                *_with_interval(report.pairwise.interval()),
                _percent(report.top1.value),
                _number(report.kendall_tau.value),
                _number(report.spearman.value),
                "-" if calibration is None else _percent(calibration.error),
            ]
        )
    for name, mean in first.human.items():
        rows.append([f"people: {name}", *_with_interval(mean.interval()), *["-"] * 4])
    return _table(
        f"Agreement with people, per cent: {_prompts(first)}, {first.pairs} pairs and "
        f"{first.ties} ties; tie rule {first.tie_rule}{margin}",
        (
            "accuracy",
            "95 % interval",
            "top-1",
            "Kendall's tau",
            "Spearman's rho",
            "calibration error",
        ),
        rows,
    )


def _prompts(report: Measures) -> str:
    """How many there are; and how many groups, where some share a prompt."""
    prompts, groups = len(set(report.prompts)), len(report.groups)
    counted = "1 prompt" if prompts == 1 else f"{prompts} prompts"
    return counted if prompts == groups else f"{counted} in {groups} groups"


def _rules(reports: Sequence[Measures]) -> Table:
    rows = [
        [report.model, *(_percent(report.by_rule(rule).value) for rule in TIE_RULES)]
        for report in reports
    ]
    return _table("Accuracy by tie rule, per cent", TIE_RULES, rows)


def _perturbations(reports: Sequence[Measures]) -> Table:
    rows: list[list[str]] = []
    for report in reports:
        rows.append([report.model, "as it is", _percent(report.accuracy), *["-"] * 4])
        for row in report.disturbed:
            change, interval = _with_interval(row.change, signed=True)
            accuracy, flips = _percent(row.accuracy.value), _percent(row.flips.value)
            rows.append(["", row.name, accuracy, change, interval, flips, str(row.left_out)])
    left_out = any(row.left_out for report in reports for row in report.disturbed)
    return _table(
        "Under perturbations, per cent: accuracy, its change, and pairs whose order flips",
        ("perturbation", "accuracy", "change", "95 % interval", "flipped", "prompts left out"),
        rows,
        note="changes are against the same prompts as they are" if left_out else "",
    )


def _majorities(reports: Sequence[Measures]) -> Table:
    bins = reports[0].by_agreement
    rows = [
        [report.model, *(_percent(b.accuracy.value) for b in report.by_agreement)]
        for report in reports
    ]
    rows.append(["pairs", *(str(b.accuracy.count) for b in bins)])
    return _table(
        "Accuracy by the size of the annotators' majority, per cent",
        [f"up to {100 * b.up_to:g} %" for b in bins],
        rows,
    )


def _beside(reports: Sequence[Measures]) -> Table:
    rows = [
        [
            pair.model,
            *_with_interval(pair.difference, signed=True),
            _percent(pair.opposite.value),
            _number(pair.pearson),
            _number(pair.spearman),
        ]
        for pair in compare_reports(reports)
    ]
    return _table(
        f"Beside {reports[0].model}, on the images that both scored",
        ("accuracy difference", "95 % interval", "opposite choices", "Pearson", "Spearman"),
        rows,
    )


def _table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, note: str = ""
) -> Table:
    """A table whose first column names the scorer."""
    return Table(title=title, columns=("", *columns), rows=rows, right=columns, note=note)


def _with_interval(interval: Interval, *, signed: bool = False) -> tuple[str, str]:
    value, low, high = (_percent(x, signed=signed) for x in interval)
    return value, f"{low} to {high}"


def _percent(share: float, *, signed: bool = False) -> str:
    if math.isnan(share):
        return "-"
    return f"{100 * share:+.2f}" if signed else f"{100 * share:.2f}"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
