"""One benchmark in several processes, as a launcher such as torchrun or accelerate started them."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Final, TypeVar

import torch
from accelerate import PartialState

if TYPE_CHECKING:
    from collections.abc import Sequence

PATIENCE: Final = timedelta(days=30)
"""How long processes wait for the slowest one, which makes images meanwhile."""

T = TypeVar("T")


def joined_processes() -> PartialState:
    """This process among the others; alone where nothing launched it.

    Raises:
        ValueError: A launcher has started several, but this Python process ran accelerate alone
            before.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        return PartialState()
    # Of its own accord accelerate joins processes on accelerators only.
    state = PartialState(cpu=not torch.accelerator.is_available(), timeout=PATIENCE)
    if state.num_processes != count:
        msg = (
            f"a launcher has started {count} processes, but accelerate runs {state.num_processes}: "
            "each would do all the work; start the benchmark before anything else uses accelerate, "
            "on CPUs with torchrun"
        )
        raise ValueError(msg)
    return state


def share(items: Sequence[T], state: PartialState) -> Sequence[T]:
    """This process's part: every n-th item, so that all have the same mixture of work."""
    return items[state.process_index :: state.num_processes]
