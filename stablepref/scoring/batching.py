"""Images on their way to the model: decoded ahead by threads, computed in batches that fit."""

from __future__ import annotations

import itertools
import os
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, final
from weakref import WeakKeyDictionary

import numpy as np
import torch
from accelerate.utils import send_to_device
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from PIL import Image
from torch import Tensor

from stablepref.images.decoding import decode
from stablepref.images.sources import ImageError, Source
from stablepref.runtime.ahead import ahead
from stablepref.runtime.inference import inference

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence

    from stablepref.augment.perturbations import Perturbation
    from stablepref.scoring.contract import BatchScorer

CPU_BATCH = 16
ACCELERATOR_BATCH = 64
WORKERS = min(16, os.cpu_count() or 1)

_fitted: WeakKeyDictionary[BatchScorer, dict[torch.device, int]] = WeakKeyDictionary()
"""For each scorer and device the batch that fitted after a larger one had not."""


def is_whole(value: object) -> bool:
    """Whether a value is a whole number, which True and False are not meant as."""
    return isinstance(value, int) and not isinstance(value, bool)


@final
@dataclass(frozen=True)
class Prepared:
    """An image on its way to the model: exact inputs, float pixels, or the reason it is bad.

    Attributes:
        source: The image.
        prompt: What it is scored against.
        inputs: Its inputs in the exact form, as one image's; None for float pixels.
        pixels: Its pixels `(3, H, W)`, uint8 or float; None where they are not needed.
        disturbed: The exact inputs of the image under each perturbation.
        error: Why it cannot be used, else None.
    """

    source: Source
    prompt: str
    inputs: Any = None
    pixels: Tensor | None = None
    disturbed: Sequence[Any] = ()
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
    def of(cls, scorer: BatchScorer, batch_size: int | None) -> BatchLimit:
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
    scorer: BatchScorer,
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
    most = 2 * min(limit.size, max(limit.size // encodes, WORKERS))
    with closing(ahead(prepare, pairs, workers=WORKERS, most=most)) as prepared:
        while failure is None:
            batch, failure = _take(prepared, max(1, limit.size // encodes))
            good = [item for item in batch if item.error is None]
            try:
                with inference(scorer):
                    rows = limit.apply(function, good, encodes, scorer.device) if good else None
            except Exception:  # the batch before is done nevertheless
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


def _prepare(
    scorer: BatchScorer,
    pair: tuple[Source, str],
    *,
    keep_pixels: bool,
    perturbations: Mapping[str, Perturbation],
) -> Prepared:
    source, prompt = pair
    try:
        image = decode(source)
        disturbed = _disturbed(scorer, image, perturbations) if perturbations else ()
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
    scorer: BatchScorer, image: Image.Image | Tensor, perturbations: Mapping[str, Perturbation]
) -> list[Any]:
    """Exact inputs under each perturbation; float pixels are rounded to 8 bits for them."""
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
    return inputs


def prepared_inputs(scorer: BatchScorer, items: Sequence[Prepared]) -> list[Any]:
    """The inputs of each image where the model is: exact ones as they are, of float pixels made."""
    inputs = {
        row: send_to_device(item.inputs, scorer.device, non_blocking=True)
        for row, item in enumerate(items)
        if item.inputs is not None
    }
    floats = [row for row in range(len(items)) if row not in inputs]
    for rows, pixels in of_equal_size(scorer, items, floats):
        inputs.update(zip(rows, scorer.preprocess(pixels), strict=True))
    return [inputs[row] for row in range(len(items))]


def encode_prepared(scorer: BatchScorer, items: Sequence[Prepared]) -> Tensor:
    """Image features `(len(items), ...)`."""
    return scorer.encode_inputs(scorer.collate(prepared_inputs(scorer, items)))


def of_equal_size(
    scorer: BatchScorer, items: Sequence[Prepared], rows: Iterable[int]
) -> Iterator[tuple[list[int], Tensor]]:
    """Pixels `(n, 3, H, W)` of those of `rows` that are of one size, floats where the model is.

    Nothing is padded: a wide picture beside a tall one could fill the memory.
    """
    sizes: dict[torch.Size, list[int]] = {}
    for row in rows:
        pixels = items[row].pixels
        assert pixels is not None
        sizes.setdefault(pixels.shape, []).append(row)
    for equal in sizes.values():
        yield equal, torch.stack([_on_device(items[row], scorer) for row in equal])


def _on_device(item: Prepared, scorer: BatchScorer) -> Tensor:
    """The item's pixels as floats in [0, 1], where the model is."""
    assert item.pixels is not None
    pixels = item.pixels.to(scorer.device, non_blocking=True)
    return pixels if pixels.is_floating_point() else pixels.float() / 255
