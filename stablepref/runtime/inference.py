"""Running a module in evaluation mode and without gradients, from any number of threads."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

_lock = threading.Lock()
_entries: dict[nn.Module, int] = {}
"""How many times each part that was in training mode is held in evaluation mode now."""


class HasModules(Protocol):
    """A module, or what is as good as one here."""

    def modules(self) -> Iterator[nn.Module]:
        """All its parts, as of any `torch.nn.Module`."""


@contextmanager
def inference(module: HasModules) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards each submodule's own mode from before.

    Threads may enter with one module, or with modules that share parts, at the same time: a part
    gets its mode back when the last of them leaves.
    """
    with _lock:
        held = [part for part in module.modules() if part.training or part in _entries]
        for part in held:
            part.training = False
            _entries[part] = _entries.get(part, 0) + 1
    try:
        with torch.inference_mode():
            yield
    finally:
        with _lock:
            for part in held:
                _entries[part] -= 1
                if not _entries[part]:
                    del _entries[part]
                    part.training = True
