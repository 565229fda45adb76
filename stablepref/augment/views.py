"""Weak views: slight random crops and mirror images that leave human preference unchanged.

They are what the anti-interference loss of *Stable Preference* (section 3.2) compares a picture
with; the paper crops an area of [0.85, 1] and mirrors half of the views. The parameters are a pure
function of (seed, step, item, view), so that any batching, any number of processes and any restart
gives the same views. Perturbations for evaluation are in `stablepref.augment.perturbations`.
"""

import math
import re
from collections.abc import Sequence
from typing import Required, TypedDict, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stablepref.augment.philox import uniform
from stablepref.preprocess.resample import Axis, apply_weights, weight_matrices

_RATIO_TRIES = 10  # as torchvision's RandomResizedCrop
_MAX_VIEWS = 1 << 16
_MAX_STEP = 1 << 32
_SIDE_WORDS = re.compile(
    r"\b(left|right)([ -]?(most|wards?|hand|handed|hander|side|sided))?\b", re.IGNORECASE
)


class ViewOptions(TypedDict, total=False):
    """How weak views are drawn; seed and hflip are needed.

    Attributes:
        seed: Any integer.
        step: Training step, from 0 (the default); views change from step to step.
        area: Bounds of the cropped share of the picture's area, which is uniform between them;
            (0.85, 1) by default.
        ratio: Bounds of the crop's own width / height, log-uniform between them, as in
            torchvision's ``RandomResizedCrop``: ten tries to fit, then the largest central crop.
            None, the default, keeps the picture's aspect ratio.
        hflip: Whether half of the views are mirrored left to right. Off where sides carry
            meaning, see `mentions_side`.
    """

    seed: Required[int]
    step: int
    area: tuple[float, float]
    ratio: tuple[float, float] | None
    hflip: Required[bool]


def weak_view_boxes(
    items: int | Sequence[int] | Tensor,
    views: int,
    *,
    seed: int,
    step: int = 0,
    area: tuple[float, float] = (0.85, 1.0),
    ratio: tuple[float, float] | None = None,
    sizes: Tensor | Sequence[Sequence[int]] | None = None,
    hflip: bool,
) -> tuple[Tensor, Tensor]:
    """Where the weak views of each picture lie, and which are mirrored.

    The numbers come from Philox 4x32-10 keyed by ``seed``: a view does not change when other
    pictures or further views are asked for beside it.

    Args:
        items: Identity of each picture, non-negative, below 2^63, such as its place in the data
            set; a single number n stands for the identities 0 to n - 1.
        views: Number of views per picture.
        seed: Key of the numbers, see `ViewOptions`.
        step: Training step.
        area: Bounds of the cropped share of the picture's area.
        ratio: Bounds of the crop's own width / height; None keeps the picture's.
        sizes: Height and width of each picture, ``(n, 2)``; needed for ``ratio`` only.
        hflip: Whether half of the views are mirrored.

    Returns:
        Boxes ``(n, views, 4)``, float64: left, top, right, bottom as fractions of width and
        height; and flips ``(n, views)``, bool. Both on the CPU, as `Preprocess.forward` wants.

    Raises:
        ValueError: If a bound, a count, an identity or ``sizes`` is out of range or missing.
    """
    low, high = area
    if not 0 < low <= high <= 1:
        raise ValueError(f"area is {area}; expected two numbers with 0 < low <= high <= 1")
    if not 0 <= views <= _MAX_VIEWS or not 0 <= step < _MAX_STEP:
        raise ValueError(
            f"views is {views} and step is {step}; expected 0 <= views <= {_MAX_VIEWS} and "
            f"0 <= step < {_MAX_STEP}"
        )
    counters = _counters(items, views, step)
    across, down, mirror, spread = np.moveaxis(uniform(counters, seed), -1, 0)
    if ratio is None:
        width = height = np.sqrt(low + (high - low) * spread)
    else:
        aspects = _aspects(sizes, len(counters))
        width, height, central = _free_crop(counters, seed, area, ratio, aspects)
        across, down = np.where(central, 0.5, across), np.where(central, 0.5, down)
    left, top = across * (1 - width), down * (1 - height)
    boxes = np.stack([left, top, left + width, top + height], axis=-1).clip(0, 1)
    flips = (mirror < 0.5) & hflip
    return torch.from_numpy(boxes), torch.from_numpy(flips)


def _counters(items: int | Sequence[int] | Tensor, views: int, step: int) -> NDArray[np.uint64]:
    """Philox counters ``(n, views, 4)``: item (two words), step, view."""
    if isinstance(items, Tensor):
        items = items.tolist()
    ids = range(items) if isinstance(items, int) else items
    if isinstance(items, int) and items < 0:
        raise ValueError(f"items is {items}; expected a number of pictures or their identities")
    if any(not 0 <= i < 1 << 63 for i in ids):
        raise ValueError(f"items are from {min(ids)} to {max(ids)}; expected 0 <= item < 2^63")
    whole = np.array(ids, dtype=np.uint64).reshape(-1)
    counters = np.zeros((len(whole), views, 4), dtype=np.uint64)
    counters[..., 0] = (whole & np.uint64(0xFFFFFFFF))[:, None]
    counters[..., 1] = (whole >> np.uint64(32))[:, None]
    counters[..., 2] = np.uint64(step)
    counters[..., 3] = np.arange(views, dtype=np.uint64)
    return counters


def _aspects(sizes: Tensor | Sequence[Sequence[int]] | None, count: int) -> NDArray[np.float64]:
    """Width / height of each picture, ``(n, 1)``."""
    if sizes is None:
        raise ValueError("a crop ratio needs sizes: height and width of each picture, (n, 2)")
    sides = np.asarray(sizes, dtype=np.float64)
    if sides.shape != (count, 2) or (sides <= 0).any():
        raise ValueError(
            f"got sizes of shape {sides.shape}; expected positive height and width, ({count}, 2)"
        )
    return sides[:, 1:] / sides[:, :1]


def _free_crop(
    counters: NDArray[np.uint64],
    seed: int,
    area: tuple[float, float],
    ratio: tuple[float, float],
    aspects: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Width and height as fractions, and which crops fell back to the centre; ``(n, views)``."""
    if not 0 < ratio[0] <= ratio[1]:
        raise ValueError(f"ratio is {ratio}; expected two numbers with 0 < low <= high")
    bounds = math.log(ratio[0]), math.log(ratio[1])
    # The largest central crop whose ratio is within bounds, where no try fits.
    fitted = aspects.clip(*ratio)
    width = np.broadcast_to(np.minimum(fitted / aspects, 1), counters.shape[:2])
    height = np.broadcast_to(np.minimum(aspects / fitted, 1), counters.shape[:2])
    open_ = np.ones(counters.shape[:2], dtype=bool)
    for attempt in range(_RATIO_TRIES):
        # Two tries share a block of four numbers; block 0 holds position, mirror and area.
        block = counters.copy()
        block[..., 3] += np.uint64(_MAX_VIEWS * (1 + attempt // 2))
        first, second = np.moveaxis(uniform(block, seed), -1, 0)[2 * (attempt % 2) :][:2]
        share = area[0] + (area[1] - area[0]) * first
        shape = np.exp(bounds[0] + (bounds[1] - bounds[0]) * second) / aspects
        wide, tall = np.sqrt(share * shape), np.sqrt(share / shape)
        fits = open_ & (wide <= 1) & (tall <= 1)
        width, height = np.where(fits, wide, width), np.where(fits, tall, height)
        open_ &= ~fits
    return width, height, open_


def weak_views(
    pixels: Tensor,
    views: int,
    *,
    items: Sequence[int] | Tensor | None = None,
    **options: Unpack[ViewOptions],
) -> Tensor:
    """Weak views as pictures of the original's size, for rewards that take pixels.

    To score views, give the boxes to the scorer's preprocessing instead, which resamples once.

    Args:
        pixels: RGB in [0, 1], float ``(batch, 3, H, W)``, on any device.
        views: Number of views per picture.
        items: Identity of each picture; by default its place in the batch.
        options: ``seed``, ``step``, ``area``, ``ratio`` and ``hflip``; see `ViewOptions`.

    Returns:
        Tensor ``(batch, views, 3, H, W)`` in the pixels' dtype; differentiable.

    Raises:
        ValueError: As `weak_view_boxes` and `crop_views`.
    """
    _require_batch(pixels)
    boxes, flips = weak_view_boxes(
        len(pixels) if items is None else items,
        views,
        sizes=[list(pixels.shape[2:])] * len(pixels),
        **options,
    )
    return crop_views(pixels, boxes, flips)


def crop_views(pixels: Tensor, boxes: Tensor, flips: Tensor) -> Tensor:
    """Crops of pictures, mirrored or not, resized back to the pictures' size and kept in [0, 1].

    Bicubic, as one batched product per axis in float32 (float64 for float64 pixels).

    Args:
        pixels: RGB in [0, 1], float ``(batch, 3, H, W)``.
        boxes: ``(batch, views, 4)``: left, top, right, bottom as fractions.
        flips: Bool ``(batch, views)``.

    Returns:
        Tensor ``(batch, views, 3, H, W)`` in the pixels' dtype; differentiable in the pixels.

    Raises:
        ValueError: If a shape is wrong.
    """
    _require_batch(pixels)
    batch, _, height, width = pixels.shape
    if boxes.shape[::2] != (batch, 4) or flips.shape != boxes.shape[:2]:
        raise ValueError(
            f"got boxes {tuple(boxes.shape)} and flips {tuple(flips.shape)}; expected "
            f"({batch}, views, 4) and ({batch}, views)"
        )
    left, top, right, bottom = boxes.detach().to("cpu", torch.float64).flatten(0, 1).unbind(-1)
    mirrored = flips.to("cpu").flatten()
    dtype = torch.float64 if pixels.dtype == torch.float64 else torch.float32

    def matrices(low: Tensor, high: Tensor, side: int, flip: Tensor) -> Tensor:
        length = torch.full_like(low, side)
        axis = Axis(low * side, high * side, length, torch.zeros_like(low), flip)
        weights = weight_matrices(axis, side, (0, side), dtype=dtype, device=pixels.device)
        return weights.unflatten(0, boxes.shape[:2])

    with torch.autocast(pixels.device.type, enabled=False):
        rows = matrices(top, bottom, height, torch.zeros_like(mirrored))
        columns = matrices(left, right, width, mirrored)
        return apply_weights(pixels.to(dtype), rows, columns, clamp=True).to(pixels.dtype)


def _require_batch(pixels: Tensor) -> None:
    if pixels.ndim != 4 or not pixels.is_floating_point() or not pixels.numel():
        raise ValueError(
            f"got pixels {pixels.dtype} {tuple(pixels.shape)}; expected float (batch, 3, H, W) in "
            "[0, 1]"
        )


def mentions_side(prompt: str) -> bool:
    """Whether a prompt names left or right, so that a mirrored picture may no longer fit it.

    Any whole word counts, ``left``, ``Right``, ``leftmost``, ``right-hand``, also where it means
    something else ("the right colour"): not mirroring costs little, and mirroring a side changes
    the picture.
    """
    return _SIDE_WORDS.search(prompt) is not None
