"""How steady annotators are, and how well they agree, from their single answers.

Of two answers to the same pictures, every pair of pictures counts. Two shares are given: that of
the pairs put in the *same order*, where a tie in either answer counts one half, as in
`stablepref.evaluation.annotators.single_vs_single`; and that of the pairs with the *same answer*,
where two ties agree. Intervals draw whole prompts, since pairs of one prompt share pictures.
"""

from __future__ import annotations

import itertools
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

import numpy as np

from stablepref.data.labels import first_answers, repeated_answers
from stablepref.evaluation.agreement import pair_signs
from stablepref.evaluation.annotators import single_vs_single
from stablepref.evaluation.means import BootstrapOptions, GroupMean
from stablepref.output.tables import Table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Unpack

    from stablepref.data.groups import Ranks
    from stablepref.data.labels import Label

WITHIN: Final = "with themselves"
BETWEEN: Final = "with each other"


@final
@dataclass(frozen=True)
class Agreement:
    """How well answers agree with other answers to the same pictures.

    Attributes:
        who: An annotator's name, or two, or what stands for all.
        of: `WITHIN` or `BETWEEN`: the annotators' own answers to repeated questions, or those of
            different annotators.
        questions: How many have two answers.
        same_order: Share of pairs of pictures in the same order; a tie counts one half.
        same_answer: Share of pairs of pictures in the same order or tied in both.
    """

    who: tuple[str, ...]
    of: str
    questions: int
    same_order: GroupMean
    same_answer: GroupMean


@final
@dataclass(frozen=True)
class Annotator:
    """What an annotator did.

    Attributes:
        name: The annotator.
        answers: All answers, repeats among them.
        ties: Share of them that are ties.
        bad: Share of them that call all pictures bad.
        skips: How many were skipped; they are no answers.
        seconds: Median time of an answer; NaN where no time is known.
        first_shown: Of answers that prefer one of two pictures, the share that prefers the one
            which stood first, on the left: 0.5 but for chance where places do not matter.
    """

    name: str
    answers: int
    ties: float
    bad: float
    skips: int
    seconds: float
    first_shown: GroupMean


@final
@dataclass(frozen=True)
class LabelAgreement:
    """What a file of answers says about its annotators.

    Attributes:
        annotators: In order of their names.
        within: Of each annotator with repeats, and of all together where there are several.
        between: Of each two annotators with common questions, and of all together.
    """

    annotators: tuple[Annotator, ...]
    within: tuple[Agreement, ...]
    between: tuple[Agreement, ...]

    def tables(self, **options: Unpack[BootstrapOptions]) -> tuple[Table, Table]:
        """What each annotator did, and how well they agree, with intervals.

        Args:
            options: Of the intervals; see `BootstrapOptions`.
        """
        did = Table(
            title="Annotators",
            name="annotators",
            columns=(
                "annotator",
                "answers",
                "ties",
                "all bad",
                "skipped",
                "seconds",
                "left chosen",
            ),
            rows=[
                (
                    one.name,
                    one.answers,
                    _per_cent(one.ties),
                    _per_cent(one.bad),
                    one.skips,
                    None if np.isnan(one.seconds) else f"{one.seconds:.1f}",
                    _with_interval(one.first_shown, options),
                )
                for one in self.annotators
            ],
            note="Shares in per cent, seconds at the median; left chosen: with 95 % interval.",
        )
        agree = Table(
            title="Agreement, per cent with 95 % interval",
            name="agreement",
            columns=("who", "questions", "same order", "same answer"),
            rows=[
                (
                    f"{' and '.join(one.who)}, {one.of}",
                    one.questions,
                    _with_interval(one.same_order, options),
                    _with_interval(one.same_answer, options),
                )
                for one in (*self.within, *self.between)
            ],
            note="Same order: a tie counts one half. Intervals draw whole prompts.",
        )
        return did, agree

    def as_dict(self, **options: Unpack[BootstrapOptions]) -> dict[str, object]:
        """Everything with its intervals as JSON values; shares from 0 to 1, None where unknown.

        Args:
            options: Of the intervals; see `BootstrapOptions`.
        """
        return {
            "annotators": [
                {
                    "annotator": one.name,
                    "answers": one.answers,
                    "ties": one.ties,
                    "bad": one.bad,
                    "skips": one.skips,
                    "seconds": None if np.isnan(one.seconds) else one.seconds,
                    "left_chosen": _interval(one.first_shown, options),
                }
                for one in self.annotators
            ],
            "agreement": [
                {
                    "who": list(one.who),
                    "of": one.of,
                    "questions": one.questions,
                    "same_order": _interval(one.same_order, options),
                    "same_answer": _interval(one.same_answer, options),
                }
                for one in (*self.within, *self.between)
            ],
        }


def label_agreement(labels: Sequence[Label]) -> LabelAgreement:
    """How steady the annotators are, and how well they agree.

    Args:
        labels: Answers that were not taken back, in order, as `stablepref.data.labels.read_labels`
            gives them.
    """
    names = sorted({label.annotator for label in labels})
    repeats = repeated_answers(labels)
    answers = list(first_answers(labels).values())
    within = [
        _agreement((name,), WITHIN, [two for two in repeats if two[0].annotator == name])
        for name in names
    ]
    between = [
        _agreement((a, b), BETWEEN, [(of[a], of[b]) for of in answers if a in of and b in of])
        for a, b in itertools.combinations(names, 2)
    ]
    everyone = ("all",)
    couples = [two for of in answers for two in itertools.combinations(of.values(), 2)]
    within += [_agreement(everyone, WITHIN, repeats)] * (len(names) > 1)
    between += [_agreement(everyone, BETWEEN, couples)] * (len(names) > 2)
    return LabelAgreement(
        annotators=tuple(
            _did(name, [one for one in labels if one.annotator == name]) for name in names
        ),
        within=tuple(one for one in within if one.questions),
        between=tuple(one for one in between if one.questions),
    )


def _agreement(who: tuple[str, ...], of: str, couples: Sequence[tuple[Label, Label]]) -> Agreement:
    prompts = [first.prompt for first, _ in couples]
    ranks = [(first.ranks, second.ranks_of(first.images)) for first, second in couples]
    order = single_vs_single(ranks)
    return Agreement(
        who=who,
        of=of,
        questions=len({first.key for first, _ in couples}),
        same_order=order.by_prompt(prompts),
        same_answer=_same(ranks).by_prompt(prompts),
    )


def _same(ranks: Sequence[tuple[Ranks, Ranks]]) -> GroupMean:
    """For each couple of answers, how many pairs of pictures have the same answer, of how many."""
    equal = [pair_signs(first) == pair_signs(second) for first, second in ranks]
    return _means([one.sum() for one in equal], [one.size for one in equal])


def _means(sums: Sequence[float], counts: Sequence[float]) -> GroupMean:
    return GroupMean(np.array(sums, dtype=np.float64), np.array(counts, dtype=np.float64))


def _did(name: str, labels: Sequence[Label]) -> Annotator:
    answers = [one for one in labels if one.answer != "skip"]
    known = [one.seconds for one in answers if one.seconds is not None]
    pairs = [one for one in answers if len(one.shown) == 2 and one.answer == "ranked"]
    count = max(1, len(answers))
    return Annotator(
        name=name,
        answers=len(answers),
        ties=sum(one.answer == "tie" for one in answers) / count,
        bad=sum(one.answer == "bad" for one in answers) / count,
        skips=len(labels) - len(answers),
        seconds=statistics.median(known) if known else float("nan"),
        first_shown=_means(
            [float(one.ranks[one.shown[0]] < one.ranks[one.shown[1]]) for one in pairs],
            [1.0] * len(pairs),
        ).by_prompt([one.prompt for one in pairs]),
    )


def _per_cent(share: float) -> str:
    return f"{100 * share:.0f}"


def _interval(mean: GroupMean, options: BootstrapOptions) -> dict[str, float] | None:
    return mean.interval(**options)._asdict() if mean.count else None


def _with_interval(mean: GroupMean, options: BootstrapOptions) -> str | None:
    if not mean.count:
        return None
    value, low, high = mean.interval(**options)
    return f"{100 * value:.1f} ({100 * low:.1f} to {100 * high:.1f})"
