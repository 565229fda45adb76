"""Runs the ablations' plan: each training once, whatever interrupts it, and shows the time left."""

from __future__ import annotations

import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from stablepref.output.durable import remove_leftovers
from stablepref.output.locks import sole_writer

from .cells import Result
from .jobs import train_beside
from .methods import PAPER_MARGINS
from .plan import Experiment
from .train import train_cell
from .work import BACKWARD, cell_work, duration, tower_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import ProcessPoolExecutor
    from pathlib import Path
    from types import TracebackType

    from .cells import Cell, Store
    from .methods import Model
    from .world import World

_FLOAT_BYTES: Final = 4


class Estimate(NamedTuple):
    """How much tables need.

    Attributes:
        trainings: In all.
        missing: Of which have no result yet.
        work: Floating-point operations of these, and of the frozen blocks before them.
        size: Bytes of tokens that those blocks will write.
        seconds: That the others took, one after the other.
    """

    trainings: int
    missing: int
    work: float
    size: int
    seconds: float


def estimate(world: World, store: Store, tables: Sequence[str]) -> Estimate:
    """Count what is left to do; where only results can decide, the most that may be needed.

    Raises:
        ValueError: A training shows more weak views than the pool has.
    """
    results: dict[Path, Result] = {}

    def counted(wanted: Sequence[Cell]) -> list[Result]:
        for cell in wanted:
            path = store.path(cell)
            if path not in results:
                results[path] = store.read(cell) if store.has(cell) else supposed(cell)
        return [results[store.path(cell)] for cell in wanted]

    Experiment(world.suite, world.batch_size, counted).everything(tables)
    cells = [result.cell for result in results.values()]
    for cell in cells:
        if cell.config.views > world.suite.pool:
            raise ValueError(
                f"pool is {world.suite.pool}, but {cell.config.name} shows {cell.config.views} "
                "weak views of an image at once; expected no fewer"
            )
    missing = [cell for cell in cells if not store.has(cell)]
    settings: dict[Model, set[str]] = {}
    for cell in missing:
        settings.setdefault(cell.model, set()).add(cell.setting)
    work, size = sum(cell_work(world, cell) for cell in missing), 0
    for model, some in settings.items():
        variants = world.missing_variants(model, sorted(some))
        tower = tower_of(world.scorers[model])
        work += variants * tower.per_block() * (tower.blocks - world.suite.image_blocks)
        size += variants * tower.tokens * tower.width * _FLOAT_BYTES
    seconds = sum(result.found["seconds"] for result in results.values())
    return Estimate(len(cells), len(missing), work, size, seconds)


def supposed(cell: Cell) -> Result:
    """A made-up result in place of one that does not exist yet, with a stop before the end.

    Where a choice decides whether two trainings are one, they are supposed to be two: b and τ are
    not the paper's, and cross-entropy has a higher rate than what has a step 1.
    """
    config = cell.config
    people = 0.5 + 0.1 * ((config.b, config.tau) != PAPER_MARGINS)
    people += config.learning_rate * (config.loss == "cross-entropy")
    row = {"step": (*cell.watched, 0)[0], "people": people, "oracle": people}
    return Result(cell, {"watched": [row], "tested": {}, "disturbed": {}, "seconds": 0.0})


@final
class Runner:
    """Trains cells that have no result, and shows the progress of the whole.

    A context: its bar is on standard error, and a line stays for each training.

    Args:
        world: Data and models.
        store: Results.
        estimated: Of all trainings to come.
        speed: Floating-point operations a second, until trainings have shown their own.
        pool: Processes from `start_jobs` that train at the same time; None trains in this one. It
            is shut down with the runner.
        show: Whether to show the bar and the lines.
    """

    def __init__(
        self,
        world: World,
        store: Store,
        estimated: Estimate,
        *,
        speed: float,
        pool: ProcessPoolExecutor | None = None,
        show: bool = True,
    ) -> None:
        self._world, self._store, self._pool = world, store, pool
        self._estimated, self._speed = estimated, speed
        self._began, self._worked, self._trained = time.monotonic(), 0.0, 0
        self._bar = Progress(
            TextColumn("ablations"),
            BarColumn(),
            TextColumn("{task.percentage:.0f} %"),
            TextColumn("{task.fields[left]}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            disable=not show,
        )
        self._task = self._bar.add_task("", total=max(1.0, estimated.work), left="")
        self._show = show
        self._held = ExitStack()

    def __enter__(self) -> Runner:
        """Start the bar; what a killed run had half written goes."""
        self._held.enter_context(sole_writer(self._store.folder, folder=True))
        remove_leftovers(self._world.folder / "features")
        self._began = time.monotonic()
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the bar and the processes."""
        self._held.close()
        self._bar.stop()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def __call__(self, cells: Sequence[Cell]) -> list[Result]:
        """Results of all cells, in their order."""
        missing = {self._store.path(cell): cell for cell in cells if not self._store.has(cell)}
        wanted = list(missing.values())
        for place in dict.fromkeys((cell.model, cell.setting) for cell in wanted):
            self._world.data(*place, advance=partial(self._cached, place[0]))
        if self._pool is None:
            for cell in wanted:
                self._keep(cell, self._train(cell))
        else:
            for cell, found in train_beside(self._pool, wanted):
                self._advance(cell_work(self._world, cell))
                self._keep(cell, found)
        return [self._store.read(cell) for cell in cells]

    def _train(self, cell: Cell) -> dict[str, object]:
        trained = self._per_image(cell.model, trained=True)
        passes = {"trained": BACKWARD, "measured": 1}
        return train_cell(
            cell,
            self._world.scorers[cell.model],
            self._world.data(cell.model, cell.setting),
            advance=lambda kind, count: self._advance(trained * passes[kind] * count),
        )

    def _cached(self, model: Model, count: int) -> None:
        self._advance(count * self._per_image(model, trained=False))

    def _per_image(self, model: Model, *, trained: bool) -> int:
        """Operations of the trained or the frozen image blocks on an image."""
        tower, last = tower_of(self._world.scorers[model]), self._world.suite.image_blocks
        return tower.per_block() * (last if trained else tower.blocks - last)

    def _keep(self, cell: Cell, found: dict[str, object]) -> None:
        self._store.write(cell, found)
        self._trained += 1
        config = cell.config
        line = (
            f"{self._trained} of {self._estimated.missing}: {config.name}, {cell.model}, "
            f"{cell.setting}, {cell.last} steps at {config.learning_rate:g}, seed {config.seed}: "
            f"{duration(float(str(found['seconds'])))}; {self._left()} left"
        )
        if self._show:
            self._bar.console.print(line, highlight=False, soft_wrap=True, markup=False)

    def _advance(self, work: float) -> None:
        self._worked += work
        self._bar.update(self._task, completed=self._worked, left=f"{self._left()} left")

    def _left(self) -> str:
        """Time that is left at the pace so far."""
        seconds = time.monotonic() - self._began
        speed = self._worked / seconds if self._worked else self._speed
        return duration(max(0.0, self._estimated.work - self._worked) / speed)
