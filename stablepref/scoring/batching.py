"""Images on their way to the model: decoded ahead by threads, computed in batches that fit."""

from __future__ import annotations

import itertools
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, final
from weakref import WeakKeyDictionary

import numpy as np
import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from PIL import Image
from torch import Tensor

from stablepref.images.decoding import decode
from stablepref.images.sources import ImageError, Source
from stablepref.runtime.inference import inference

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
    from concurrent.futures import Future

    from stablepref.augment.perturbations import Perturbation
    from stablepref.scorer import Scorer

CPU_BATCH = 16
ACCELERATOR_BATCH = 64
WORKERS = min(16, os.cpu_count() or 1)

_fitted: WeakKeyDictionary[Scorer, dict[torch.device, int]] = WeakKeyDictionary()
"""For each scorer and device the batch that fitted after a larger one had not."""


def is_whole(value: object) -> bool:
    """Whether a value is a whole number, which True and False are not meant as."""
    return isinstance(value, int) and not isinstance(value, bool)


@final
@dataclass(frozen=True)
class Prepared:
    """An image on its way to the model: exact inputs, float pixels, or the reason it is bad.

    Inputs of the disturbed image, if it was to be disturbed, are `(perturbations, 3, S, S)`.
    """

    source: Source
    prompt: str
    inputs: Tensor | None = None
    pixels: Tensor | None = None
    disturbed: Tensor | None = None
    error: ImageError | None = None


@final
@dataclass
class BatchLimit:
    """How many images are encoded at once; halved when memory runs out.

    Attributes:
        size: The number.
        fitted: Where the size that fitted is kept for later work on the same device.
    """

    size: int
    fitted: dict[torch.device, int] = field(default_factory=dict)

    @classmethod
    def of(cls, scorer: Scorer, batch_size: int | None) -> BatchLimit:
        """The size asked for, or what fits: a default, or less where that was too much before."""
        fitted = _fitted.setdefault(scorer, {})
        if batch_size is None:
            default = CPU_BATCH if scorer.device.type == "cpu" else ACCELERATOR_BATCH
            return cls(min(default, fitted.get(scorer.device, default)), fitted)
        if not is_whole(batch_size) or batch_size < 1:
            msg = f"batch_size must be a whole number, 1 or more, got {batch_size!r}"
            raise ValueError(msg)
        return cls(batch_size, fitted)

    def apply(
        self,
        function: Callable[[list[Prepared]], Tensor],
        items: list[Prepared],
        encodes: int,
        device: torch.device,
    ) -> Tensor:
        """Rows `(len(items), ...)` of `function`, which runs on `device`, in pieces that fit."""
        done: list[Tensor] = []
        while items:
            count = max(1, self.size // encodes)
            try:
                done.append(function(items[:count]))
            except RuntimeError as error:
                if count == 1 or not should_reduce_batch_size(error):
                    raise
                self.size = self.fitted[device] = max(1, self.size // 2)
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
    perturbations: Mapping[str, Perturbation] = MappingProxyType({}),
    encodes: int = 1,
) -> Generator[tuple[Prepared, Tensor | None]]:
    """Each image in order with its row of `function`, on the CPU, or None if it is bad.

    Rows are fetched one batch late, so that an accelerator always has work queued.
    """
    waiting: tuple[list[Prepared], Tensor | None] = [], None
    failure: Exception | None = None
    prepare = partial(_prepare, scorer, keep_pixels=keep_pixels, perturbations=perturbations)
    # Two batches, but not fewer than keep all threads at work.
    ahead = 2 * min(limit.size, max(limit.size // encodes, WORKERS))
    prepared = _prepared(prepare, pairs, ahead=ahead)
    with closing(prepared):
        while failure is None:
            batch, failure = _take(prepared, max(1, limit.size // encodes))
            good = [item for item in batch if item.error is None]
            try:
                with inference(scorer):
                    rows = limit.apply(function, good, encodes, scorer.device) if good else None
            except Exception:  # the batch before is done all the same
                yield from _fetched(*waiting)
                raise
            yield from _fetched(*waiting)
            waiting = batch, rows
            if not batch:
                break
        yield from _fetched(*waiting)
    if failure is not None:
        raise failure


def _take(prepared: Iterator[Prepared], count: int) -> tuple[list[Prepared], Exception | None]:
    """The next `count` images, fewer at the end, and the error that ended them, if one did."""
    batch: list[Prepared] = []
    try:
        batch.extend(itertools.islice(prepared, count))
    except Exception as error:
        return batch, error
    return batch, None


def _fetched(
    batch: list[Prepared], rows: Tensor | None
) -> Iterator[tuple[Prepared, Tensor | None]]:
    fetched = iter(()) if rows is None else iter(rows.float().cpu())
    for item in batch:
        yield item, next(fetched) if item.error is None else None


def _prepared(
    prepare: Callable[[Source, str], Prepared], pairs: Iterable[tuple[Source, str]], *, ahead: int
) -> Generator[Prepared]:
    """Images decoded and preprocessed by threads, in order, at most `ahead` of them in memory.

    An error of `pairs` itself, whatever a user's generator raises, comes after the images before
    it.
    """
    queue: deque[Future[Prepared]] = deque()
    failure: Exception | None = None
    pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="stablepref-decode")
    try:
        waiting = iter(pairs)
        while True:
            try:
                pair = next(waiting, None)
            except Exception as error:
                failure, pair = error, None
            if pair is None:
                break
            queue.append(pool.submit(prepare, *pair))
            if len(queue) >= ahead:
                yield queue.popleft().result()
        while queue:
            yield queue.popleft().result()
        if failure is not None:
            raise failure
    finally:
        pool.shutdown(cancel_futures=True)


def _prepare(
    scorer: Scorer,
    source: Source,
    prompt: str,
    *,
    keep_pixels: bool,
    perturbations: Mapping[str, Perturbation],
) -> Prepared:
    try:
        image = decode(source)
        disturbed = _disturbed(scorer, image, perturbations) if perturbations else None
        if isinstance(image, Tensor):
            return Prepared(source, prompt, pixels=image, disturbed=disturbed)
        inputs = scorer.preprocess.exact(image)
    except ImageError as error:
        return Prepared(source, prompt, error=error)
    except ValueError as error:  # a decoded picture that the protocol cannot take
        return Prepared(source, prompt, error=ImageError(source.index, source.name, str(error)))
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1) if keep_pixels else None
    return Prepared(source, prompt, inputs=inputs, pixels=pixels, disturbed=disturbed)


def _disturbed(
    scorer: Scorer, image: Image.Image | Tensor, perturbations: Mapping[str, Perturbation]
) -> Tensor:
    """Exact inputs `(perturbations, 3, S, S)`; float pixels are rounded to 8 bits for them."""
    if isinstance(image, Tensor):
        values = (255 * image.detach()).round().byte().permute(1, 2, 0)
        image = Image.fromarray(values.cpu().numpy())
    inputs = []
    for name, disturb in perturbations.items():
        try:
            inputs.append(scorer.preprocess.exact(disturb(image)))
        except ValueError as error:
            msg = f"under the perturbation {name}: {error}"
            raise ValueError(msg) from error
    return torch.stack(inputs)
