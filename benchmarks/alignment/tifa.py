"""TIFA v1.0 (Hu et al. 2023, arXiv:2303.11897): multiple-choice questions about each caption.

The published code takes a free answer of a VQA model and the choice that Sentence-BERT finds
nearest to it. Here the judge is shown the choices, and its answer is the most probable one, so that
no second model decides.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

import numpy as np

from stablepref.data.groups import DataError, shown
from stablepref.data.rows import read_rows
from stablepref.evaluation.means import GroupMean

from .judge import Question, spelled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from stablepref.evaluation.means import Interval

TEMPLATE: Final = "{question} Choices: {choices}. Answer with one of the choices."


@final
@dataclass(frozen=True)
class Choice:
    """One question.

    Attributes:
        question: The words.
        choices: Possible answers.
        answer: The right one.
        type: What it is about, such as "color".
    """

    question: str
    choices: tuple[str, ...]
    answer: str
    type: str


@final
@dataclass(frozen=True)
class Caption:
    """One caption with its questions.

    Attributes:
        id: What images are found by.
        caption: The words.
        questions: In the file's order.
    """

    id: str
    caption: str
    questions: tuple[Choice, ...]


def read_tifa(path: Path) -> tuple[Caption, ...]:
    """tifa_v1.0_question_answers.json, or any file of such rows.

    Raises:
        DataError: A row is not a question; it names the place.
        ValueError: The file is empty, or of another type.
        OSError: It cannot be read.
    """
    found: dict[str, list[Choice]] = {}
    captions: dict[str, str] = {}
    for place, row in read_rows(path):
        try:
            key, caption, choice = _question(row)
        except ValueError as error:
            raise DataError(path, place, str(error)) from error
        if captions.setdefault(key, caption) != caption:
            msg = f"id {key} has the caption {shown(caption)}, and before {shown(captions[key])}"
            raise DataError(path, place, msg)
        found.setdefault(key, []).append(choice)
    if not found:
        msg = f"{path} holds no question"
        raise ValueError(msg)
    return tuple(Caption(key, captions[key], tuple(own)) for key, own in found.items())


def _question(row: Mapping[str, object] | ValueError) -> tuple[str, str, Choice]:
    if isinstance(row, ValueError):
        raise row
    key, choices = row.get("id"), row.get("choices")
    if isinstance(key, bool) or not isinstance(key, str | int) or not str(key).strip():
        msg = f"id is {shown(key)}; expected a name or a number"
        raise ValueError(msg)
    texts = {}
    for name in ("caption", "question", "answer", "element_type"):
        value = row.get(name)
        if not isinstance(value, str) or not value.strip():
            msg = f"{name} is {shown(value)}; expected words"
            raise ValueError(msg)
        texts[name] = value
    if (
        not isinstance(choices, list)
        or not all(isinstance(one, str) and one.strip() for one in choices)
        or len(set(choices)) < 2
    ):
        msg = f"choices is {shown(choices)}; expected two or more different answers"
        raise ValueError(msg)
    if texts["answer"] not in choices:
        msg = f"the answer {texts['answer']!r} is not one of the choices {', '.join(choices)}"
        raise ValueError(msg)
    choice = Choice(texts["question"], tuple(choices), texts["answer"], texts["element_type"])
    return str(key), texts["caption"], choice


def questions_of(caption: Caption) -> list[Question]:
    """What the judge is asked about a caption's image."""
    return [
        Question(
            TEMPLATE.format(question=one.question, choices=", ".join(one.choices)),
            spelled(one.choices),
        )
        for one in caption.questions
    ]


def is_right(choice: Choice, probabilities: Sequence[float]) -> bool:
    """Whether the most probable choice is the right one; of equals the first is taken."""
    return choice.choices[int(np.argmax(probabilities))] == choice.answer


@final
@dataclass(frozen=True)
class Tifa:
    """TIFA of one model's images, shares from 0 to 1.

    Attributes:
        score: Mean over captions of the share of right answers, with its 95 % interval over them.
        deviation: Sample standard deviation over captions; NaN for a single one.
        types: For each element type the share of right answers, and how many questions it has.
        captions: How many were scored.
    """

    score: Interval
    deviation: float
    types: Mapping[str, tuple[Interval, int]]
    captions: int


def tifa_score(captions: Sequence[Caption], right: Sequence[Sequence[bool] | None]) -> Tifa:
    """TIFA out of whether each answer is right.

    Args:
        captions: The captions.
        right: For each caption whether each of its answers is; None if its image was not scored.

    Raises:
        ValueError: No caption was scored.
    """
    scored = [(one, own) for one, own in zip(captions, right, strict=True) if own is not None]
    if not scored:
        msg = "no image could be scored"
        raise ValueError(msg)
    shares = [sum(own) / len(own) for _, own in scored]
    types = {}
    for name in sorted({choice.type for one, _ in scored for choice in one.questions}):
        of_type = [
            [value for value, each in zip(own, one.questions, strict=True) if each.type == name]
            for one, own in scored
        ]
        mean = GroupMean(
            np.array([float(sum(own)) for own in of_type]),
            np.array([float(len(own)) for own in of_type]),
        )
        types[name] = (mean.interval(), mean.count)
    return Tifa(
        GroupMean(np.array(shares), np.ones(len(shares))).interval(),
        statistics.stdev(shares) if len(shares) > 1 else float("nan"),
        types,
        len(shares),
    )
