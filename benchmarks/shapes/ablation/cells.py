"""One training of the ablations as data, its size, and its result on disk."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, final

import numpy as np

from stablepref.evaluation.means import GroupMean
from stablepref.output.durable import replacing, sync

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from stablepref.recipes import TrainConfig

    from .methods import Model
    from .suite import Suite

_HASH_DIGITS = 16


@final
@dataclass(frozen=True)
class Cell:
    """One training, and when what is measured; it ends after the last measurement.

    Attributes:
        model: Size of the model.
        setting: Kind of preference data it trains on.
        config: How.
        watched: After these steps, agreement on the validation groups.
        tested: After these, on both settings' test groups, and on training groups.
        disturbed: After these, on its own setting's test groups under perturbations.
    """

    model: Model
    setting: str
    config: TrainConfig
    watched: tuple[int, ...] = ()
    tested: tuple[int, ...] = ()
    disturbed: tuple[int, ...] = ()

    @property
    def last(self) -> int:
        """Steps that are trained."""
        return max((0, *self.watched, *self.tested, *self.disturbed))

    def described(self) -> dict[str, Any]:
        """Everything but the data and the model's weights, as plain values."""
        return {
            "model": self.model,
            "setting": self.setting,
            "config": self.config.exact_values(),
            "watched": list(self.watched),
            "tested": list(self.tested),
            "disturbed": list(self.disturbed),
        }


class Result(NamedTuple):
    """A cell and what was measured, as it is read back from JSON."""

    cell: Cell
    found: dict[str, Any]

    @property
    def watched(self) -> list[dict[str, float]]:
        """Rows of the validation."""
        rows: list[dict[str, float]] = self.found["watched"]
        return rows

    def tested(self, step: int, *names: str) -> GroupMean | None:
        """A measure on test groups after a step; None if the training had diverged before."""
        return self._mean("tested", step, names)

    def disturbed(self, step: int, *names: str) -> GroupMean | None:
        """A measure under a perturbation after a step; None if the training had diverged before."""
        return self._mean("disturbed", step, names)

    def _mean(self, part: str, step: int, names: tuple[str, ...]) -> GroupMean | None:
        found = self.found[part].get(str(step))
        if found is None:
            return None
        for name in names:
            found = found[name]
        return GroupMean(np.array(found["sums"]), np.array(found["counts"]))


@final
class Store:
    """Results in a folder, a file for each cell, which appears whole or not at all.

    Args:
        folder: Made if it does not exist.
        suite: Results depend on a part of it.
        weights: A digest of the weights of each model that trainings begin from.
    """

    def __init__(self, folder: Path, suite: Suite, weights: Mapping[Model, str]) -> None:
        self.folder = folder
        self.suite = suite
        self.weights = weights
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, cell: Cell) -> Path:
        """The cell's file; other data, weights or values give another name."""
        described = cell.described() | self.suite.described()
        text = json.dumps(described | {"weights": self.weights[cell.model]}, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:_HASH_DIGITS]
        return self.folder / f"{cell.model}-{cell.setting}-{digest}.json"

    def has(self, cell: Cell) -> bool:
        """Whether the cell has a result."""
        return self.path(cell).exists()

    def read(self, cell: Cell) -> Result:
        """The cell's result.

        Raises:
            FileNotFoundError: It has none yet.
        """
        return Result(cell, json.loads(self.path(cell).read_text(encoding="utf-8")))

    def write(self, cell: Cell, found: Mapping[str, object]) -> None:
        """Keep a result.

        Raises:
            OSError: It cannot be written.
        """
        described = {"cell": cell.described(), **self.suite.described()}
        write_text(self.path(cell), json.dumps(described | dict(found), indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all.

    Raises:
        OSError: It cannot be written.
    """
    with replacing(path) as staging:
        staging.write_text(text, encoding="utf-8")
    sync(path.parent)


def mean_values(mean: GroupMean) -> dict[str, list[float]]:
    """A mean as plain values, as `Result.tested` reads them."""
    return {"sums": mean.sums.tolist(), "counts": mean.counts.tolist()}
