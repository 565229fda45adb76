"""Evaluation reports as plain values and as a file."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

from stablepref.evaluation.agreement import TIE_RULES
from stablepref.evaluation.compare import compare_reports
from stablepref.output.durable import replacing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from stablepref.evaluation.calibration import Reliability
    from stablepref.evaluation.means import GroupMean, Interval
    from stablepref.evaluation.measures import Disturbed, Measures


def report_dict(report: Measures, *, scores: bool) -> dict[str, object]:
    """A report as plain values for JSON; what is not a number, as a mean over nothing, is None.

    Args:
        report: The measures.
        scores: Whether to add every image's scores, row by row.
    """
    found: dict[str, object] = {
        "model": report.model,
        "unit": report.unit,
        "tie_rule": report.tie_rule,
        "tie_margin": report.tie_margin,
        "mirror_sided": report.mirror_sided,
        "groups": len(report.groups),
        "prompts": len(set(report.prompts)),
        "images": sum(len(group.images) for group in report.groups),
        "pairs": report.pairs,
        "ties": report.ties,
        "accuracy": _mean(report.pairwise),
        "accuracy_by_rule": {rule: _mean(report.by_rule(rule)) for rule in TIE_RULES},
        "kendall_tau": _mean(report.kendall_tau),
        "spearman": _mean(report.spearman),
        "top1": _mean(report.top1),
        "calibration": _reliability(report.calibration),
        "calibration_single": _reliability(report.calibration_single),
        "calibration_note": report.note,
        "accuracy_by_agreement": [
            {"above": b.above, "up_to": b.up_to, "accuracy": _mean(b.accuracy)}
            for b in report.by_agreement
        ],
        "human_agreement": {name: _mean(mean) for name, mean in report.human.items()},
        "perturbations": [_disturbed(row) for row in report.disturbed],
        "excluded_images": [image._asdict() for image in report.excluded],
        "excluded_groups": len(report.scored) - len(report.groups),
    }
    if scores:
        found["score_rows"] = ["as it is", *report.perturbations]
        found["scores"] = [group.row() for group in report.scored]
    return found


def reports_dict(reports: Sequence[Measures], *, scores: bool) -> dict[str, object]:
    """Several scorers on the same data: all reports, and each scorer beside the first.

    Raises:
        ValueError: As `stablepref.evaluation.compare.compare_reports`.
    """
    beside = [
        {
            "model": pair.model,
            "to": pair.to,
            "accuracy_difference": _interval(pair.difference),
            "opposite_order": _mean(pair.opposite),
            "pearson": _finite(pair.pearson),
            "spearman": _finite(pair.spearman),
        }
        for pair in compare_reports(reports)
    ]
    return {
        "models": [report_dict(report, scores=scores) for report in reports],
        "compared": beside,
    }


def save_reports(path: Path, reports: Sequence[Measures]) -> None:
    """Write reports with all scores as JSON; the file appears whole or not at all.

    Raises:
        ValueError: As `reports_dict`.
        OSError: It cannot be written.
    """
    text = json.dumps(reports_dict(reports, scores=True), allow_nan=False)
    with replacing(path) as staging:
        staging.write_text(text + "\n", encoding="utf-8")


def _disturbed(row: Disturbed) -> dict[str, object]:
    return {
        "name": row.name,
        "accuracy": _mean(row.accuracy),
        "before": _mean(row.before),
        "change": _interval(row.change),
        "flips": _mean(row.flips),
        "groups_left_out": row.left_out,
    }


def _mean(mean: GroupMean) -> dict[str, object]:
    return _interval(mean.interval()) | {"count": mean.count, "groups": mean.groups}


def _interval(interval: Interval) -> dict[str, object]:
    return {name: _finite(value) for name, value in interval._asdict().items()}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _reliability(found: Reliability | None) -> dict[str, object] | None:
    if found is None:
        return None
    return found._asdict() | {"bins": [point._asdict() for point in found.bins]}
