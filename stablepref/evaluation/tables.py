"""Evaluation reports as tables: one row for each scorer, and what people reach among themselves."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from stablepref.evaluation.compare import compare_reports
from stablepref.evaluation.measures import TIE_RULES
from stablepref.output.tables import table_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stablepref.evaluation.means import Interval
    from stablepref.evaluation.measures import EvaluationReport


def report_tables(reports: Sequence[EvaluationReport]) -> list[Table]:
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


def report_lines(reports: Sequence[EvaluationReport]) -> list[str]:
    """The tables as lines of text."""
    lines: list[str] = []
    for table in report_tables(reports):
        lines += [*([""] if lines else []), *table_lines(table)]
    return lines


def _agreement(reports: Sequence[EvaluationReport]) -> Table:
    first = reports[0]
    margin = f", scores within {first.tie_margin:g} tied" if first.tie_margin else ""
    table = _table(
        f"Agreement with people, per cent: {len(first.groups)} prompts, {first.pairs} pairs and "
        f"{first.ties} ties; tie rule {first.tie_rule}{margin}",
        "accuracy",
        "95 % interval",
        "top-1",
        "Kendall's tau",
        "Spearman's rho",
        "calibration error",
    )
    for report in reports:
        value, interval = _with_interval(report.pairwise.interval())
        calibration = report.calibration
        table.add_row(
            report.model,
            value,
            interval,
            _percent(report.top1.value),
            _number(report.kendall_tau.value),
            _number(report.spearman.value),
            "-" if calibration is None else _percent(calibration.error),
        )
    for name, mean in first.human.items():
        value, interval = _with_interval(mean.interval())
        table.add_row(f"people: {name}", value, interval, *["-"] * 4)
    return table


def _rules(reports: Sequence[EvaluationReport]) -> Table:
    table = _table("Accuracy by tie rule, per cent", *TIE_RULES)
    for report in reports:
        cells = [_percent(report.by_rule(rule).value) for rule in TIE_RULES]
        table.add_row(report.model, *cells)
    return table


def _perturbations(reports: Sequence[EvaluationReport]) -> Table:
    table = _table(
        "Under disturbances, per cent: accuracy, its change, and pairs whose order flips",
        "disturbance",
        "accuracy",
        "change",
        "95 % interval",
        "flipped",
        "prompts left out",
    )
    for report in reports:
        table.add_row(report.model, "as it is", _percent(report.accuracy), *["-"] * 4)
        for row in report.disturbed:
            change, interval = _with_interval(row.change, signed=True)
            accuracy, flips = _percent(row.accuracy.value), _percent(row.flips.value)
            table.add_row("", row.name, accuracy, change, interval, flips, str(row.left_out))
            if row.left_out:
                table.caption = "changes are against the same prompts as they are\n"
    return table


def _majorities(reports: Sequence[EvaluationReport]) -> Table:
    bins = reports[0].by_agreement
    table = _table(
        "Accuracy by the size of the annotators' majority, per cent",
        *(f"up to {100 * b.up_to:g} %" for b in bins),
    )
    for report in reports:
        table.add_row(report.model, *(_percent(b.accuracy.value) for b in report.by_agreement))
    table.add_row("pairs", *(str(b.accuracy.count) for b in bins))
    return table


def _beside(reports: Sequence[EvaluationReport]) -> Table:
    table = _table(
        f"Beside {reports[0].model}, on the images that both scored",
        "accuracy difference",
        "95 % interval",
        "opposite choices",
        "Pearson",
        "Spearman",
    )
    for pair in compare_reports(reports):
        difference, interval = _with_interval(pair.difference, signed=True)
        opposite = _percent(pair.opposite.value)
        table.add_row(
            pair.model,
            difference,
            interval,
            opposite,
            _number(pair.pearson),
            _number(pair.spearman),
        )
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("", overflow="fold")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _with_interval(interval: Interval, *, signed: bool = False) -> tuple[str, str]:
    value, low, high = (_percent(x, signed=signed) for x in interval)
    return value, f"{low} to {high}"


def _percent(share: float, *, signed: bool = False) -> str:
    if math.isnan(share):
        return "-"
    return f"{100 * share:+.2f}" if signed else f"{100 * share:.2f}"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
