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
"""How long processes wait for the slowest one, which may still be generating images."""

T = TypeVar("T")


def joined_processes() -> PartialState:
    """The state of this process among those of a launcher, or of this one alone.

    Raises:
        ValueError: A launcher has started several processes, but accelerate was used in this one
            before, without them.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        return PartialState()
    # Unless asked, accelerate joins processes on accelerators only.
    state = PartialState(cpu=not torch.accelerator.is_available(), timeout=PATIENCE)
    if state.num_processes != count:
        msg = (
            f"a launcher has started {count} processes, but accelerate runs {state.num_processes}: "
            "each would do all the work; start the benchmark before anything else uses accelerate, "
            "on CPUs with torchrun"
        )
        raise ValueError(msg)
    return state


def own_part(items: Sequence[T], state: PartialState) -> Sequence[T]:
    """What this process does of `items`: every n-th one, so that all get the same mix of work."""
    return items[state.process_index :: state.num_processes]
