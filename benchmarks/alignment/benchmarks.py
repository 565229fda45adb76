"""The three benchmarks in one form: what is read, what is asked, and what the answers come to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, final

from stablepref.data.prompts import ListedPrompt

from . import dpg, geneval2, tifa
from .run import Task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from stablepref.evaluation.means import Interval
    from stablepref.output.tables import Cell

    from .run import Answers

COLUMNS: Final = ("model", "measure", "of", "score", "low", "high", "count")


class Line(NamedTuple):
    """One number of one model.

    Attributes:
        measure: What it is, such as "Soft-TIFA AM".
        of: What it is about: "all prompts", a skill, a category, a number of atoms.
        interval: The number with its 95 % interval over prompts, in per cent.
        size: Of how many things it is the mean.
    """

    measure: str
    of: str
    interval: Interval
    size: int

    def cells(self, model: str) -> tuple[Cell, ...]:
        """A row of a table with `COLUMNS`."""
        return (model, self.measure, self.of, *self.interval, self.size)


class Benchmark(Protocol):
    """A file of questions."""

    @property
    def name(self) -> str:
        """Of the benchmark."""

    @property
    def prompts(self) -> Sequence[ListedPrompt]:
        """What images are found by, in the file's order."""

    @property
    def notes(self) -> Sequence[str]:
        """How it differs from the published code, a sentence each."""

    def settings(self) -> dict[str, Any]:
        """What the questions depend on beside the file, plain JSON values."""

    def tasks(self, model: str, images: Sequence[object]) -> list[Task]:
        """What is asked about a model's images, one for each prompt."""

    def lines(self, model: str, answers: Mapping[tuple[str, str], Answers | str]) -> list[Line]:
        """The numbers of a model.

        Raises:
            ValueError: None of its images was scored.
        """


@final
@dataclass(frozen=True)
class GenEval2:
    """GenEval 2 with Soft-TIFA; see `geneval2`.

    Attributes:
        items: Of `geneval2.read_geneval2`.
        prompts: The same prompts with their places as keys.
        published: Whether answers are read as by the published code.
    """

    items: Sequence[geneval2.Prompt]
    prompts: Sequence[ListedPrompt]
    published: bool
    name = "geneval2"

    @classmethod
    def read(cls, path: Path, *, published: bool) -> GenEval2:
        """The benchmark of the user's copy of its file."""
        items = geneval2.read_geneval2(path)
        prompts = [ListedPrompt(f"{n:05d}", one.prompt) for n, one in enumerate(items)]
        return cls(items, prompts, published)

    @property
    def notes(self) -> Sequence[str]:
        """How answers are read."""
        if self.published:
            return (
                "as published, the probabilities of the first tokens of all spellings are added: "
                'in some vocabularies " 2" begins with a bare space and "10" with "1", which then '
                "count for other numbers too, and a token that begins two spellings counts twice",
            )
        return (
            "whole spellings are weighed, each once; --published adds the probabilities of first "
            "tokens, as the published code does",
        )

    def settings(self) -> dict[str, Any]:
        """Whether answers are read as published."""
        return {"published": self.published}

    def tasks(self, model: str, images: Sequence[object]) -> list[Task]:
        """One for each image."""
        return [
            Task(model, prompt.key, image, geneval2.questions_of(one, published=self.published))
            for one, prompt, image in zip(self.items, self.prompts, images, strict=True)
        ]

    def lines(self, model: str, answers: Mapping[tuple[str, str], Answers | str]) -> list[Line]:
        """Soft-TIFA AM and GM, by skill and by number of atoms."""
        scores: list[list[float] | None] = []
        for prompt in self.prompts:
            found = answers[model, prompt.key]
            scores.append(None if isinstance(found, str) else [one[0] for one in found])
        result = geneval2.soft_tifa(self.items, scores)
        return [
            Line("Soft-TIFA AM", "all prompts", result.am, result.prompts),
            Line("Soft-TIFA GM", "all prompts", result.gm, result.prompts),
            *(Line("AM of atoms", skill, *own) for skill, own in result.skills.items()),
            *(Line("GM of prompts", f"{n} atoms", *own) for n, own in result.atoms.items()),
        ]


@final
@dataclass(frozen=True)
class Tifa:
    """TIFA v1.0; see `tifa`.

    Attributes:
        items: Of `tifa.read_tifa`.
        prompts: The same captions.
    """

    items: Sequence[tifa.Caption]
    prompts: Sequence[ListedPrompt]
    name = "tifa"
    notes = (
        "the judge is shown the choices and its most probable one is its answer; the published "
        "code maps a free answer to the nearest choice by Sentence-BERT",
    )

    @classmethod
    def read(cls, path: Path) -> Tifa:
        """The benchmark of a file of questions and answers."""
        items = tifa.read_tifa(path)
        return cls(items, [ListedPrompt(one.id, one.caption) for one in items])

    def settings(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def tasks(self, model: str, images: Sequence[object]) -> list[Task]:
        """One for each image."""
        return [
            Task(model, one.id, image, tifa.questions_of(one))
            for one, image in zip(self.items, images, strict=True)
        ]

    def lines(self, model: str, answers: Mapping[tuple[str, str], Answers | str]) -> list[Line]:
        """The score, its standard deviation over captions, and accuracy by element type."""
        right: list[list[bool] | None] = []
        for one in self.items:
            found = answers[model, one.id]
            right.append(
                None
                if isinstance(found, str)
                else [tifa.is_right(c, p) for c, p in zip(one.questions, found, strict=True)]
            )
        result = tifa.tifa_score(self.items, right)
        deviation = type(result.score)(100 * result.deviation, float("nan"), float("nan"))
        return [
            Line("TIFA", "all captions", _percent(result.score), result.captions),
            Line("standard deviation", "captions", deviation, result.captions),
            *(Line("accuracy", name, _percent(own), n) for name, (own, n) in result.types.items()),
        ]


@final
@dataclass(frozen=True)
class Dpg:
    """DPG-Bench; see `dpg`.

    Attributes:
        items: Of `dpg.read_dpg`.
        prompts: The same prompts.
        pictures: Pictures of each image: 1 is the whole image, 4 a grid of two by two.
        published: Whether the first row is left out and categories are made as published.
    """

    items: Sequence[dpg.Item]
    prompts: Sequence[ListedPrompt]
    pictures: int
    published: bool
    name = "dpg"

    @classmethod
    def read(cls, path: Path, *, pictures: int, published: bool) -> Dpg:
        """The benchmark of dpg_bench.csv."""
        items = dpg.read_dpg(path, published=published)
        return cls(items, [ListedPrompt(one.id, one.prompt) for one in items], pictures, published)

    @property
    def notes(self) -> Sequence[str]:
        """How categories are made."""
        if self.published:
            return (
                "as published, the first row of the file is left out, and categories are of the "
                "last picture and count questions whose parents were answered no",
            )
        return (
            "categories are made of the same answers as the score; --published leaves out the "
            "first row and makes categories of the last picture's answers, as the published code",
        )

    def settings(self) -> dict[str, Any]:
        """Pictures of each image, and whether the first row is left out."""
        return {"pictures": self.pictures, "published": self.published}

    def tasks(self, model: str, images: Sequence[object]) -> list[Task]:
        """One for each picture of each image."""
        return [
            Task(
                model,
                f"{one.id} {place}",
                image,
                dpg.questions_of(one),
                partial(dpg.cut, place=place, pictures=self.pictures),
            )
            for one, image in zip(self.items, images, strict=True)
            for place in range(self.pictures)
        ]

    def lines(self, model: str, answers: Mapping[tuple[str, str], Answers | str]) -> list[Line]:
        """The score, and the share of each category; an image counts if all its pictures do."""
        yes: list[list[list[bool]] | None] = []
        for one in self.items:
            found = [answers[model, f"{one.id} {place}"] for place in range(self.pictures)]
            whole = [own for own in found if not isinstance(own, str)]
            yes.append(
                [[dpg.is_yes(each) for each in own] for own in whole]
                if len(whole) == self.pictures
                else None
            )
        result = dpg.dpg_score(self.items, yes, published=self.published)
        return [
            Line("DPG-Bench", "all prompts", result.score, result.items),
            *(Line("broad category", name, *own) for name, own in result.broad.items()),
            *(Line("category", name, *own) for name, own in result.categories.items()),
        ]


def as_rows(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Lines as plain JSON values."""
    return [
        {"measure": one.measure, "of": one.of, **one.interval._asdict(), "count": one.size}
        for one in lines
    ]


def _percent(interval: Interval) -> Interval:
    return type(interval)(*(100 * value for value in interval))
