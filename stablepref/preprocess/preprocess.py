"""Named preprocessing protocols: how each reward model was shown its pictures.

A protocol has two forms. `Preprocess.exact` takes a PIL image and equals the model's official
code bit for bit. `Preprocess.forward` takes float tensors, is differentiable, runs on any device
and prepares whole batches of pictures, or of crops of pictures, of many sizes at once. The table
of the protocols is in `stablepref.preprocess.protocols`.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self, final

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from stablepref.preprocess.pictures import as_batch, corners
from stablepref.preprocess.protocols import CLIP_MEAN, CLIP_STD, PROTOCOLS, fit_sides
from stablepref.preprocess.resample import Axis, apply_weights, weight_matrices

if TYPE_CHECKING:
    from collections.abc import Callable

# Resizing the short side of a thread-like picture to 224 would need gigabytes for a long side
# of which the centre crop keeps almost nothing.
_MAX_RESIZED_PIXELS = 100_000_000
_PILLOW = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_LARGEST_SIZE = 4096
_STRIP_PIXELS = 2**20


@final
class Preprocess(nn.Module):
    """One protocol at one model size, in its exact and its differentiable form.

    Attributes:
        protocol: A name of `stablepref.preprocess.protocols.PROTOCOLS`.
        size: Side of the model's square input in pixels.
        mean: Mean of each RGB channel, subtracted first; float32 ``(3, 1, 1)``.
        std: Standard deviation of each RGB channel, divided by afterwards; as ``mean``.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        protocol: str,
        size: int = 224,
        *,
        mean: Sequence[float] = CLIP_MEAN,
        std: Sequence[float] = CLIP_STD,
    ) -> None:
        """Choose protocol, model size and constants.

        Raises:
            ValueError: If the protocol is unknown, the size is not positive, or a constant does
                not have three values, positive ones for ``std``.
        """
        super().__init__()
        if protocol not in PROTOCOLS:
            known = ", ".join(sorted(PROTOCOLS))
            raise ValueError(f"unknown preprocessing protocol {protocol!r}; known are: {known}")
        if not 1 <= size <= _LARGEST_SIZE:
            raise ValueError(
                f"size is {size}; expected the side of the model's input in "
                f"pixels, at most {_LARGEST_SIZE}"
            )
        if len(mean) != 3 or len(std) != 3 or not _usable(mean, std):
            raise ValueError(
                f"mean is {tuple(mean)} and std is {tuple(std)}; expected one number for each of "
                "red, green and blue, finite, and positive ones for std"
            )
        self.protocol = protocol
        self.size = size
        # On the CPU whatever the default device, so that models built on "meta" keep them.
        shape = (3, 1, 1)
        self._mean = torch.tensor(mean, dtype=torch.float32, device="cpu").view(shape)
        self._std = torch.tensor(std, dtype=torch.float32, device="cpu").view(shape)
        self.register_buffer("mean", self._mean.clone(), persistent=False)
        self.register_buffer("std", self._std.clone(), persistent=False)

    def _apply(self, fn: "Callable[[Tensor], Tensor]", recurse: bool = True) -> Self:
        """Follow the model's device, but keep the constants exact when it turns to bf16."""
        super()._apply(fn, recurse)
        self.mean = self._mean.to(self.mean.device, copy=True)
        self.std = self._std.to(self.std.device, copy=True)
        return self

    def config(self) -> dict[str, int | list[float]]:
        """Arguments beside the protocol that make it again, plain JSON values."""
        return {
            "size": self.size,
            "mean": self._mean.flatten().tolist(),
            "std": self._std.flatten().tolist(),
        }

    def extra_repr(self) -> str:
        """Protocol and size, for the printed module tree."""
        return f"{self.protocol!r}, size={self.size}"

    def exact(self, image: Image.Image) -> Tensor:
        """Prepare one PIL image exactly as the official code does.

        Safe to call from many threads at once: the resizing runs outside Python's lock.

        Args:
            image: A PIL image of mode RGB.

        Returns:
            Tensor ``(3, size, size)``, float32, normalised, on the CPU.

        Raises:
            TypeError: If ``image`` is not a PIL image.
            ValueError: If its mode is not RGB, it has no pixels, or it is too long and narrow to
                be resized.
        """
        if not isinstance(image, Image.Image):
            raise TypeError(f"got {type(image).__name__}; expected a PIL image (tensors: forward)")
        if image.mode != "RGB":
            raise ValueError(f"got a PIL image of mode {image.mode}; convert it to RGB first")
        width, height = image.size
        if not width or not height:
            raise ValueError(f"got a PIL image of {width} x {height}: it has no pixels")
        protocol = PROTOCOLS[self.protocol]
        sides = torch.tensor([[height, width]], dtype=torch.float64, device="cpu")
        lengths, offsets = fit_sides(sides, self.size, protocol)
        rows, columns = (int(n) for n in lengths[0])
        top, left = (int(n) for n in offsets[0])
        if rows * columns > _MAX_RESIZED_PIXELS:
            raise ValueError(
                f"a picture of {width} x {height} would be resized to {columns} x {rows}; crop it "
                "to a shape closer to a square first"
            )
        if protocol.fit != "longest":
            if (columns, rows) != image.size:
                image = image.resize((columns, rows), _PILLOW[protocol.filter])
            pixels = _to_tensor(image.crop((left, top, left + self.size, top + self.size)))
        else:
            pixels = _to_tensor(image)
            if (columns, rows) != image.size:
                pixels = functional.interpolate(
                    pixels[None], (rows, columns), mode="bicubic", antialias=True
                )[0]
            right, bottom = self.size + left - columns, self.size + top - rows
            if left or top or right or bottom:
                pixels = functional.pad(pixels, (-left, right, -top, bottom))
        return pixels.sub_(self._mean).div_(self._std)

    def forward(
        self,
        pixels: Tensor | Sequence[Tensor],
        boxes: Tensor | None = None,
        hflip: Tensor | None = None,
    ) -> Tensor:
        """Prepare a batch of pictures, or of views of them; differentiable in the pixels.

        A view is a crop, mirrored or not, that then goes through the whole protocol as if it were
        the picture. Computed in float32, or in float64 for float64 pixels, autocast or not; the
        matrix products follow torch's global ``float32_matmul_precision``.

        Args:
            pixels: RGB in [0, 1]: a float tensor ``(batch, 3, H, W)``, or a sequence of tensors
                ``(3, H_i, W_i)`` of any sizes, of one dtype and on one device.
            boxes: Tensor ``(batch, views, 4)``: left, top, right and bottom of each view as
                fractions of the picture's width and height. Best left on the CPU, where the
                geometry is computed. No gradient flows to it.
            hflip: Bool tensor ``(batch, views)``: which views are mirrored left to right; without
                ``boxes``, each view is the whole picture.

        Returns:
            Normalised tensor ``(batch, 3, size, size)``, or ``(batch, views, 3, size, size)`` if
            boxes or flips were given.

        Raises:
            TypeError: If pixels are not floating point.
            ValueError: If a shape is wrong, there are no pictures or no pixels, or a box is empty
                or leaves the picture.
        """
        pixels, sides = as_batch(pixels)
        views = boxes is not None or hflip is not None
        if not views and len(sides) > 1 and bool((sides == sides[0]).all()):
            sides = sides[:1]
        low, high = corners(sides, boxes, hflip, batch=len(pixels))
        shape = low.shape[:2]
        row_axis, column_axis = self._axes(low, high, hflip)
        top, bottom = row_axis.window(self.size, pixels.shape[-2])
        left, right = column_axis.window(self.size, pixels.shape[-1])

        dtype = torch.float64 if pixels.dtype == torch.float64 else torch.float32
        device = pixels.device
        with torch.autocast(device.type, enabled=False):
            rows = weight_matrices(row_axis, self.size, (top, bottom), dtype=dtype, device=device)
            columns = weight_matrices(
                column_axis, self.size, (left, right), dtype=dtype, device=device
            )
            resized = apply_weights(
                pixels[..., top:bottom, left:right].to(dtype),
                rows.unflatten(0, shape),
                columns.unflatten(0, shape),
                clamp=PROTOCOLS[self.protocol].clamp,
            )
            normalised = (resized - self.mean) / self.std
        return normalised if views else normalised.squeeze(1)

    def views(self, image: Image.Image, boxes: Tensor, hflip: Tensor) -> Tensor:
        """Prepare views of one large picture, on the CPU and without gradient, in little memory.

        As `forward` up to rounding. It never holds the picture's pixels as floats, but those of a
        strip at a time.

        Args:
            image: A PIL image of mode RGB.
            boxes: ``(views, 4)``, as for `forward`.
            hflip: Bool ``(views,)``.

        Returns:
            Normalised float32 tensor ``(views, 3, size, size)``.
        """
        sides = torch.tensor([[image.height, image.width]], dtype=torch.float64, device="cpu")
        low, high = corners(sides, boxes[None], hflip[None], batch=1)
        row_axis, column_axis = self._axes(low, high, hflip[None])
        top, bottom = row_axis.window(self.size, image.height)
        left, right = column_axis.window(self.size, image.width)
        clamp = PROTOCOLS[self.protocol].clamp
        kind = {"dtype": torch.float32, "device": "cpu"}
        rows = weight_matrices(row_axis, self.size, (top, bottom), **kind)  # type: ignore[arg-type]
        columns = weight_matrices(column_axis, self.size, (left, right), **kind)  # type: ignore[arg-type]
        resized = torch.zeros(len(boxes), 3, self.size, self.size, device="cpu")
        height = max(1, _STRIP_PIXELS // (right - left))
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            for start in range(top, bottom, height):
                stop = min(start + height, bottom)
                strip = _to_tensor(image.crop((left, start, right, stop)))
                resized += apply_weights(
                    strip[None],
                    rows[None, ..., start - top : stop - top],
                    columns[None],
                    clamp=clamp,
                    clamp_result=False,
                )[0]
        resized = resized.clamp_(0, 1) if clamp else resized
        return resized.sub_(self._mean).div_(self._std)

    def _axes(self, low: Tensor, high: Tensor, hflip: Tensor | None) -> tuple[Axis, Axis]:
        """How rows and columns of all views are resampled."""
        flip = torch.zeros(low.shape[:2], dtype=torch.bool, device="cpu")
        if hflip is not None:
            flip = hflip.detach().to("cpu").expand(low.shape[:2])
        low, high, flip = low.flatten(0, 1), high.flatten(0, 1), flip.flatten()
        protocol = PROTOCOLS[self.protocol]
        lengths, offsets = fit_sides(high - low, self.size, protocol)
        never, how = torch.zeros_like(flip), protocol.filter
        return (
            Axis(low[:, 0], high[:, 0], lengths[:, 0], offsets[:, 0], never, how),
            Axis(low[:, 1], high[:, 1], lengths[:, 1], offsets[:, 1], flip, how),
        )


def _usable(mean: Sequence[float], std: Sequence[float]) -> bool:
    return all(map(math.isfinite, (*mean, *std))) and min(std) > 0


def _to_tensor(image: Image.Image) -> Tensor:
    """RGB image to a new float32 tensor ``(3, H, W)`` in [0, 1], equal to torchvision's."""
    array = torch.from_numpy(np.array(image))
    return array.permute(2, 0, 1).to(torch.float32, memory_format=torch.contiguous_format).div_(255)
