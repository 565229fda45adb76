"""How well a scorer agrees with people, and how easily a harmless perturbation changes its mind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

from PIL.Image import Image

from stablepref.augment.perturbations import MIRRORING, TABLE_1, Perturbation, find_perturbation
from stablepref.data.groups import RankedGroup
from stablepref.evaluation.agreement import TieRule, pairwise_accuracy
from stablepref.evaluation.groups import PendingGroup, identity
from stablepref.evaluation.report import EvaluationReport
from stablepref.evaluation.scores import GroupScores
from stablepref.output.locks import sole_writer
from stablepref.output.partial import PartialFile, ResumeError
from stablepref.output.progress import progress_bar
from stablepref.scoring.batching import BatchLimit
from stablepref.weights.fingerprint import weights_digest

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from stablepref.evaluation.groups import ScoredGroup
    from stablepref.scorer import Scorer


Perturbations = Iterable[str | Perturbation] | Mapping[str, Callable[[Image], Image]]


class EvaluationOptions(TypedDict, total=False):
    """What is measured, and how.

    Attributes:
        perturbations: Names of `stablepref.augment.PERTURBATIONS`, which packages and
            `stablepref.augment.register_perturbation` add to; `Perturbation` objects; or a mapping
            of names to functions of your own. The rows of Table 1 of *Stable Preference* by
            default; without any, images are encoded once.
        tie_rule: What ties do in `EvaluationReport.accuracy`: "half" (the default), "hpsv2",
            "imagereward" or "pickscore"; see `stablepref.evaluation.agreement.pairwise_accuracy`.
        tie_margin: Scores that differ by at most this are tied; 0 by default.
        mirror_sided: Count perturbations that mirror for prompts that name a side too, as the paper
            does; by default such groups are left out of those rows.
        batch_size: Images encoded at once; None, the default, chooses. Halved when memory runs out.
        progress: Show a progress bar; None, the default, shows one on a terminal.
    """

    perturbations: Perturbations
    tie_rule: TieRule
    tie_margin: float
    mirror_sided: bool
    batch_size: int | None
    progress: bool | None


def evaluate(
    scorer: Scorer,
    groups: Iterable[RankedGroup],
    *,
    out: str | os.PathLike[str] | None = None,
    **options: Unpack[EvaluationOptions],
) -> EvaluationReport:
    """Measure a scorer's agreement with people, and how stable its choices are.

    Each image is decoded once, and encoded once for each perturbation, whatever is asked and
    however often it occurs. Groups stream: only a few batches of pixels are in memory. Nothing
    about the scorer changes, neither modes nor gradients nor random states.

    Args:
        scorer: The model.
        groups: Ranked groups, as from `stablepref.read_groups`; read once, lazily.
        out: Write the report with all scores to this JSON file. Until then each score is kept in
            `out`.partial, and after a kill the same call resumes from there.
        options: ``perturbations``, ``tie_rule``, ``tie_margin``, ``mirror_sided``, ``batch_size``
            and ``progress``; see `EvaluationOptions`.

    Returns:
        The report. Images that cannot be scored are listed in it, left out and never replaced.

    Raises:
        ValueError: If an argument is out of range, there is no group, or in no group two images
            could be scored.
        TypeError: If `groups` holds anything else than ranked groups, or `perturbations` anything
            else than perturbations.
        DataError: As the reader of the groups.
        ResumeError: If `out`.partial is of another model, other perturbations or other data.
        InUseError: If another process is writing `out`.
    """
    path = None if out is None else Path(out)
    if path is not None and not path.parent.is_dir():
        raise ValueError(f"out is {path}: there is no folder {path.parent}")
    if path is None:
        return evaluate_through(None, scorer, groups, **options)
    with sole_writer(path):
        partial = partial_file(path)
        report = evaluate_through(partial, scorer, groups, **options)
        report.save(path)
        partial.remove()
    return report


def evaluate_through(
    partial: PartialFile | None,
    scorer: Scorer,
    groups: Iterable[RankedGroup],
    *,
    perturbations: Perturbations = TABLE_1,
    tie_rule: TieRule = "half",
    tie_margin: float = 0.0,
    mirror_sided: bool = False,
    batch_size: int | None = None,
    progress: bool | None = None,
) -> EvaluationReport:
    """Evaluate, with scores in a partial file that is still there when the report is returned.

    The options are those of `EvaluationOptions`, and errors those of `evaluate`.

    Args:
        partial: Where scores are kept, and from which an interrupted run is resumed; None keeps
            none.
        scorer: The model.
        groups: Ranked groups.
        perturbations: What images are changed by.
        tie_rule: What ties do.
        tie_margin: Scores that differ by at most this are tied.
        mirror_sided: Whether perturbations that mirror count for prompts that name a side.
        batch_size: Images encoded at once.
        progress: Whether to show a progress bar.
    """
    chosen = _chosen(perturbations)
    pairwise_accuracy([], [], tie_rule, tie_margin=tie_margin)  # refuses what is out of range
    scores = GroupScores(scorer, chosen, BatchLimit.of(scorer, batch_size))
    total = sum(len(g.images) for g in _checked(groups)) if isinstance(groups, Sequence) else None
    scored: list[ScoredGroup] = []
    with progress_bar("evaluating", total=total, show=progress) as advance:
        for group in _scored(partial, scores, _checked(groups)):
            scored.append(group)
            advance(len(group.images))
    report = EvaluationReport(
        model=scorer.name,
        unit=scorer.unit,
        preference_scale=scorer.preference_scale,
        perturbations=tuple(chosen),
        scored=tuple(scored),
        tie_rule=tie_rule,
        tie_margin=tie_margin,
        mirror_sided=mirror_sided,
        mirroring=frozenset(name for name, one in chosen.items() if one.mirrors),
    )
    if not report.groups:
        bad = f"; the first that could not be: {report.excluded[0]}" if report.excluded else ""
        raise ValueError(f"no group of {len(scored)} has two images that could be scored{bad}")
    return report


def partial_file(out: Path, number: int = 0) -> PartialFile:
    """Where the scores for `out` are kept until it is written; `number` counts scorers from 0."""
    between = f".{number + 1}" if number else ""
    return PartialFile(out.with_name(f"{out.name}{between}.partial"))


def _scored(
    partial: PartialFile | None, scores: GroupScores, groups: Iterator[RankedGroup]
) -> Iterator[ScoredGroup]:
    """All groups with their scores: those of an interrupted run, then the rest."""
    pending = (
        (group, PendingGroup.of(group, number, scores.keys))
        for number, group in enumerate(groups, start=1)
    )
    if partial is None:
        yield from scores.stream(pending)
        return
    known: list[PendingGroup] = []

    def identities() -> Iterator[dict[str, object]]:
        for _, group in pending:
            known.append(group)
            yield identity(group)

    for row in partial.resume(_settings(scores), identities()):
        group = known.pop()
        try:
            done = group.restored(row, perturbations=len(scores.perturbations))
        except ValueError as error:
            raise ResumeError(
                f"{partial.path} is damaged: group {group.label}: {error}; delete it or choose "
                "another output"
            ) from error
        scores.remember(group, done)
        yield done
    with partial.writing() as write:
        for scored in scores.stream(pending):
            write(scored.row())
            yield scored


def _settings(scores: GroupScores) -> dict[str, object]:
    """What scores depend on, as far as can be found out quickly; plain JSON values."""
    scorer = scores.scorer
    return {
        "model": scorer.name,
        "weights": weights_digest(scorer),
        "dtype": str(scorer.dtype).removeprefix("torch."),
        "perturbations": list(scores.perturbations),
    }


def _chosen(perturbations: Perturbations) -> dict[str, Perturbation]:
    if isinstance(perturbations, str):
        raise ValueError(f"perturbations is a string, {perturbations!r}; expected several names")
    if isinstance(perturbations, Mapping):
        rows = [_named(name, value) for name, value in perturbations.items()]
    else:
        rows = [
            one if isinstance(one, Perturbation) else find_perturbation(one)
            for one in perturbations
        ]
    chosen: dict[str, Perturbation] = {}
    for row in rows:
        if chosen.setdefault(row.name, row) != row:
            raise ValueError(f"two of the perturbations are named {row.name!r}")
    return chosen


def _named(name: str, value: Callable[[Image], Image]) -> Perturbation:
    """A user's own function as a perturbation; the name of one that mirrors says that it does."""
    if not callable(value):
        raise TypeError(f"the perturbation {name!r} is {value!r}; expected a function of an image")
    if isinstance(value, Perturbation):
        return replace(value, name=name)
    return Perturbation(name, value, mirrors=name in MIRRORING)


def _checked(groups: Iterable[RankedGroup]) -> Iterator[RankedGroup]:
    if isinstance(groups, str | bytes | Mapping) or not isinstance(groups, Iterable):
        kind = type(groups).__name__
        raise TypeError(f"groups is a {kind}; expected ranked groups: stablepref.read_groups(path)")
    for group in groups:
        if not isinstance(group, RankedGroup):
            raise TypeError(f"groups holds a {type(group).__name__}; expected RankedGroup")
        yield group
