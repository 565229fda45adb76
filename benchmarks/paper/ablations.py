"""Numbers from a finished run of the laboratory's ablations, without its models."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final, final

from ..shapes.ablation.cells import Cell, Result
from ..shapes.ablation.methods import METHODS, method_config
from ..shapes.ablation.plan import START
from ..shapes.ablation.statistics import together
from .methods import Trained
from .table import Ours

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from stablepref.evaluation.means import GroupMean
    from stablepref.recipes import TrainConfig

CELLS: Final = "cells"
COMMAND: Final = (
    "python -m stablepref.benchmarks.shapes.ablation --logit-scale 5 --out runs/ablations"
)
"""The command that makes such a run."""


@final
class Ablations:
    """The trainings that a run of the ablations reports, as it tested them.

    Args:
        folder: The run's `--out`.

    Raises:
        ValueError: The folder is not that of such a run, or a file is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._found: dict[Trained, dict[int, list[Result]]] = defaultdict(dict)
        paths = sorted((folder / CELLS).glob("*.json"))
        if not paths:
            msg = (
                f"{folder} is not a run of the ablations: expected results of trainings in "
                f"{folder / CELLS}"
            )
            raise ValueError(msg)
        for path in paths:
            result = _read(path)
            trained = _reported(result.cell)
            if trained is not None:
                seeds = self._found[trained]
                seeds.setdefault(result.cell.config.seed, []).append(result)

    def accuracy(self, trained: Trained, tested_on: str) -> Ours | str:
        """Agreement with the annotators of a setting's test groups, or why it is missing."""
        return self._measured(trained, lambda one: one.tested(stop(one), tested_on, "people"))

    def disturbed(self, trained: Trained, tested_on: str, name: str) -> Ours | str:
        """Agreement under a perturbation and its change, or why it is missing."""
        if trained.setting != tested_on or trained.size != "large":
            return "the ablations perturb the large model's own data only"
        before = self._measured(trained, lambda one: one.tested(stop(one), tested_on, "people"))
        after = self._measured(trained, lambda one: one.disturbed(stop(one), name, "people"))
        if isinstance(before, str) or isinstance(after, str):
            return after if isinstance(after, str) else before
        change = self._pooled(
            trained, lambda one: one.disturbed(stop(one), name, "people")
        ).difference(self._pooled(trained, lambda one: one.tested(stop(one), tested_on, "people")))
        return Ours(
            after.value,
            after.low,
            after.high,
            change=after.value - before.value,
            change_low=100 * change.low,
            change_high=100 * change.high,
            note=after.note,
        )

    def _measured(
        self, trained: Trained, measure: Callable[[Result], GroupMean | None]
    ) -> Ours | str:
        seeds = self._found.get(trained, {})
        if not seeds:
            return f"{self.folder} does not have this training ({in_words(trained)})"
        if any(len(results) > 1 for results in seeds.values()):
            what = in_words(trained)
            return f"{self.folder} holds several runs of it ({what}): keep one run's files"
        means = [measure(result) for (result,) in seeds.values()]
        there = [mean for mean in means if mean is not None]
        if not there:
            return f"all {len(means)} trainings diverged ({in_words(trained)})"
        lost = f", {len(means) - len(there)} more diverged" if len(there) < len(means) else ""
        interval = together(there).interval()
        return Ours(
            100 * statistics.fmean(mean.value for mean in there),
            100 * interval.low,
            100 * interval.high,
            note=f"{in_words(trained)}: {len(there)} seed{'s' * (len(there) > 1)}{lost}",
        )

    def _pooled(self, trained: Trained, measure: Callable[[Result], GroupMean | None]) -> GroupMean:
        means = [measure(result) for (result,) in self._found[trained].values()]
        return together([mean for mean in means if mean is not None])


def in_words(trained: Trained) -> str:
    """A training in words."""
    if trained.method == START:
        return f"the laboratory's {trained.size} model, before training"
    title = METHODS[trained.method].title
    return f"the laboratory's {trained.size} model, {title}, trained on its {trained.setting}"


def stop(result: Result) -> int:
    """The step after which the model is taken: the first tested one, which validation chose."""
    return min(result.cell.tested)


def _read(path: Path) -> Result:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        described = found["cell"]
        values: dict[str, Any] = described["config"]
        cell = Cell(
            described["model"],
            described["setting"],
            _config(values),
            *(tuple(described[name]) for name in ("watched", "tested", "disturbed")),
        )
    except (ValueError, LookupError, TypeError) as error:
        msg = f"{path} is not a training of the ablations ({error!r})"
        raise ValueError(msg) from error
    return Result(cell, found)


def _config(values: Mapping[str, Any]) -> TrainConfig:
    """The training with the stored values, under the name of its method.

    Of methods that differ in b and τ alone it is the first: the paper's tables have one of them.

    Raises:
        ValueError: No method has such values.
    """
    for name, method in METHODS.items():
        config = method_config(
            method,
            rate=values["learning_rate"],
            margins=(values["b"], values["tau"]),
            steps=values["steps"],
            batch_size=values["batch_size"],
            seed=values["seed"],
            image_blocks=values["image_blocks"],
            text_blocks=values["text_blocks"],
            mixed_precision=values["mixed_precision"],
        )
        if json.loads(json.dumps(config.exact_values())) == values:
            assert config.name == name
            return config
    msg = f"no method of the ablations has the values {dict(values)}"
    raise ValueError(msg)


def _reported(cell: Cell) -> Trained | None:
    """A training as the ablations' tables name it; None for those that tune or overfit."""
    steps: Sequence[int] = cell.tested
    if list(steps) == [0]:
        return Trained(cell.model, START, cell.setting)
    if not steps or 0 in steps:
        return None
    return Trained(cell.model, cell.config.name, cell.setting)
