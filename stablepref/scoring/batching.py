"""Images on their way to the model: decoded ahead by threads, computed in batches that fit."""

from __future__ import annotations

import itertools
import logging
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

from stablepref.augment.views import mentions_side, weak_view_boxes
from stablepref.images.decoding import decode
from stablepref.images.sources import ImageError, Source
from stablepref.runtime.ahead import ahead
from stablepref.runtime.inference import inference
from stablepref.runtime.threads import threads_for
from stablepref.scoring.contract import FailedInputsError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence

    from stablepref.augment.perturbations import Perturbation
    from stablepref.scoring.contract import BatchScorer, Preprocessing

log = logging.getLogger(__name__)

CPU_BATCH = 16
CPU_CACHE = 24 * 2**20
"""Bytes of a batch's largest intermediate result on a CPU: docs/scoring.md has the measurements."""
ACCELERATOR_BATCH = 64
LARGE = 2**21
"""Pixels above which a picture's weak views are cut out by the thread that decodes it."""
VIEW_SEED = 0
WORKERS = min(16, os.cpu_count() or 1)

_fitted: WeakKeyDictionary[BatchScorer, dict[torch.device, int]] = WeakKeyDictionary()
"""For each scorer and device the batch that fitted after a larger one had not."""


def is_whole(value: object) -> bool:
    """Whether a value is a whole number, which True and False are not meant as."""
    return isinstance(value, int) and not isinstance(value, bool)


def device_batch(device: torch.device) -> int:
    """How many images are encoded at once on a kind of device where nobody says."""
    return CPU_BATCH if device.type == "cpu" else ACCELERATOR_BATCH


def default_batch(scorer: BatchScorer) -> int:
    """How many images are encoded at once where nobody says.

    On a CPU fewer than `CPU_BATCH` of a large model, so that what one layer writes is still in the
    cache when the next one reads it.
    """
    most, each = device_batch(scorer.device), scorer.widest_bytes
    if scorer.device.type != "cpu" or not each:
        return most
    return max(1, min(most, CPU_CACHE // each))


@final
@dataclass(frozen=True)
class WeakViews:
    """The weak views that every image gets, so that a score depends on no neighbour and no place.

    Attributes:
        boxes: `(views, 4)`: left, top, right and bottom, as fractions.
        flips: `(views,)`: which are mirrored, unless a prompt names a side.
    """

    boxes: Tensor
    flips: Tensor

    @classmethod
    def first(cls, views: int) -> WeakViews | None:
        """So many of them; None for none."""
        if not views:
            return None
        boxes, flips = weak_view_boxes(1, views, seed=VIEW_SEED, hflip=True)
        return cls(boxes[0], flips[0])

    def of(self, prompt: str) -> tuple[Tensor, Tensor]:
        """Boxes and flips under a prompt."""
        return self.boxes, self.flips & (not mentions_side(prompt))


@final
@dataclass(frozen=True)
class Prepared:
    """An image on its way to the model: exact inputs, float pixels, or the reason it is bad.

    Attributes:
        source: The image.
        prompt: What it is scored against.
        inputs: Its inputs in the exact form, as one image's; None for float pixels.
        pixels: Its pixels `(3, H, W)`, uint8 or float; None where they are not needed.
        views: The inputs of each weak view of a large picture, whose pixels are not kept.
        disturbed: The exact inputs of the image under each perturbation.
        error: Why it cannot be used, else None.
    """

    source: Source
    prompt: str
    inputs: Any = None
    pixels: Tensor | None = None
    views: Sequence[Any] | None = None
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
            default = default_batch(scorer)
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
    ) -> tuple[Tensor | None, dict[int, ImageError]]:
        """Rows `(good, ...)` of `function`, which runs on `device`, in pieces that fit.

        A large picture that does not fit by itself has no row, but an error, by its index; as have
        those that `function` names in a FailedInputsError.
        """
        done: list[Tensor] = []
        failed: dict[int, ImageError] = {}
        while items:
            count = max(1, self.size // encodes)
            try:
                done.append(function(items[:count]))
            except FailedInputsError as error:
                for row, reason in error.reasons.items():
                    source = items[row].source
                    failed[source.index] = ImageError(source.index, source.name, reason)
                items = [item for row, item in enumerate(items) if row not in error.reasons]
                continue
            except RuntimeError as error:
                if not should_reduce_batch_size(error):
                    raise
                if count == 1:
                    if not _is_large(items[0].pixels):
                        raise
                    failed[items[0].source.index] = _too_large(items[0].source, error)
                    items = items[1:]
                    continue
                self.size = self.fitted[device] = max(1, self.size // 2)
                log.info("memory ran out on %s: %d images at once from now on", device, self.size)
            else:
                items = items[count:]
                continue
            clear_device_cache(garbage_collection=True)
        return torch.cat(done) if done else None, failed


def computed_rows(
    scorer: BatchScorer,
    pairs: Iterable[tuple[Source, str]],
    *,
    limit: BatchLimit,
    function: Callable[[list[Prepared]], Tensor],
    views: WeakViews | None = None,
    perturbations: Mapping[str, Perturbation] = MappingProxyType({}),
    encodes: int = 1,
) -> Generator[tuple[Prepared, Tensor | None]]:
    """Each image in order with its row of `function`, on the CPU, or None if it is bad.

    With `views` each item brings what its weak views are made of: its pixels, or for a large
    picture, of which several would fill the memory, the inputs of its views.

    Rows are fetched one batch late, so that an accelerator always has work queued.
    """
    waiting: tuple[list[Prepared], Tensor | None] = [], None
    failure: Exception | None = None
    prepare = partial(_prepare, scorer, views=views, perturbations=perturbations)
    # Two batches, but not fewer than keep all threads at work.
    most = 2 * min(limit.size, max(limit.size // encodes, WORKERS))
    with closing(ahead(prepare, pairs, workers=WORKERS, most=most)) as prepared:
        while failure is None:
            batch, failure = _take(prepared, max(1, limit.size // encodes))
            good = [item for item in batch if item.error is None]
            try:
                with inference(scorer):
                    rows, failed = limit.apply(function, good, encodes, scorer.device)
            except Exception:  # the batch before is done nevertheless
                yield from _fetched(*waiting)
                raise
            yield from _fetched(*waiting)
            for place, item in enumerate(batch):
                if item.source.index in failed:
                    batch[place] = Prepared(
                        item.source, item.prompt, error=failed[item.source.index]
                    )
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
    views: WeakViews | None,
    perturbations: Mapping[str, Perturbation],
) -> Prepared:
    source, prompt = pair
    in_views: Sequence[Any] | None = None
    try:
        image = decode(source)
        with threads_for(scorer):
            disturbed = _disturbed(scorer, image, perturbations) if perturbations else ()
            if isinstance(image, Tensor):
                return Prepared(source, prompt, pixels=image, disturbed=disturbed)
            inputs = scorer.preprocess.exact(image)
            large = views is not None and image.width * image.height > LARGE
            if large and views is not None:
                in_views = views_of(scorer.preprocess, image, *views.of(prompt))
    except ImageError as error:
        return Prepared(source, prompt, error=error)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not should_reduce_batch_size(error):
            raise
        return Prepared(source, prompt, error=_too_large(source, error))
    except ValueError as error:  # a decoded picture that the protocol cannot take
        return Prepared(source, prompt, error=ImageError(source.index, source.name, str(error)))
    pixels = None
    if views is not None and in_views is None:
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    return Prepared(
        source, prompt, inputs=inputs, pixels=pixels, views=in_views, disturbed=disturbed
    )


def views_of(
    preprocess: Preprocessing, image: Image.Image, boxes: Tensor, hflip: Tensor
) -> Sequence[Any]:
    """The inputs of each view of one picture: piece by piece where the preprocessing can.

    Args:
        preprocess: A scorer's.
        image: A PIL image of mode RGB.
        boxes: `(views, 4)`: left, top, right and bottom, as fractions.
        hflip: Bool `(views,)`.
    """
    in_pieces = getattr(preprocess, "views", None)
    if in_pieces is not None:
        found: Sequence[Any] = in_pieces(image, boxes, hflip)
        return found
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    whole: Sequence[Any] = preprocess(pixels[None], boxes[None], hflip[None])[0]
    return whole


def _is_large(pixels: Tensor | None) -> bool:
    return pixels is not None and pixels.shape[-2] * pixels.shape[-1] > LARGE


def _too_large(source: Source, error: Exception) -> ImageError:
    detail = next(iter(str(error).splitlines()), "")
    reason = f"it does not fit into memory{f' ({detail})' if detail else ''}: make it smaller"
    return ImageError(source.index, source.name, reason)


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
