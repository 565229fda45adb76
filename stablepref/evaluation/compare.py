"""Scorers beside each other on the same data: what differs, and how surely."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from stablepref.evaluation.agreement import flip_share
from stablepref.evaluation.correlations import correlation
from stablepref.evaluation.groups import identity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stablepref.evaluation.correlations import Correlation
    from stablepref.evaluation.means import GroupMean, Interval
    from stablepref.evaluation.measures import Measures


Report = TypeVar("Report", bound="Measures")


class ReportPair(NamedTuple):
    """A scorer beside another on the images that both scored.

    Attributes:
        model: The scorer.
        to: The other.
        difference: Pairwise accuracy less the other's, with a paired bootstrap interval over
            prompts: both are computed on the same drawn prompts.
        opposite: Share of the pairs that people do not tie on which the two prefer different
            images; where only one of them ties a pair it counts one half.
        pearson: Pearson's r between their scores, each prompt's mean subtracted.
        spearman: Spearman's rho, likewise.
    """

    model: str
    to: str
    difference: Interval
    opposite: GroupMean
    pearson: float
    spearman: float


def compare_reports(reports: Sequence[Measures]) -> list[ReportPair]:
    """Each report after the first beside the first.

    Raises:
        ValueError: If the reports are not about the same groups in the same order, or have no two
            scored images in common.
    """
    aligned = align_reports(reports)
    return [_pair(report, aligned[0]) for report in aligned[1:]]


def align_reports(reports: Sequence[Report]) -> list[Report]:
    """The reports on those images that all of them scored.

    Raises:
        ValueError: If the reports are not about the same groups in the same order.
    """
    columns = []
    for number, groups in enumerate(zip(*(report.scored for report in reports), strict=False)):
        if any(identity(group) != identity(groups[0]) for group in groups):
            raise ValueError(f"the reports differ in group {number + 1}: evaluate the same data")
        errors = {index: why for group in groups for index, why in group.errors.items()}
        columns.append([replace(group, errors=errors) for group in groups])
    if any(len(report.scored) != len(columns) for report in reports):
        counts = ", ".join(str(len(report.scored)) for report in reports)
        raise ValueError(f"the reports are about {counts} groups: evaluate the same data")
    return [
        replace(report, scored=tuple(column[place] for column in columns))
        for place, report in enumerate(reports)
    ]


def correlate_reports(reports: Sequence[Measures]) -> Correlation:
    """Correlation between two or more scorers over all images that all scored, within prompts.

    Raises:
        ValueError: As `align_reports`, or if two scorers have the same name.
    """
    aligned = align_reports(reports)
    names = [report.model for report in aligned]
    if len(set(names)) < len(names):
        raise ValueError(f"scorers need names of their own, got {', '.join(names)}")
    prompts = [group.prompt for group in aligned[0].groups for _ in group.images]
    return correlation(
        {r.model: np.concatenate([g.scores[0] for g in r.groups] or [[]]) for r in aligned},
        prompts=prompts,
    )


def _pair(report: Measures, first: Measures) -> ReportPair:
    named = replace(report, model="own"), replace(first, model="other")
    found = correlate_reports(named)
    mine, theirs = ([group.scores[0] for group in r.groups] for r in (report, first))
    return ReportPair(
        model=report.model,
        to=first.model,
        difference=report.pairwise.difference(first.pairwise),
        opposite=flip_share(theirs, mine, [group.ranks for group in first.groups]).by_prompt(
            first.prompts
        ),
        pearson=float(found.pearson[0, 1]),
        spearman=float(found.spearman[0, 1]),
    )
