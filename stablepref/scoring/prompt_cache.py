"""Prompt features of a scorer, remembered while its weights stay as they are."""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, final

import torch

from stablepref.runtime.inference import inference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from stablepref.scoring.contract import BatchScorer

CAPACITY = 4096
ROOM = 2**27
CHUNK = 256


@final
class PromptCache:
    """The most recent prompts' features, within bounds; safe to share between threads.

    Args:
        capacity: Prompts.
        room: Bytes of prompts and features together; the prompts of one call are scored whatever
            they take, and forgotten after it where they take more.
    """

    def __init__(self, capacity: int = CAPACITY, room: int = ROOM) -> None:
        self.capacity = capacity
        self.room = room
        self._bytes = 0
        self._rows: OrderedDict[str, Tensor] = OrderedDict()
        self._weights: tuple[tuple[int, int], ...] = ()
        self._lock = threading.Lock()

    def encode(self, scorer: BatchScorer, prompts: Sequence[str]) -> Tensor:
        """Features `(len(prompts), ...)` without gradient; each distinct prompt is encoded once.

        The memory is emptied whenever a weight was written to, moved or cast.
        """
        with self._lock, inference(scorer):
            weights = tuple((p.data_ptr(), _writes(p)) for p in scorer.parameters())
            if weights != self._weights:
                self._rows.clear()
                self._bytes = 0
                self._weights = weights
            distinct = list(dict.fromkeys(prompts))
            found = {p: self._rows[p] for p in distinct if p in self._rows}
            missing = [p for p in distinct if p not in found]
            for start in range(0, len(missing), CHUNK):
                chunk = missing[start : start + CHUNK]
                rows = scorer.encode_prompts(chunk)
                # Each row by itself: a view would keep the rows of all prompts beside it.
                found.update(zip(chunk, (row.clone() for row in rows), strict=True))
            for prompt in distinct:
                if prompt not in self._rows:
                    self._bytes += _size(prompt, found[prompt])
                self._rows[prompt] = found[prompt]
                self._rows.move_to_end(prompt)
            while len(self._rows) > self.capacity or self._bytes > self.room:
                self._bytes -= _size(*self._rows.popitem(last=False))
            return torch.stack([found[p] for p in prompts])

    def __deepcopy__(self, memo: dict[int, object]) -> PromptCache:
        """A copied model begins with an empty memory (and a lock of its own)."""
        return PromptCache(self.capacity, self.room)

    def __reduce__(self) -> tuple[type[PromptCache], tuple[int, int]]:
        """A pickled model, as sent to another process, leaves its memory behind."""
        return PromptCache, (self.capacity, self.room)


def _size(prompt: str, row: Tensor) -> int:
    """Bytes that a prompt and its features take."""
    return sys.getsizeof(prompt) + row.nbytes


def _writes(parameter: Tensor) -> int:
    """How often `parameter` was written in place; inference tensors do not count."""
    return -1 if parameter.is_inference() else parameter._version
