"""Requests of many callers scored together: one queue and one computing thread for each scorer."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol, final

from accelerate.utils import send_to_device

from stablepref.images.sources import Source
from stablepref.output.text import shorten
from stablepref.runtime.inference import inference
from stablepref.scoring.batching import BatchLimit, Prepared, device_batch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch
    from torch import nn

MAX_DELAY: Final = 0.005
"""Seconds for which an image waits for others, by default: less than a batch takes anywhere."""

log = logging.getLogger(__name__)

Score = float | str
"""A score, or the reason why there is none."""


class Batched(Protocol):
    """What is asked of a scorer here."""

    @property
    def name(self) -> str:
        """What errors and the log call it."""

    @property
    def device(self) -> torch.device:
        """Where its inputs go."""

    def score_inputs(self, inputs: Sequence[Any], prompts: Sequence[str]) -> torch.Tensor:
        """Scores `(batch,)`; see `Scorer.score_inputs`."""

    def modules(self) -> Iterator[nn.Module]:
        """As of any `torch.nn.Module`."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """As of any `torch.nn.Module`."""


@final
@dataclass(frozen=True)
class _Asked:
    """What one caller waits for."""

    inputs: Sequence[Any]
    prompts: Sequence[str]
    answer: Future[list[Score]] = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)


@final
class MicroBatches:
    """Scores the inputs of many callers in common batches.

    While a batch is computed others gather; a batch that is not full waits until its oldest image
    has waited for `max_delay`. One caller's inputs stay together, in their order, so that a caller
    who is alone gets the same batch, and thus the same scores, as from the scorer itself.

    A batch in which something fails is taken apart until every image has its score, or the reason
    why it has none: no caller fails for another's image.

    Args:
        scorer: The model.
        max_batch: Images at once; None for 16 on a CPU and 64 elsewhere. Halved when memory runs
            out. A caller who brings more gets batches of this size.
        max_delay: Seconds for which an image waits for others.
        on_batch: Called with the number of images of each batch.

    Raises:
        ValueError: `max_batch` or `max_delay` is out of range.
    """

    def __init__(
        self,
        scorer: Batched,
        *,
        max_batch: int | None = None,
        max_delay: float = MAX_DELAY,
        on_batch: Callable[[int], None] | None = None,
    ) -> None:
        if not 0 <= max_delay < math.inf:
            msg = f"max_delay must be a number of seconds, 0 or more, got {max_delay!r}"
            raise ValueError(msg)
        self.scorer = scorer
        self.max_delay = max_delay
        size = device_batch(scorer.device) if max_batch is None else max_batch
        self._limit = BatchLimit.of(scorer, size)  # type: ignore[arg-type] # it asks for the device
        self._on_batch = on_batch
        self._queue: deque[_Asked] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None
        self._rate = 0.0  # images a second

    @property
    def waiting(self) -> int:
        """Images that wait for their batch."""
        with self._changed:
            return sum(len(asked.inputs) for asked in self._queue)

    def seconds_to_wait(self) -> float:
        """About how long an image that comes now would wait, at the latest speed."""
        return self.waiting / self._rate if self._rate else 0.0

    def submit(self, inputs: Sequence[Any], prompts: Sequence[str]) -> Future[list[Score]]:
        """Ask for the scores of inputs, each under its prompt.

        Args:
            inputs: For each image what `scorer.preprocess` makes of one.
            prompts: As many strings.

        Returns:
            A future of one score, or reason, for each.

        Raises:
            RuntimeError: `close` was called.
        """
        asked = _Asked(list(inputs), list(prompts))
        if not asked.inputs:
            asked.answer.set_result([])
            return asked.answer
        with self._changed:
            if self._closed:
                msg = f"{self.scorer.name} takes no more images: it is being closed"
                raise RuntimeError(msg)
            self._queue.append(asked)
            if self._thread is None:
                name = f"scores of {self.scorer.name}"
                self._thread = threading.Thread(target=self._run, name=name, daemon=True)
                self._thread.start()
            self._changed.notify()
        return asked.answer

    def close(self) -> None:
        """Finish what was asked for, and take no more."""
        with self._changed:
            self._closed = True
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while batch := self._next():
            started = time.monotonic()
            inputs = [one for asked in batch for one in asked.inputs]
            prompts = [prompt for asked in batch for prompt in asked.prompts]
            if self._on_batch is not None:
                self._on_batch(len(inputs))
            scores = iter(self._scores(inputs, prompts))
            for asked in batch:
                found = [next(scores) for _ in asked.inputs]
                if asked.answer.set_running_or_notify_cancel():
                    asked.answer.set_result(found)
            rate = len(inputs) / max(1e-6, time.monotonic() - started)
            self._rate = 0.8 * self._rate + 0.2 * rate if self._rate else rate

    def _next(self) -> list[_Asked]:
        """The next callers' inputs, at least one caller's; none once it is closed and empty."""
        with self._changed:
            while not self._closed:
                count = sum(len(asked.inputs) for asked in self._queue)
                if count >= self._limit.size:
                    break
                left = None
                if self._queue:
                    left = self._queue[0].since + self.max_delay - time.monotonic()
                    if left <= 0:
                        break
                self._changed.wait(left)
            batch: list[_Asked] = []
            count = 0
            while self._queue:
                count += len(self._queue[0].inputs)
                if batch and count > self._limit.size:
                    break
                batch.append(self._queue.popleft())
            return batch

    def _scores(self, inputs: list[Any], prompts: list[str]) -> list[Score]:
        """One score or reason for each; what fails together is tried one by one."""
        try:
            return self._computed(inputs, prompts)
        except Exception as error:
            if len(inputs) > 1:
                return [
                    self._scores([one], [prompt])[0]
                    for one, prompt in zip(inputs, prompts, strict=True)
                ]
            log.exception("%s failed for an image", self.scorer.name)
            said = shorten(next(iter(str(error).splitlines()), ""))
            return [f"{self.scorer.name} failed: {type(error).__name__}: {said}"]

    def _computed(self, inputs: list[Any], prompts: list[str]) -> list[Score]:
        """Scores, or the scorer's own reasons, in pieces that fit into memory."""
        items = [
            Prepared(Source(row, "", None), prompt, inputs=one)
            for row, (one, prompt) in enumerate(zip(inputs, prompts, strict=True))
        ]
        with inference(self.scorer):
            rows, failed = self._limit.apply(self._rows, items, 1, self.scorer.device)
        found = iter([] if rows is None else rows.float().tolist())
        scores: list[Score] = []
        for row in range(len(items)):
            score = failed[row].reason if row in failed else next(found)
            if isinstance(score, float) and not math.isfinite(score):
                score = f"the model's score is {score}"
            scores.append(score)
        return scores

    def _rows(self, items: list[Prepared]) -> torch.Tensor:
        device = self.scorer.device
        inputs = [send_to_device(item.inputs, device, non_blocking=True) for item in items]
        return self.scorer.score_inputs(inputs, [item.prompt for item in items])
