"""Prompt features of a scorer, remembered while its weights stay as they are."""

from __future__ import annotations

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
CHUNK = 256


@final
class PromptCache:
    """The most recent prompts' features, at most `capacity`; safe to share between threads."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.capacity = capacity
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
                self._weights = weights
            distinct = list(dict.fromkeys(prompts))
            found = {p: self._rows[p] for p in distinct if p in self._rows}
            missing = [p for p in distinct if p not in found]
            for start in range(0, len(missing), CHUNK):
                chunk = missing[start : start + CHUNK]
                found.update(zip(chunk, scorer.encode_prompts(chunk), strict=True))
            for prompt in distinct:
                self._rows[prompt] = found[prompt]
                self._rows.move_to_end(prompt)
            while len(self._rows) > self.capacity:
                self._rows.popitem(last=False)
            return torch.stack([found[p] for p in prompts])

    def __deepcopy__(self, memo: dict[int, object]) -> PromptCache:
        """A copied model begins with an empty memory (and a lock of its own)."""
        return PromptCache(self.capacity)

    def __reduce__(self) -> tuple[type[PromptCache], tuple[int]]:
        """A pickled model, as sent to another process, leaves its memory behind."""
        return PromptCache, (self.capacity,)


def _writes(parameter: Tensor) -> int:
    """How often `parameter` was written in place; inference tensors do not count."""
    return -1 if parameter.is_inference() else parameter._version
