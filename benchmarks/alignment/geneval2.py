"""GenEval 2 and Soft-TIFA (Kamath et al. 2025, arXiv:2512.16853).

The score of an atom is the probability of its right answer. A prompt's scores have an arithmetic
mean (AM), which estimates atoms, and a geometric one (GM), which estimates whole prompts: one atom
that is not there at all makes it 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

import numpy as np

from stablepref.data.groups import DataError, shown
from stablepref.data.rows import read_rows
from stablepref.evaluation.means import GroupMean

from .judge import YES, Question

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from stablepref.evaluation.means import Interval

TEMPLATE: Final = "{} Answer in one word."
COUNT: Final = "count"
NUMBERS: Final = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen"),
    *("nineteen", "twenty"),
)


@final
@dataclass(frozen=True)
class Prompt:
    """One line of the file.

    Attributes:
        prompt: The words.
        atoms: Its `atom_count`; questions can be more, as "a" is asked about and not counted.
        questions: Question and right answer of each atom.
        skills: The skill of each question.
    """

    prompt: str
    atoms: int
    questions: tuple[tuple[str, str], ...]
    skills: tuple[str, ...]


def read_geneval2(path: Path) -> tuple[Prompt, ...]:
    """The user's copy of geneval2_data.jsonl (CC BY-NC 4.0).

    Raises:
        DataError: A line is not a prompt with its questions, or a prompt occurs twice.
        ValueError: The file is empty, or of another type.
        OSError: It cannot be read.
    """
    prompts: dict[str, Prompt] = {}
    for place, row in read_rows(path):
        try:
            one = _prompt(row)
            if one.prompt in prompts:
                msg = "this prompt stands there already, and images are found by prompts"
                raise ValueError(msg)
        except ValueError as error:
            raise DataError(path, place, str(error)) from error
        prompts[one.prompt] = one
    if not prompts:
        msg = f"{path} holds no prompt"
        raise ValueError(msg)
    return tuple(prompts.values())


def _prompt(row: Mapping[str, object] | ValueError) -> Prompt:
    if isinstance(row, ValueError):
        raise row
    prompt, atoms = row.get("prompt"), row.get("atom_count")
    listed, skills = row.get("vqa_list"), row.get("skills")
    if not isinstance(prompt, str) or not prompt.strip():
        msg = f"prompt is {shown(prompt)}; expected words"
        raise ValueError(msg)
    if not isinstance(atoms, int) or isinstance(atoms, bool) or atoms < 1:
        msg = f"atom_count is {shown(atoms)}; expected a whole number, 1 or more"
        raise ValueError(msg)
    if not isinstance(listed, list) or not listed or not all(map(_is_pair, listed)):
        msg = f"vqa_list is {shown(listed)}; expected a list of [question, answer]"
        raise ValueError(msg)
    if not isinstance(skills, list) or not all(isinstance(one, str) for one in skills):
        msg = f"skills is {shown(skills)}; expected a list of words"
        raise ValueError(msg)
    if len(skills) != len(listed):
        msg = f"{len(skills)} skills for {len(listed)} questions; expected one for each"
        raise ValueError(msg)
    pairs = tuple((question, answer) for question, answer in listed)
    for (_, answer), skill in zip(pairs, skills, strict=True):
        if skill == COUNT and answer.lower() not in NUMBERS and not answer.isdecimal():
            msg = f"the answer to a count is {answer!r}; expected a number up to twenty in words"
            raise ValueError(msg)
    return Prompt(prompt, atoms, pairs, tuple(skills))


def _is_pair(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(isinstance(part, str) and part.strip() for part in value)
    )


def questions_of(prompt: Prompt, *, published: bool) -> list[Question]:
    """What the judge is asked about a prompt's image.

    Args:
        prompt: The prompt.
        published: As the authors' code: the probabilities of the first tokens of all spellings are
            added. A spelling such as " 2" begins with a bare space in some vocabularies, and "10"
            with "1", which then count for every number that begins so; and a token that begins
            two spellings is added twice. Without it whole spellings are weighed, each once.
    """
    return [
        Question(
            TEMPLATE.format(question),
            (spellings(answer, skill),),
            "first-each" if published else "whole",
        )
        for (question, answer), skill in zip(prompt.questions, prompt.skills, strict=True)
    ]


def spellings(answer: str, skill: str) -> tuple[str, ...]:
    """The accepted forms of an answer: of a number its word and digits, else those of Yes."""
    if skill != COUNT:
        return YES
    number = int(answer) if answer.isdecimal() else NUMBERS.index(answer.lower())
    words = () if number >= len(NUMBERS) else (NUMBERS[number],)
    forms = [form for word in words for form in (word, word.capitalize())]
    return (*forms, *(f" {form}" for form in forms), str(number), f" {number}")


def geometric_mean(values: Sequence[float]) -> float:
    """0 if any value is 0."""
    if min(values) <= 0:
        return 0.0
    return math.exp(math.fsum(map(math.log, values)) / len(values))


@final
@dataclass(frozen=True)
class SoftTifa:
    """Scores of one model's images, in per cent, each with its 95 % interval over prompts.

    Attributes:
        am: Mean over prompts of the mean of their atoms.
        gm: Mean over prompts of the geometric mean of their atoms.
        skills: For each skill the mean over its atoms, and how many there are.
        atoms: For each number of atoms the mean of the prompts' geometric means, and how many.
        prompts: How many were scored.
    """

    am: Interval
    gm: Interval
    skills: Mapping[str, tuple[Interval, int]]
    atoms: Mapping[int, tuple[Interval, int]]
    prompts: int


def soft_tifa(prompts: Sequence[Prompt], scores: Sequence[Sequence[float] | None]) -> SoftTifa:
    """Soft-TIFA out of the probability of every atom's right answer.

    Args:
        prompts: The prompts.
        scores: For each prompt those of its questions; None if its image was not scored.

    Raises:
        ValueError: No prompt was scored.
    """
    scored = [(one, own) for one, own in zip(prompts, scores, strict=True) if own is not None]
    if not scored:
        msg = "no image could be scored"
        raise ValueError(msg)
    means = np.array([math.fsum(own) / len(own) for _, own in scored])
    geometric = np.array([geometric_mean(own) for _, own in scored])
    ones = np.ones(len(scored))
    skills = {}
    for skill in sorted({skill for one, _ in scored for skill in one.skills}):
        of_skill = [
            [value for value, each in zip(own, one.skills, strict=True) if each == skill]
            for one, own in scored
        ]
        sums = GroupMean(
            np.array([math.fsum(own) for own in of_skill]),
            np.array([float(len(own)) for own in of_skill]),
        )
        skills[skill] = (_percent(sums), sums.count)
    counts = np.array([one.atoms for one, _ in scored])
    atoms = {}
    for count in sorted(set(counts.tolist())):
        own = (counts == count).astype(np.float64)
        atoms[count] = (_percent(GroupMean(geometric * own, own)), int(own.sum()))
    am, gm = (_percent(GroupMean(values, ones)) for values in (means, geometric))
    return SoftTifa(am, gm, skills, atoms, len(scored))


def _percent(mean: GroupMean) -> Interval:
    found = mean.interval()
    return type(found)(*(100 * value for value in found))
