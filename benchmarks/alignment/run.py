"""Questions asked about every image, each answer on the disk at once; a killed run resumes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Final, final

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from stablepref.images.decoding import decode
from stablepref.images.sources import ImageError, Source
from stablepref.output.progress import progress_bar

from ..bench.row_files import RowFiles

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from PIL import Image

    from .judge import Judge, Question

ANSWERS_FOLDER: Final = "answers"

Answers = list[tuple[float, ...]]
"""For each question the probability of each of its options."""


@final
@dataclass(frozen=True)
class Task:
    """One picture and what is asked about it.

    Attributes:
        model: Who made it.
        key: What tells it from the model's others.
        image: What `stablepref.images.decode` takes.
        questions: What is asked.
        prepare: What is done with the picture first, such as a crop; a ValueError says why it
            cannot be used.
    """

    model: str
    key: str
    image: object
    questions: Sequence[Question]
    prepare: Callable[[Image.Image], Image.Image] = field(default=lambda image: image)


class _Row(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)
    model: str
    key: str
    answers: list[list[Annotated[float, Field(ge=0)]]] | None
    error: str | None


def answer_all(
    tasks: Sequence[Task], judge: Judge, *, out: Path, settings: Mapping[str, Any]
) -> dict[tuple[str, str], Answers | str]:
    """The answers about every picture, or why there are none, by model and key.

    Args:
        tasks: What is asked about what.
        judge: Who answers.
        out: Folder of the run. Answers in it are not asked for again; what failed is tried again.
        settings: What the answers depend on beside the judge, plain JSON values.

    Raises:
        ResumeError: The folder has answers to other questions or of another judge.
        OSError: It cannot be written.
    """
    rows = RowFiles(out / ANSWERS_FOLDER)
    whole = {**settings, "judge": {"name": judge.name, **judge.settings()}}
    rows.begin(whole, retry=lambda row: row.get("error") is not None)
    counts = {(one.model, one.key): [len(q.options) for q in one.questions] for one in tasks}
    found: dict[tuple[str, str], Answers | str] = {}
    for row in rows.rows(lambda row: _check(row, counts)):
        if (row["model"], row["key"]) in counts:
            found[row["model"], row["key"]] = [tuple(one) for one in row["answers"]]
    waiting = [one for one in tasks if (one.model, one.key) not in found]
    with progress_bar("asking", total=len(waiting)) as advance:
        for number, task in enumerate(waiting):
            answers, error = _answers(number, task, judge)
            row = {"model": task.model, "key": task.key, "answers": answers, "error": error}
            rows.write(0, whole, [row])
            found[task.model, task.key] = str(error) if answers is None else answers
            advance(1)
    return found


def _answers(number: int, task: Task, judge: Judge) -> tuple[Answers | None, str | None]:
    try:
        image = decode(Source(number, task.key, task.image))
        if isinstance(image, Tensor):
            return None, "it holds float pixels; expected a picture of 8 bits"
        answers = judge(task.prepare(image), task.questions)
    except ImageError as error:
        return None, error.reason
    except ValueError as error:
        return None, str(error)
    if not all(math.isfinite(value) for one in answers for value in one):
        return None, "the judge's probabilities are not finite numbers"
    return answers, None


def _check(row: object, counts: Mapping[tuple[str, str], list[int]]) -> None:
    """Refuse a row that is not one of this run's."""
    try:
        found = _Row.model_validate(row)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{place}: {first['msg']}") from error
    wanted = counts.get((found.model, found.key))
    if found.answers is None or (wanted and [len(one) for one in found.answers] != wanted):
        msg = f"the answers about {found.key} of {found.model} are not those to its questions"
        raise ValueError(msg)
