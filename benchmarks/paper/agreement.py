"""Tables 1 to 5: agreement with people of models, of other people, or of the ablations' models."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, final

from stablepref import zoo
from stablepref.evaluation.annotators import single_vs_rest, single_vs_single
from stablepref.evaluation.evaluate import evaluate_through
from stablepref.models.catalog import BY_NAME
from stablepref.output.partial import PartialFile
from stablepref.weights.hub import UnavailableError

from ..bench.judges import knows_shapes_only
from .ablations import COMMAND
from .data import OFFICIAL, Split
from .numbers import SINGLE
from .sources import needs, titled
from .table import (
    Ours,
    PaperCell,
    PaperRow,
    PaperTable,
    of_interval,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stablepref.cli.options import ScorerOptions
    from stablepref.evaluation.report import EvaluationReport
    from stablepref.scorer import Scorer

    from .ablations import Ablations
    from .layouts import Layout, Line, Measure
    from .methods import Method
    from .sources import Sources

_FLIPPED: Final = "hflip+"


def agreement_table(layout: Layout, sources: Sources) -> PaperTable:
    """Measure all rows of a table for which there are data and a model.

    Raises:
        ValueError: The model given for a row cannot be loaded, or the groups cannot be evaluated.
        ResumeError: Scores of an earlier run are of other weights or data.
        OSError: Scores cannot be written.
    """
    measuring = _Measuring(layout, sources)
    for line in layout.lines:
        measuring.measure(line)
    rows = tuple(
        PaperRow(
            line.labels,
            tuple(
                PaperCell(published, measuring.cell(line, measure))
                for published, measure in zip(line.published, line.measures, strict=True)
            ),
        )
        for line in layout.lines
    )
    return PaperTable(
        name=layout.name,
        title=_title(layout, sources, measuring.foreign),
        laboratory=sources.laboratory or any(map(knows_shapes_only, measuring.foreign.values())),
        labels=layout.labels,
        columns=layout.columns,
        rows=rows,
        unit="per cent of pairs, with 95 % intervals over prompts",
        notes=(*layout.notes, *_notes(layout, sources)),
        needs=needs(layout, sources),
        failed=measuring.failed,
        scored=measuring.scored,
    )


@final
class _Measuring:
    """Reports of a table's models, each loaded once."""

    def __init__(self, layout: Layout, sources: Sources) -> None:
        self.foreign: dict[str, str] = {}
        """Names of models whose architecture is not the row's, by the row's key."""
        self.scored = self.failed = 0
        self._layout, self._sources = layout, sources
        self._reports: dict[tuple[str, str], EvaluationReport | str] = {}

    def measure(self, line: Line) -> None:
        """Evaluate a row's model on all data that its rows need, once for each model."""
        method = line.method
        if method is None or any(who == line.who for who, _ in self._reports):
            return
        datasets = [
            dataset
            for dataset in self._layout.datasets
            if any(
                measure.dataset == dataset
                for other in self._layout.lines
                if other.who == line.who
                for measure in other.measures
            )
        ]
        chosen = self._sources.weights(method)
        for dataset in datasets:
            split = self._sources.splits[dataset]
            if isinstance(split, str):
                self._reports[line.who, dataset] = split
                continue
            lost = split.missing() == split.images()
            reasons = [f"none of {dataset}'s images exists"] * lost
            if isinstance(chosen, str):
                reasons.append(chosen)
            elif not lost:
                self._reports[line.who, dataset] = self._evaluated(line, method, chosen, split)
                continue
            self._reports[line.who, dataset] = "; ".join(reasons)
        zoo.load.cache_clear()  # frees this model's memory for the next one

    def _evaluated(
        self, line: Line, method: Method, chosen: ScorerOptions, split: Split
    ) -> EvaluationReport | str:
        try:
            scorer = chosen.load()
        except UnavailableError as error:
            return str(error)
        if not _has_architecture(scorer, method.base):
            self.foreign[line.who] = scorer.name
        partial = None
        if self._sources.scores is not None:
            self._sources.scores.mkdir(parents=True, exist_ok=True)
            name = f"{self._layout.name}-{OFFICIAL[split.dataset].setting}-{line.who}.partial"
            partial = PartialFile(self._sources.scores / name)
        report = evaluate_through(
            partial,
            scorer,
            split.groups,
            perturbations=[
                _perturbation(name, split) for name in self._layout.perturbations(split.dataset)
            ],
            tie_rule=split.rule,
            mirror_sided=not split.laboratory,
            batch_size=self._sources.batch_size,
        )
        self.failed += len(report.excluded)
        self.scored += sum(len(group.images) for group in report.groups)
        return report

    def cell(self, line: Line, measure: Measure) -> Ours | str:
        """One number, or the reason why there is none."""
        split = self._sources.splits[measure.dataset]
        if line.method is None:
            return split if isinstance(split, str) else _people(line.who, split)
        ablations = self._sources.ablations
        if ablations is not None and line.who not in self._sources.models:
            return _of_ablations(ablations, line.method, measure)
        report = self._reports[line.who, measure.dataset]
        if isinstance(split, str):
            return split
        if isinstance(report, str):
            return report
        note = self._note(line, report)
        if measure.perturbation is None:
            return of_interval(report.pairwise.interval(), scale=100, note=note)
        name = _perturbation(measure.perturbation, split)
        (row,) = (row for row in report.disturbed if row.name == name)
        change = row.change
        return replace(
            of_interval(row.accuracy.interval(), scale=100, note=note),
            change=100 * change.value,
            change_low=100 * change.low,
            change_high=100 * change.high,
        )

    def _note(self, line: Line, report: EvaluationReport) -> str:
        parts = []
        if line.who in self._sources.models or line.who in self.foreign:
            parts.append(f"weights: {report.model}")
        if report.excluded:
            parts.append(f"{len(report.excluded)} images could not be scored")
        return "; ".join(parts)


def _of_ablations(ablations: Ablations, method: Method, measure: Measure) -> Ours | str:
    if method.standin is None:
        return "the laboratory has no counterpart"
    setting = OFFICIAL[measure.dataset].setting
    if measure.perturbation is None:
        return ablations.accuracy(method.standin, setting)
    name = measure.perturbation.removeprefix(_FLIPPED)
    return ablations.disturbed(method.standin, setting, name)


def _people(who: str, split: Split) -> Ours | str:
    """How well people agree with each other, by `stablepref.evaluation.annotators`."""
    annotated = [group for group in split.groups if len(group.annotations) > 1]
    if not annotated:
        return f"{split.description} has one ranking of each prompt, not those of single people"
    agreement = single_vs_single if who == SINGLE else single_vs_rest
    note = "simulated annotators" if split.laboratory else ""
    mean = agreement([group.annotations for group in annotated])
    interval = mean.by_prompt([group.prompt for group in annotated]).interval()
    return of_interval(interval, scale=100, note=note)


def _perturbation(name: str, split: Split) -> str:
    """A perturbation, in the laboratory without its flip: mirroring makes "left of" wrong."""
    return name.removeprefix(_FLIPPED) if split.laboratory else name


def _has_architecture(scorer: Scorer, base: str) -> bool:
    config = scorer.config()
    found = config.get("backbone", config)
    return all(found.get(name) == value for name, value in BY_NAME[base].sizes.items())


def _title(layout: Layout, sources: Sources, foreign: Mapping[str, str]) -> str:
    if sources.laboratory:
        return titled(layout.title, laboratory=True)
    data = [one.description for one in sources.splits.values() if isinstance(one, Split)]
    title = f"{layout.title}; {', '.join(data)}"
    if foreign:
        which = ", ".join(f"{name} for {key}" for key, name in foreign.items())
        title += f"; not the paper's models: {which}"
    return title


def _notes(layout: Layout, sources: Sources) -> tuple[str, ...]:
    """How our numbers were measured."""
    notes = []
    if sources.laboratory:
        kinds = ", ".join(
            split.description for split in sources.splits.values() if isinstance(split, Split)
        )
        notes.append(
            f"ours: {kinds}; models that know coloured shapes, and simulated annotators. None of "
            "it is human preference, and none of it can be compared with the paper's column"
        )
        if layout.perturbations(layout.datasets[0]):
            notes.append("ours: crops without the flips, which make the prompts' sides wrong")
        if sources.ablations is None:
            notes.append(f"`{COMMAND}` makes the folder for --ablations")
    else:
        rules = {s.dataset: s.rule for s in sources.splits.values() if isinstance(s, Split)}
        listed = ", ".join(f"{rule} on {dataset}" for dataset, rule in rules.items())
        notes.append(f"ours: ties by the rules of the data sets' own code ({listed})")
        if layout.perturbations(layout.datasets[0]):
            notes.append("ours: all prompts are mirrored, also those that name a side")
    return tuple(notes)
