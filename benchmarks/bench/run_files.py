"""What a run's folder says, checked as what is typed is: it may come from elsewhere."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from stablepref.data.prompts import ListedPrompt
from stablepref.output.names import stays_inside

from .contestants import check_name

if TYPE_CHECKING:
    from pathlib import Path

CONFIG_FILE: Final = "run.json"
PROMPTS_FILE: Final = "prompts.jsonl"
MOST_IMAGES: Final = 100_000
"""Of each prompt: far more than anyone makes, so that a damaged number does not take all memory."""

M = TypeVar("M", bound=BaseModel)


def check_key(key: str) -> str:
    """Refuse a prompt's key that cannot name an image file in the folder of its model.

    Returns:
        The key.

    Raises:
        ValueError: It cannot.
    """
    if not stays_inside(key):
        raise ValueError(f"{key!r} cannot name an image file")
    return key


class _Read(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class RunModel(_Read):
    """A model of a run, as `Contestant.row` describes it."""

    source: str


class _SetOfPrompts(_Read):
    name: str


class Run(_Read):
    """What was asked for, as far as it is read again.

    Attributes:
        prompts: The set, by its name.
        images: Images of each prompt.
        models: By their names, which are folders too.
        scorers: Settings of each by its name.
    """

    prompts: _SetOfPrompts
    images: Annotated[int, Field(ge=1, le=MOST_IMAGES)]
    models: Annotated[
        dict[Annotated[str, AfterValidator(check_name)], RunModel], Field(min_length=1)
    ]
    scorers: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]

    def check_row(self, row: object, prompts: int) -> None:
        """Refuse a row of scores that is not one of this run's.

        Args:
            row: As it was read.
            prompts: How many prompts there are.

        Raises:
            ValueError: An entry has another type, or names what the run does not have.
        """
        found = _checked(_ScoreRow, row)
        if found.model not in self.models:
            raise ValueError(f"model is {found.model!r}; expected one of {', '.join(self.models)}")
        check_place("prompt", found.prompt, prompts)
        check_place("image", found.image, self.images)
        for name in (*found.scores, *found.faults):
            if name not in self.scorers:
                raise ValueError(f"scorer is {name!r}; expected one of {', '.join(self.scorers)}")


class _ScoreRow(_Read):
    model: str
    prompt: int
    image: int
    scores: dict[str, float]
    faults: dict[str, str]


class _PromptRow(_Read):
    key: Annotated[str, AfterValidator(check_key)]
    prompt: str
    labels: dict[str, str]


class _FaultRow(_Read):
    prompt: int
    image: int
    fault: str


def read_run(folder: Path) -> tuple[Run, tuple[ListedPrompt, ...]]:
    """What a run was asked for, and its prompts.

    Raises:
        ValueError: The folder is not a run, or a file of it is damaged; the message names the file
            and the entry.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise ValueError(f"{folder} is not a run of a benchmark: it has no {CONFIG_FILE}")
    run = _parsed(Run, path.read_bytes(), str(path))
    path = folder / PROMPTS_FILE
    if not path.is_file():
        raise ValueError(f"{folder} is not a whole run of a benchmark: it has no {PROMPTS_FILE}")
    prompts = []
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            row = _parsed(_PromptRow, line, f"{path}, line {number}")
            prompts.append(ListedPrompt(row.key, row.prompt, row.labels))
    keys = [one.key for one in prompts]
    if not keys or len(set(keys)) < len(keys):
        what = "two prompts of one key" if keys else "no prompt"
        raise ValueError(f"{path} is damaged: it has {what}")
    return run, tuple(prompts)


def check_score_row(row: object) -> None:
    """Refuse what is not a row of scores.

    Raises:
        ValueError: An entry is missing or has another type.
    """
    _checked(_ScoreRow, row)


def check_fault(row: object, prompts: int) -> None:
    """Refuse a row that is not about a missing image of a run with so many prompts.

    Raises:
        ValueError: An entry has another type, or there is no such prompt.
    """
    found = _checked(_FaultRow, row)
    check_place("prompt", found.prompt, prompts)
    check_place("image", found.image, MOST_IMAGES)


def check_place(name: str, place: int, count: int) -> None:
    """Refuse an index that is negative, which would count from the end, or too large.

    Raises:
        ValueError: It is.
    """
    if not 0 <= place < count:
        raise ValueError(f"{name} is {place}; expected a whole number from 0 to {count - 1}")


def _parsed(kind: type[M], text: bytes, where: str) -> M:
    try:
        return _checked(kind, json.loads(text))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is damaged: {error}") from error


def _checked(kind: type[M], value: object) -> M:
    """The value as pydantic reads it, or one line on the first entry that does not fit."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        problem = error.errors()[0]
        entry = ".".join(map(str, problem["loc"])) or "the whole"
        given = "" if problem["type"] == "missing" else f", got {str(problem['input'])[:80]!r}"
        raise ValueError(f"{entry}: {problem['msg']}{given}") from error
