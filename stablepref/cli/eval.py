"""What `stablepref eval` does, once the command line is parsed."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, final

from stablepref.augment.perturbations import PERTURBATIONS, TABLE_1, UNSEEN
from stablepref.cli.score import Tally, log
from stablepref.data.groups import Exclusions
from stablepref.data.read import read_groups
from stablepref.evaluation.agreement import pairwise_accuracy
from stablepref.evaluation.evaluate import evaluate_through, partial_file
from stablepref.evaluation.serialize import reports_dict, save_reports
from stablepref.evaluation.tables import report_tables
from stablepref.output.results import check_input, check_place
from stablepref.output.tables import print_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from stablepref.cli.score import Options
    from stablepref.data.groups import RankedGroup
    from stablepref.evaluation.agreement import TieRule
    from stablepref.evaluation.report import EvaluationReport
    from stablepref.output.partial import PartialFile

SETS = {"none": (), "table1": TABLE_1, "unseen": UNSEEN}


@final
@dataclass(frozen=True)
class Data:
    """Where ranked groups are, as typed."""

    source: str
    format: str
    images: Path | None
    split: str | None

    def read(self, left_out: Exclusions) -> Iterable[RankedGroup]:
        """The groups; a list if their images are files, so that what is wrong shows at once.

        Raises:
            ValueError: As `read_groups`, or there is no group.
            OSError: As `read_groups`.
        """
        groups = read_groups(
            self.source,
            self.format,
            images=self.images,
            split=self.split,
            exclusions=left_out,
        )
        first = next(groups, None)
        if first is None:
            msg = f"{self.source} holds no ranked group"
            raise ValueError(msg)
        together = chain([first], groups)
        on_disk = all(isinstance(image, str | Path) for image in first.images)
        return list(together) if on_disk else together


def evaluate(
    data: Data,
    models: Sequence[Options],
    *,
    perturbations: str,
    tie_rule: TieRule,
    tie_margin: float,
    mirror_sided: bool,
    as_json: bool,
    out: Path | None,
    plots: Path | None,
) -> Tally:
    """Evaluate one model after the other on the same groups, print tables or JSON, and draw.

    Args:
        data: The groups.
        models: At least one.
        perturbations: Names of perturbations or of `SETS`, or "all", separated by commas.
        tie_rule: As in `stablepref.evaluate`.
        tie_margin: As in `stablepref.evaluate`.
        mirror_sided: As in `stablepref.evaluate`.
        as_json: Print JSON in place of tables.
        out: Write a JSON file with every score too; scores are kept beside it on the way.
        plots: Draw plots into this folder too.

    Raises:
        ValueError: What was typed is wrong, or as `stablepref.evaluate`.
        ImportError: `plots` needs a library that is not installed.
    """
    names = perturbation_names(perturbations)
    pairwise_accuracy([], [], tie_rule, tie_margin=tie_margin)
    if out is not None:
        if out.suffix.lower() != ".json":
            msg = f"--out {out}: expected a name that ends in .json"
            raise ValueError(msg)
        check_place("--out", out)
        check_input("--out", out, [data.source])
    if plots is not None and plots.exists() and not plots.is_dir():
        msg = f"--plots {plots}: expected a folder"
        raise ValueError(msg)
    draw = None if plots is None else import_module("stablepref.evaluation.plots").save_plots
    left_out = Exclusions()
    groups = data.read(left_out)
    reports: list[EvaluationReport] = []
    tally = Tally()
    for place, options in enumerate(models):
        if place and not isinstance(groups, list):
            left_out = Exclusions()
            groups = data.read(left_out)
        partial = None if out is None else partial_file(out, place)
        with _kept(partial):
            report = evaluate_through(
                partial,
                options.load(),
                groups,
                perturbations=names,
                tie_rule=tie_rule,
                tie_margin=tie_margin,
                mirror_sided=mirror_sided,
                batch_size=options.batch_size,
            )
        if any(other.model == report.model for other in reports):
            report = replace(report, model=f"{report.model} ({options.model})")
        _count(report, tally)
        reports.append(report)
    for reason, count in left_out.counts.items():
        log.print(f"{data.source}: left out {count} times: {reason}")
    if out is not None:
        save_reports(out, reports)
        for number in range(len(models)):
            partial_file(out, number).remove()
        log.print(f"wrote {out}")
    _show(reports, as_json=as_json)
    if draw is not None:
        for path in draw(reports, plots):
            log.print(f"wrote {path}")
    return tally


def perturbation_names(text: str) -> tuple[str, ...]:
    """Names out of a list with commas, in which "all" and names of `SETS` stand for several.

    Raises:
        ValueError: One is unknown; it names the known ones.
    """
    names: list[str] = []
    sets = SETS | {"all": tuple(PERTURBATIONS)}
    for part in (part.strip() for part in text.split(",")):
        if part not in sets and part not in PERTURBATIONS:
            known = ", ".join((*sets, *PERTURBATIONS))
            msg = f"--perturbations has {part!r}; expected some of: {known}"
            raise ValueError(msg)
        names += sets.get(part, (part,))
    return tuple(dict.fromkeys(names))


@contextmanager
def _kept(partial: PartialFile | None) -> Iterator[None]:
    """Say what an interruption leaves."""
    try:
        yield
    except KeyboardInterrupt:
        if partial is not None:
            log.print(
                f"{partial.kept()} groups are kept in {partial.path}: "
                "the same command goes on there"
            )
        raise


def _count(report: EvaluationReport, tally: Tally) -> None:
    """Name what could not be scored, and count it."""
    for image in report.excluded:
        log.print(str(image))
    tally.failed += len(report.excluded)
    tally.scored += sum(len(group.images) for group in report.scored) - len(report.excluded)


def _show(reports: Sequence[EvaluationReport], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(reports_dict(reports, scores=False), indent=1))
        return
    for table in report_tables(reports):
        print_table(table)
    for report in reports:
        if report.note:
            print(f"no calibration: {report.note}")
