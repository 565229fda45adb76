"""DPG-Bench (ELLA, Hu et al. 2024, arXiv:2403.05135): yes-or-no questions that depend on others.

What is asked of a thing that is not there counts as no. The published judge is mPLUG-large; here it
is any `vqa:` model, whose answer is yes where Yes is more probable than No.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

import numpy as np

from stablepref.data.groups import DataError, shown
from stablepref.data.rows import read_rows
from stablepref.evaluation.means import GroupMean

from .judge import NO, YES, Question

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from PIL import Image

    from stablepref.evaluation.means import Interval

TEMPLATE: Final = "{} Answer yes or no."
GRID: Final = 4
"""Pictures in an image: two rows of two."""
NOTHING: Final = 0
"""In the column of dependencies: the question depends on no other."""


@final
@dataclass(frozen=True)
class Proposition:
    """One question.

    Attributes:
        number: Its `proposition_id`, by which others depend on it.
        parents: The numbers of the questions that it depends on.
        category: As in the column "tuple", such as "attribute - color".
        question: The words.
    """

    number: int
    parents: tuple[int, ...]
    category: str
    question: str

    @property
    def broad(self) -> str:
        """The broad category, such as "attribute"."""
        return self.category.partition("-")[0].strip()


@final
@dataclass(frozen=True)
class Item:
    """One prompt with its questions.

    Attributes:
        id: Its `item_id`, which also names its image.
        prompt: The words.
        propositions: In the file's order.
    """

    id: str
    prompt: str
    propositions: tuple[Proposition, ...]


def read_dpg(path: Path, *, published: bool = False) -> tuple[Item, ...]:
    """dpg_bench.csv, or any table with its columns.

    Args:
        path: The file.
        published: Leave out the first row, as the published code does.

    Raises:
        DataError: A row is not a question, stands twice, or depends on one that is not there or on
            itself; it names the place.
        ValueError: The file is empty, or of another type.
        OSError: It cannot be read.
    """
    found: dict[str, dict[int, Proposition]] = {}
    prompts: dict[str, str] = {}
    places: dict[tuple[str, int], str] = {}
    for row_number, (place, row) in enumerate(read_rows(path)):
        if published and row_number == 0:
            continue
        try:
            key, prompt, one = _proposition(row)
            own = found.setdefault(key, {})
            if one.number in own:
                msg = f"item {key} has the proposition {one.number} already"
                raise ValueError(msg)
        except ValueError as error:
            raise DataError(path, place, str(error)) from error
        own[one.number] = one
        prompts.setdefault(key, prompt)
        places[key, one.number] = place
    if not found:
        msg = f"{path} holds no question"
        raise ValueError(msg)
    for key, own in found.items():
        for one in own.values():
            try:
                _check_parents(one, own, lenient=published)
            except ValueError as error:
                raise DataError(path, places[key, one.number], f"item {key}: {error}") from error
    return tuple(Item(key, prompts[key], tuple(own.values())) for key, own in found.items())


def _proposition(row: Mapping[str, object] | ValueError) -> tuple[str, str, Proposition]:
    if isinstance(row, ValueError):
        raise row
    texts = {}
    for name in (
        "item_id",
        "text",
        "proposition_id",
        "dependency",
        "tuple",
        "question_natural_language",
    ):
        value = row.get(name)
        if value is None or not str(value).strip():
            msg = f"{name} is {shown(value)}; expected the columns of dpg_bench.csv"
            raise ValueError(msg)
        texts[name] = str(value).strip()
    try:
        number = int(texts["proposition_id"])
        parents = tuple(int(part) for part in texts["dependency"].split(","))
    except ValueError:
        msg = (
            f"proposition_id is {texts['proposition_id']!r} and dependency "
            f"{texts['dependency']!r}; expected whole numbers, several with commas between them"
        )
        raise ValueError(msg) from None
    return (
        texts["item_id"],
        texts["text"],
        Proposition(
            number,
            tuple(one for one in parents if one != NOTHING),
            texts["tuple"].partition("(")[0].strip(),
            texts["question_natural_language"],
        ),
    )


def _check_parents(one: Proposition, own: Mapping[int, Proposition], *, lenient: bool) -> None:
    """Refuse parents that are not there, and circles.

    The first row, which the published code leaves out, may be a parent: it then counts as yes.
    """
    seen: set[int] = set()
    waiting = list(one.parents)
    while waiting:
        parent = waiting.pop()
        if parent == one.number:
            msg = f"the proposition {one.number} depends on itself"
            raise ValueError(msg)
        if parent in seen:
            continue
        seen.add(parent)
        if parent in own:
            waiting += own[parent].parents
        elif not lenient:
            msg = f"the proposition {one.number} depends on {parent}, which is not there"
            raise ValueError(msg)


def questions_of(item: Item) -> list[Question]:
    """What the judge is asked about each picture of an item."""
    return [
        Question(TEMPLATE.format(one.question), (YES, NO), "first") for one in item.propositions
    ]


def is_yes(probabilities: Sequence[float]) -> bool:
    """Whether Yes is more probable than No."""
    return probabilities[0] > probabilities[1]


def cut(image: Image.Image, place: int, pictures: int) -> Image.Image:
    """One of the pictures of a grid of two by two, row by row; of one picture the whole image.

    Raises:
        ValueError: The grid's sides are odd.
    """
    if pictures == 1:
        return image
    if image.width % 2 or image.height % 2:
        msg = (
            f"an image of {image.width} x {image.height} is no grid of two by two equal pictures; "
            "say --pictures 1 for images of one picture"
        )
        raise ValueError(msg)
    width, height = image.width // 2, image.height // 2
    left, top = place % 2 * width, place // 2 * height
    return image.crop((left, top, left + width, top + height))


def without_orphans(item: Item, yes: Sequence[bool]) -> list[bool]:
    """Answers in which no question counts whose parents, or their parents, were answered no."""
    own = {one.number: one for one in item.propositions}
    answered = dict(zip(own, yes, strict=True))
    known: dict[int, bool] = {}

    def counts(number: int) -> bool:
        if number not in known:
            parents = own[number].parents
            known[number] = answered[number] and all(counts(one) for one in parents if one in own)
        return known[number]

    return [counts(number) for number in own]


@final
@dataclass(frozen=True)
class Dpg:
    """DPG-Bench of one model's images, in per cent, with 95 % intervals over prompts.

    Attributes:
        score: Mean over prompts of the mean over pictures of the share of questions answered yes,
            no question counting whose parents were answered no.
        categories: For each category the share, and how many answers it has.
        broad: The same for broad categories.
        items: How many prompts were scored.
    """

    score: Interval
    categories: Mapping[str, tuple[Interval, int]]
    broad: Mapping[str, tuple[Interval, int]]
    items: int


def dpg_score(
    items: Sequence[Item],
    answers: Sequence[Sequence[Sequence[bool]] | None],
    *,
    published: bool = False,
) -> Dpg:
    """DPG-Bench out of the answers to every question about every picture.

    Args:
        items: The prompts.
        answers: For each prompt and each of its pictures whether each answer is yes; None for a
            prompt whose image was not scored.
        published: Categories as in the published code: of the last picture only, and with answers
            to questions whose parents were answered no. Without it they are made of the same
            answers as the score.

    Raises:
        ValueError: No prompt was scored.
    """
    scored = [(one, own) for one, own in zip(items, answers, strict=True) if own is not None]
    if not scored:
        msg = "no image could be scored"
        raise ValueError(msg)
    means = []
    rows: list[list[tuple[Proposition, bool]]] = []
    for item, pictures in scored:
        counted = [without_orphans(item, yes) for yes in pictures]
        means.append(sum(sum(each) / len(each) for each in counted) / len(counted))
        shown_answers = [pictures[-1]] if published else counted
        rows.append(
            [pair for each in shown_answers for pair in zip(item.propositions, each, strict=True)]
        )
    return Dpg(
        _percent(GroupMean(np.array(means), np.ones(len(means)))),
        _by([[(one.category, yes) for one, yes in row] for row in rows]),
        _by([[(one.broad, yes) for one, yes in row] for row in rows]),
        len(scored),
    )


def _by(rows: Sequence[Sequence[tuple[str, bool]]]) -> dict[str, tuple[Interval, int]]:
    found = {}
    for name in sorted({name for row in rows for name, _ in row}):
        own = [[yes for each, yes in row if each == name] for row in rows]
        mean = GroupMean(
            np.array([float(sum(each)) for each in own]),
            np.array([float(len(each)) for each in own]),
        )
        found[name] = (_percent(mean), mean.count)
    return found


def _percent(mean: GroupMean) -> Interval:
    found = mean.interval()
    return type(found)(*(100 * value for value in found))
