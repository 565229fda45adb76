"""Running a module in evaluation mode and without gradients, from any number of threads."""

from __future__ import annotations

import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Protocol

import torch

from stablepref.runtime.threads import threads_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

_KINDS = ("cpu", "cuda", "xpu", "mps")
"""Kinds of devices that compute under autocast."""
_lock = threading.Lock()
_entries: dict[nn.Module, int] = {}
"""How many times each part that was in training mode is held in evaluation mode now."""


class HasModules(Protocol):
    """A module, or what is as good as one here."""

    def modules(self) -> Iterator[nn.Module]:
        """All its parts, as of any `torch.nn.Module`."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """All its weights, as of any `torch.nn.Module`."""


@contextmanager
def inference(module: HasModules) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards each submodule's own mode from before.

    Threads may enter with one module, or with modules that share parts, at the same time: a part
    gets its mode back when the last of them leaves. Autocast is off: the module computes in the
    type of its weights, wherever it is called. Small models compute with one thread: see
    `stablepref.runtime.threads`.
    """
    with _lock:
        held = [part for part in module.modules() if part.training or part in _entries]
        for part in held:
            part.training = False
            _entries[part] = _entries.get(part, 0) + 1
    try:
        with ExitStack() as stack:
            for kind in _KINDS:
                if torch.is_autocast_enabled(kind):
                    stack.enter_context(torch.autocast(kind, enabled=False))
            stack.enter_context(torch.inference_mode())
            stack.enter_context(threads_for(module))
            yield
    finally:
        with _lock:
            for part in held:
                _entries[part] -= 1
                if not _entries[part]:
                    del _entries[part]
                    part.training = True
