"""All scores of one benchmark, or of several of the same prompts, as one table."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Final, final

import numpy as np

from stablepref.output.notebook import data_frame
from stablepref.output.tables import Table

from .row_files import RowFiles
from .run_files import read_run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pandas as pd

    from stablepref.data.prompts import ListedPrompt
    from stablepref.evaluation.means import Array
    from stablepref.output.tables import Cell

SCORES_FOLDER: Final = "scores"


@final
@dataclass(frozen=True)
class Failure:
    """An image that a scorer has no score for.

    Attributes:
        model: The model that made it, or should have.
        prompt: The key of its prompt.
        image: Its number among the prompt's.
        scorer: The scorer that has no score for it.
        reason: Why there is no score.
    """

    model: str
    prompt: str
    image: int
    scorer: str
    reason: str


@final
@dataclass(frozen=True, eq=False)
class ScoreTable:
    """Scores of every image.

    Attributes:
        name: The prompt set's name.
        prompts: Its prompts.
        models: The models that made the images.
        scorers: Settings of each scorer by name, its unit among them.
        scores: `(models, scorers, prompts, images)`; NaN where there is none.
        failures: The images without a score, with the reasons.
    """

    name: str
    prompts: tuple[ListedPrompt, ...]
    models: tuple[str, ...]
    scorers: Mapping[str, Mapping[str, object]]
    scores: Array
    failures: tuple[Failure, ...]

    @cached_property
    def words(self) -> tuple[str, ...]:
        """What each prompt says; a list may have a prompt several times."""
        return tuple(one.prompt for one in self.prompts)

    def of(self, scorer: str) -> Array:
        """Scores of one scorer, `(models, prompts, images)`.

        Raises:
            ValueError: There is no such scorer.
        """
        if scorer not in self.scorers:
            raise ValueError(f"no scorer {scorer!r}; there are: {', '.join(self.scorers)}")
        return self.scores[:, list(self.scorers).index(scorer)]

    def means(self, scorer: str) -> Array:
        """Mean over each prompt's images, `(models, prompts)`; NaN for prompts without any."""
        scores = self.of(scorer)
        there = ~np.isnan(scores)
        sums = np.where(there, scores, 0).sum(axis=-1)
        counts = there.sum(axis=-1)
        nothing = np.full(sums.shape, np.nan)
        return np.divide(sums, counts, out=nothing, where=counts > 0)

    def to_pandas(self) -> pd.DataFrame:
        """One row for each image and scorer: model, scorer, prompt (its key), image and score.

        Raises:
            ImportError: pandas is not installed; it is in the extra ``notebook``.
        """
        keys = [prompt.key for prompt in self.prompts]
        places = product(self.models, self.scorers, keys, range(self.scores.shape[-1]))
        columns = ("model", "scorer", "prompt", "image", "score")
        rows = [
            dict(zip(columns, (*place, score), strict=True))
            for place, score in zip(places, self.scores.ravel().tolist(), strict=True)
        ]
        return data_frame(rows, columns)

    def _repr_html_(self) -> str:
        means = [self.means(scorer) for scorer in self.scorers]
        rows: list[list[Cell]] = [
            [model, *(_mean(one[place]) for one in means)]
            for place, model in enumerate(self.models)
        ]
        return Table(
            columns=["model", *self.scorers],
            rows=rows,
            title=f"{self.name}: mean scores over {len(self.prompts)} prompts",
        ).html()

    def labels(self) -> dict[str, dict[str, list[int]]]:
        """Places of the prompts by each label's values, such as {"category": {"Colors": [...]}}."""
        found: dict[str, dict[str, list[int]]] = {}
        for place, prompt in enumerate(self.prompts):
            for label, value in prompt.labels.items():
                found.setdefault(label, {}).setdefault(value, []).append(place)
        return found


def _mean(values: Array) -> float:
    """Of those that are there; NaN if none is."""
    there = values[~np.isnan(values)]
    return float(there.mean()) if there.size else math.nan


def read_table(folder: Path) -> ScoreTable:
    """The scores of a run, finished or not.

    Raises:
        ValueError: The folder is not a run, is damaged, or nothing is scored in it yet.
        ResumeError: A file of scores is damaged.
    """
    run, prompts = read_run(folder)
    models, scorers = tuple(run.models), dict(run.scorers)
    scores = np.full((len(models), len(scorers), len(prompts), 1), np.nan)
    places = {name: place for place, name in enumerate(models)}
    columns = {name: place for place, name in enumerate(scorers)}
    faults: dict[tuple[int, int, int], dict[str, str]] = {}
    images = 0
    for row in RowFiles(folder / SCORES_FOLDER).rows(lambda row: run.check_row(row, len(prompts))):
        key = places[row["model"]], row["prompt"], row["image"]
        place, prompt, number = key
        if number >= scores.shape[-1]:
            more = max(number + 1, min(2 * scores.shape[-1], run.images)) - scores.shape[-1]
            scores = np.pad(scores, [(0, 0)] * 3 + [(0, more)], constant_values=np.nan)
        scores[place, :, prompt, number] = np.nan  # an image's last row counts
        faults.pop(key, None)
        for scorer, score in row["scores"].items():
            scores[place, columns[scorer], prompt, number] = score
        if row["faults"]:
            faults[key] = row["faults"]
        images = max(images, number + 1)
    if not images:
        raise ValueError(f"nothing is scored in {folder} yet: give the command of the run again")
    scores = scores[..., :images].copy()
    failures = [
        Failure(models[place], prompts[prompt].key, number, scorer, reason)
        for (place, prompt, number), reasons in sorted(faults.items(), key=lambda item: item[0])
        for scorer, reason in reasons.items()
    ]
    return ScoreTable(run.prompts.name, prompts, models, scorers, scores, tuple(failures))


def unshared(tables: Sequence[ScoreTable]) -> list[str]:
    """The scorers that `joined` leaves out, since not all of the tables have them."""
    names = dict.fromkeys(name for table in tables for name in table.scorers)
    return [name for name in names if not all(name in table.scorers for table in tables)]


def joined(tables: Sequence[ScoreTable]) -> ScoreTable:
    """One table of the models of several runs of the same prompts, with the scorers they share.

    Raises:
        ValueError: No tables are given, prompts differ, a model is in two runs, a scorer has other
            weights in another run, or no scorer is in all of them.
    """
    if not tables:
        raise ValueError("expected one or more runs, got none")
    first = tables[0]
    left_out = unshared(tables)
    shared = [name for name in first.scorers if name not in left_out]
    if not shared:
        listed = "; ".join(", ".join(table.scorers) for table in tables)
        raise ValueError(f"no scorer is in all of the runs, which have: {listed}")
    models: list[str] = []
    for table in tables:
        if table.prompts != first.prompts:
            raise ValueError(
                f"the runs have different prompts: {len(first.prompts)} of {first.name} and "
                f"{len(table.prompts)} of {table.name}; models compare on the same prompts only"
            )
        for name in shared:
            if table.scorers[name] != first.scorers[name]:
                raise ValueError(
                    f"the scorer {name} is {dict(first.scorers[name])} in one run and "
                    f"{dict(table.scorers[name])} in another: their scores do not compare"
                )
        models += table.models
    twice = sorted({name for name in models if models.count(name) > 1})
    if twice:
        raise ValueError(
            f"{', '.join(twice)} is in two of the runs: give it another name in one of them"
        )
    images = max(table.scores.shape[-1] for table in tables)
    parts = []
    for table in tables:
        part = np.stack([table.of(name) for name in shared], axis=1)
        room = images - part.shape[-1]
        parts.append(np.pad(part, [(0, 0)] * 3 + [(0, room)], constant_values=np.nan))
    return replace(
        first,
        models=tuple(models),
        scorers={name: first.scorers[name] for name in shared},
        scores=np.concatenate(parts),
        failures=tuple(f for t in tables for f in t.failures if f.scorer in shared),
    )
