"""Trainings of the ablations side by side, in processes that each open the models and data once."""

from __future__ import annotations

import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TYPE_CHECKING

import torch

from .train import train_cell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .cells import Cell
    from .world import World

_opened: list[World] = []  # of a process of the pool, filled as it begins


def start_jobs(opener: Callable[[], World], *, jobs: int, threads: int) -> ProcessPoolExecutor:
    """Processes that train cells; they are started as they are needed.

    Several processes of one thread get more out of a CPU than one process of several threads, since
    these models' matrices are small.

    Args:
        opener: Opens models and data, in each process; it is pickled.
        jobs: How many processes.
        threads: Of PyTorch in each.
    """
    return ProcessPoolExecutor(
        jobs,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(opener, threads),
    )


def train_beside(
    pool: ProcessPoolExecutor, cells: Sequence[Cell]
) -> Iterator[tuple[Cell, dict[str, object]]]:
    """Train cells in the pool's processes; each comes, when it is done, with what was found.

    Their tokens must be cached, or every process would write them.
    """
    futures = {pool.submit(_train, cell): cell for cell in cells}
    for future in as_completed(futures):
        yield futures[future], future.result()


def _begin(opener: Callable[[], World], threads: int) -> None:
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    _opened.append(opener())


def _leave_with_parent() -> None:
    """A killed parent cannot end its processes, and they would wait for it for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _train(cell: Cell) -> dict[str, object]:
    (world,) = _opened
    return train_cell(cell, world.scorers[cell.model], world.data(cell.model, cell.setting))
