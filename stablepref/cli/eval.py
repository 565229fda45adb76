"""`stablepref eval`: how well models agree with people, and how stable their choices are."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, final

import typer

from stablepref.cli.ends import Tally, finish, say
from stablepref.cli.options import (
    FORMER_SCORER,
    GROUPS,
    AsJson,
    BatchSize,
    Device,
    Dtype,
    Format,
    ImageFolder,
    Like,
    ScorerOptions,
    Threads,
    check_folder,
    renamed_scorer,
)

if TYPE_CHECKING:
    from stablepref.data.groups import Exclusions, RankedGroup
    from stablepref.evaluation.report import EvaluationReport
    from stablepref.output.partial import PartialFile


class TieRule(StrEnum):
    """The rules of `stablepref.evaluation.agreement.pairwise_accuracy`."""

    HALF = "half"
    HPSV2 = "hpsv2"
    IMAGEREWARD = "imagereward"
    PICKSCORE = "pickscore"


@final
@dataclass(frozen=True)
class Data:
    """Where ranked groups are, as typed."""

    source: str
    format: str
    images: Path | None
    split: str | None

    def read(self, left_out: "Exclusions") -> "Iterable[RankedGroup]":
        """The groups; a list if their images are files, so that faults show at once.

        Raises:
            ValueError: As `read_groups`, or there is no group.
            OSError: As `read_groups`.
        """
        from stablepref.data.read import read_groups

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
    data: Annotated[str, typer.Argument(help=GROUPS)],
    scorer: Annotated[
        list[str] | None,
        typer.Option(
            "--scorer",
            "-s",
            help="The scorer, as for `score`; if given several times, each is compared with the "
            "first.",
            show_default="$STABLEPREF_MODEL, else hps-v2.1",
        ),
    ] = None,
    like: Like = None,
    device: Device = None,
    dtype: Dtype = None,
    batch_size: BatchSize = None,
    threads: Threads = None,
    data_format: Format = "auto",
    images: ImageFolder = None,
    split: Annotated[
        str | None, typer.Option(help="The split to evaluate on, if the data has several.")
    ] = None,
    perturbations: Annotated[
        str,
        typer.Option(
            help="Perturbations to measure stability under, separated by commas: table1 (mirrored "
            "and cropped, as in the paper), unseen (JPEG, blur, ...), all, none, or single names; "
            "installed packages can add more."
        ),
    ] = "table1",
    tie_rule: Annotated[
        TieRule,
        typer.Option(help="How ties count; the last three are the rules of official codes."),
    ] = TieRule.HALF,
    tie_margin: Annotated[
        float, typer.Option(min=0, help="Scores that differ by at most this much are tied.")
    ] = 0.0,
    mirror_sided: Annotated[
        bool,
        typer.Option(
            "--mirror-sided",
            help="Also mirror images whose prompt names left or right, as the paper does.",
        ),
    ] = False,
    as_json: AsJson = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Also write everything, with every score, to a .json file; if interrupted, run "
            "the same command again to resume."
        ),
    ] = None,
    plots: Annotated[Path | None, typer.Option(help="Also draw plots into this folder.")] = None,
    model: Annotated[list[str] | None, FORMER_SCORER] = None,
) -> None:
    """Measure how well models agree with people, and how stable their choices are."""
    models: list[str | None] = [*(renamed_scorer(scorer, model) or [])] or [None]
    scorers = [ScorerOptions(name, like, device, dtype, threads=threads) for name in models]

    from stablepref.evaluation.agreement import pairwise_accuracy

    where = Data(data, data_format, images, split)
    names = perturbation_names(perturbations)
    pairwise_accuracy([], [], tie_rule.value, tie_margin=tie_margin)  # refuses what is out of range
    if out is not None:
        _check_out(out, data)
    if plots is not None:
        check_folder("--plots", plots)

    from stablepref.data.groups import Exclusions
    from stablepref.output.locks import sole_writer

    reports: list[EvaluationReport] = []
    tally = Tally()
    with nullcontext() if out is None else sole_writer(out):
        left_out = Exclusions()
        groups = where.read(left_out)  # a mistake in the data's name needs no torch

        from stablepref.evaluation.evaluate import evaluate_through, partial_file
        from stablepref.evaluation.serialize import save_reports

        if plots is not None:  # before hours of work, as it may be missing
            from stablepref.evaluation.plots import save_plots

        for place, options in enumerate(scorers):
            if place and not isinstance(groups, list):
                left_out = Exclusions()
                groups = where.read(left_out)
            partial = None if out is None else partial_file(out, place)
            with _kept(partial):
                report = evaluate_through(
                    partial,
                    options.load(),
                    groups,
                    perturbations=names,
                    tie_rule=tie_rule.value,
                    tie_margin=tie_margin,
                    mirror_sided=mirror_sided,
                    batch_size=batch_size,
                )
            _count(report, tally)
            reports.append(report)
        reports = told_apart(reports, [options.name for options in scorers])
        for reason, count in left_out.counts.items():
            say(f"{data}: left out {count} times: {reason}")
        if out is not None:
            save_reports(out, reports)
            for number in range(len(scorers)):
                partial_file(out, number).remove()
            say(f"wrote {out}")
    _show(reports, as_json=as_json)
    if plots is not None:
        for path in save_plots(reports, plots):
            say(f"wrote {path}")
    finish(tally)


def perturbation_sets() -> dict[str, Iterable[str]]:
    """Names that stand for many perturbations, and for which."""
    from stablepref.augment.perturbations import PERTURBATIONS, TABLE_1, UNSEEN

    return {"none": (), "table1": TABLE_1, "unseen": UNSEEN, "all": PERTURBATIONS}


def perturbation_names(text: str) -> tuple[str, ...]:
    """Names of perturbations from a list with commas, in which a set's name stands for many.

    Args:
        text: As typed; also names of `perturbation_sets`.

    Raises:
        ValueError: One is unknown; the message lists those that are known.
    """
    from stablepref.augment.perturbations import PERTURBATIONS

    sets = perturbation_sets()
    names: list[str] = []
    for part in (part.strip() for part in text.split(",")):
        if part not in sets and part not in PERTURBATIONS:
            known = ", ".join((*sets, *PERTURBATIONS))
            msg = f"--perturbations has {part!r}; expected some of: {known}"
            raise ValueError(msg)
        names += sets.get(part, (part,))
    return tuple(dict.fromkeys(names))


def told_apart(
    reports: "Sequence[EvaluationReport]", typed: Sequence[str | None]
) -> "list[EvaluationReport]":
    """The reports; models that bear one name get what was typed for each of them beside it."""
    names = [report.model for report in reports]
    return [
        replace(report, model=f"{report.model} ({name})")
        if name is not None and names.count(report.model) > 1
        else report
        for report, name in zip(reports, typed, strict=True)
    ]


def _check_out(out: Path, source: str) -> None:
    from stablepref.output.results import check_input, check_place

    if out.suffix.lower() != ".json":
        msg = f"--out {out}: expected a name that ends in .json"
        raise ValueError(msg)
    check_place("--out", out)
    check_input("--out", out, [source])


@contextmanager
def _kept(partial: "PartialFile | None") -> Iterator[None]:
    """Say what an interruption leaves."""
    try:
        yield
    except KeyboardInterrupt:
        if partial is not None:
            say(
                f"{partial.kept()} groups are kept in {partial.path}: "
                "run the same command again to resume"
            )
        raise


def _count(report: "EvaluationReport", tally: Tally) -> None:
    """Name what could not be scored, and count it."""
    for image in report.excluded:
        say(str(image))
    tally.failed += len(report.excluded)
    tally.scored += sum(len(group.images) for group in report.scored) - len(report.excluded)


def _show(reports: "Sequence[EvaluationReport]", *, as_json: bool) -> None:
    from stablepref.evaluation.serialize import reports_dict
    from stablepref.evaluation.tables import report_tables
    from stablepref.output.tables import print_table

    if as_json:
        print(json.dumps(reports_dict(reports, scores=False), indent=1))
        return
    for table in report_tables(reports):
        print_table(table)
    for report in reports:
        if report.note:
            print(f"no calibration: {report.note}")
