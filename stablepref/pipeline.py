"""Images on their way to the model: decoded ahead by threads, computed in batches that fit."""

from __future__ import annotations

import itertools
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np
import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor

from stablepref.images import ImageError, Source, decode
from stablepref.inference import inference

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from concurrent.futures import Future

    from stablepref.scorer import Scorer

CPU_BATCH = 16
ACCELERATOR_BATCH = 64
MOST_WORKERS = 16


@final
@dataclass(frozen=True)
class Prepared:
    """An image on its way to the model: exact inputs, float pixels, or the reason it is bad."""

    source: Source
    prompt: str
    inputs: Tensor | None = None
    pixels: Tensor | None = None
    error: ImageError | None = None


@final
@dataclass
class BatchLimit:
    """How many images are encoded at once; halved for good when memory runs out."""

    size: int

    @classmethod
    def of(cls, scorer: Scorer, batch_size: int | None) -> BatchLimit:
        """The size asked for, or a default for the kind of device."""
        if batch_size is None:
            return cls(CPU_BATCH if scorer.device.type == "cpu" else ACCELERATOR_BATCH)
        if batch_size < 1:
            msg = f"batch_size must be 1 or more, got {batch_size}"
            raise ValueError(msg)
        return cls(batch_size)

    def apply(
        self, function: Callable[[list[Prepared]], Tensor], items: list[Prepared], encodes: int
    ) -> Tensor:
        """Rows `(len(items), ...)` of `function` over pieces that fit in memory."""
        done: list[Tensor] = []
        while items:
            count = max(1, self.size // encodes)
            try:
                done.append(function(items[:count]))
            except RuntimeError as error:
                if count == 1 or not should_reduce_batch_size(error):
                    raise
                self.size = max(1, self.size // 2)
            else:
                items = items[count:]
                continue
            clear_device_cache(garbage_collection=True)
        return torch.cat(done)


def computed_rows(
    scorer: Scorer,
    pairs: Iterable[tuple[Source, str]],
    *,
    limit: BatchLimit,
    function: Callable[[list[Prepared]], Tensor],
    keep_pixels: bool = False,
    encodes: int = 1,
) -> Iterator[tuple[Prepared, Tensor | None]]:
    """Each image in order with its row of `function`, on the CPU, or None if it is bad.

    Rows are fetched one batch late, so that an accelerator always has work queued.
    """
    waiting: tuple[list[Prepared], Tensor | None] = [], None
    failure: ValueError | None = None
    prepared = _prepared(scorer, pairs, ahead=2 * limit.size, keep_pixels=keep_pixels)
    with closing(prepared):
        while failure is None:
            batch, failure = _take(prepared, max(1, limit.size // encodes))
            good = [item for item in batch if item.error is None]
            with inference(scorer):
                rows = limit.apply(function, good, encodes) if good else None
            yield from _fetched(*waiting)
            waiting = batch, rows
            if not batch:
                break
        yield from _fetched(*waiting)
    if failure is not None:
        raise failure


def _take(prepared: Iterator[Prepared], count: int) -> tuple[list[Prepared], ValueError | None]:
    """The next `count` images, fewer at the end, and the error that ended them, if one did."""
    batch: list[Prepared] = []
    try:
        batch.extend(itertools.islice(prepared, count))
    except ValueError as error:
        return batch, error
    return batch, None


def _fetched(
    batch: list[Prepared], rows: Tensor | None
) -> Iterator[tuple[Prepared, Tensor | None]]:
    fetched = iter(()) if rows is None else iter(rows.float().cpu())
    for item in batch:
        yield item, next(fetched) if item.error is None else None


def _prepared(
    scorer: Scorer, pairs: Iterable[tuple[Source, str]], *, ahead: int, keep_pixels: bool
) -> Generator[Prepared]:
    """Images decoded and preprocessed by threads, in order, at most `ahead` of them in memory.

    An error of `pairs` itself, such as a folder that is missing, is raised after the images
    before it.
    """
    workers = min(MOST_WORKERS, os.cpu_count() or 1)
    queue: deque[Future[Prepared]] = deque()
    failure: Exception | None = None
    pool = ThreadPoolExecutor(workers, thread_name_prefix="stablepref-decode")
    try:
        try:
            for source, prompt in pairs:
                queue.append(pool.submit(_prepare, scorer, source, prompt, keep_pixels))
                if len(queue) >= ahead:
                    yield queue.popleft().result()
        except ValueError as error:
            failure = error
        while queue:
            yield queue.popleft().result()
        if failure is not None:
            raise failure
    finally:
        pool.shutdown(cancel_futures=True)


def _prepare(scorer: Scorer, source: Source, prompt: str, keep_pixels: bool) -> Prepared:
    try:
        image = decode(source)
        if isinstance(image, Tensor):
            return Prepared(source, prompt, pixels=image)
        inputs = scorer.preprocess.exact(image)
    except ImageError as error:
        return Prepared(source, prompt, error=error)
    except ValueError as error:  # a decoded picture that the protocol cannot take
        return Prepared(source, prompt, error=ImageError(source.index, source.name, str(error)))
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1) if keep_pixels else None
    return Prepared(source, prompt, inputs=inputs, pixels=pixels)
