"""How many threads torch computes with: one where a model is too small to share among several.

Threads that share a small operation wait for each other at its end, and beside other busy processes
they wait long: the last of them to get a core decides. docs/cli.md has the measurements.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Final, Protocol

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

SMALL: Final = 20_000_000
"""Models with fewer weights than this compute with one thread: `speed threads` measures why."""
VARIABLES: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Environment variables by which a user chooses; torch reads them when it starts."""

_chosen: list[int] = []
"""The number that `use_threads` was given, if it was called."""


class HasParameters(Protocol):
    """A module, or what is as good as one here."""

    def parameters(self) -> Iterator[Tensor]:
        """All its weights, as of any `torch.nn.Module`."""


def use_threads(count: int | None) -> None:
    """Let torch compute with this many threads from now on, whatever the size of a model.

    Args:
        count: For the whole process; None leaves the choice to `threads_for`.

    Raises:
        ValueError: `count` is less than 1.
    """
    if count is None:
        return
    if count < 1:
        msg = f"the number of threads is {count}; expected 1 or more"
        raise ValueError(msg)
    torch.set_num_threads(count)
    _chosen[:] = [count]


@contextmanager
def threads_for(*models: HasParameters) -> Iterator[None]:
    """Compute with one thread while the block runs, if the models on the CPU are small.

    They are small if together they have fewer than `SMALL` weights, but some, and none of them says
    that it is `joint`: what a function computes with need not be among its weights. Only the thread
    that runs the block is concerned, and it has its own number again afterwards. Whatever a user
    chose stays: by `use_threads`, by the variables `OMP_NUM_THREADS` and `MKL_NUM_THREADS`, or by
    `torch.set_num_threads`, where that is another number than torch's own. Where torch does not
    compute with OpenMP, nothing changes.

    Args:
        models: All that compute in the block.
    """
    before = torch.get_num_threads()
    library = _openmp()
    if library is None or before == 1 or _is_chosen(before) or not _are_small(models):
        yield
        return
    # torch.set_num_threads would set it for all threads that begin meanwhile, for good.
    library.omp_set_num_threads(1)
    try:
        yield
    finally:
        if torch.get_num_threads() == 1:  # else someone chose another number meanwhile
            library.omp_set_num_threads(before)


def streams_for(*models: HasParameters) -> int:
    """How many pieces of work with these models may run side by side, each with one thread.

    As many as torch has threads where `threads_for` would use one of them, and 1 elsewhere: small
    models side by side do not wait for each other, as threads that share one of them do.
    """
    count = torch.get_num_threads()
    if _openmp() is None or count == 1 or _is_chosen(count) or not _are_small(models):
        return 1
    return count


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread while the block runs, whatever the model, in this thread only."""
    library, before = _openmp(), torch.get_num_threads()
    if library is None or before == 1:
        yield
        return
    library.omp_set_num_threads(1)
    try:
        yield
    finally:
        library.omp_set_num_threads(before)


def _is_chosen(count: int) -> bool:
    """Whether a user chose the number of threads."""
    if _chosen or any(os.environ.get(name) for name in VARIABLES):
        return True
    cores = {os.cpu_count() or 1}
    if hasattr(os, "sched_getaffinity"):
        cores.add(len(os.sched_getaffinity(0)))
    # torch's own is one for each core, or one for each of two that share their units.
    return count not in {number // share for number in cores for share in (1, 2)}


def _are_small(models: tuple[HasParameters, ...]) -> bool:
    count = 0
    for model in models:
        if getattr(model, "joint", False):
            return False
        for weight in model.parameters():
            count += weight.numel()
            if count >= SMALL or weight.device.type != "cpu":
                return False
    return count > 0


@cache
def _openmp() -> ctypes.CDLL | None:
    """The OpenMP that torch is linked with; None where it computes with something else."""
    library = ctypes.CDLL(torch._C.__file__)
    return library if hasattr(library, "omp_set_num_threads") else None
