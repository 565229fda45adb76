"""Antialiased resampling as two batched matrix products, differentiable in the pixels.

Resizing is linear and separable: every output row is a fixed combination of input rows. Writing
the combinations as matrices lets one batched product resample many pictures of many sizes, crops
and flips included, with an ordinary gradient.

The bicubic kernel is the cubic convolution of Keys, "Cubic convolution interpolation for digital
image processing" (1981), with a = -0.5, the bilinear one a triangle. Either is stretched by the
reduction ratio when an image shrinks and renormalised where it leaves the image. Pillow's
``BICUBIC`` and ``BILINEAR`` and torch's antialiased modes use the same ones, so that this form
differs from them by rounding only.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Filter = Literal["bicubic", "bilinear"]


@dataclass(frozen=True)
class Axis:
    """How one axis of ``n`` pictures is resampled; every field has shape ``(n,)``, on the CPU.

    The stretch from ``start`` to ``stop`` is resized to ``length`` samples, of which those from
    ``offset`` on are kept. Samples before the first or after the last are black padding.

    Attributes:
        start: Where the stretch begins, in pixels from the picture's edge; float64.
        stop: Where it ends; float64. Nothing outside of it is read, as if it had been cropped;
            a pixel that is partly inside counts by the part that is.
        length: Number of samples the stretch is resized to; float64 holding integers.
        offset: Index of the first sample kept; negative to begin with padding; float64 holding
            integers.
        flip: Whether the stretch is read backwards; bool.
        filter: The kernel of all of them.
    """

    start: Tensor
    stop: Tensor
    length: Tensor
    offset: Tensor
    flip: Tensor
    filter: Filter = "bicubic"

    def positions(self, outputs: int) -> tuple[Tensor, Tensor]:
        """Centres in pixels of the first ``outputs`` samples and which are not padding.

        Returns:
            Two tensors of shape ``(n, outputs)``: float64 and bool.
        """
        index = self.offset[:, None] + torch.arange(outputs, dtype=torch.float64, device="cpu")
        along = (index + 0.5) * self.stride()[:, None]
        centres = torch.where(
            self.flip[:, None], self.stop[:, None] - along, self.start[:, None] + along
        )
        return centres, (index >= 0) & (index < self.length[:, None])

    def stride(self) -> Tensor:
        """Pixels from one sample to the next, shape ``(n,)``."""
        return (self.stop - self.start) / self.length

    def window(self, outputs: int, inputs: int) -> tuple[int, int]:
        """Range of the ``inputs`` pixels that any of the first ``outputs`` samples reads."""
        centres, inside = self.positions(outputs)
        reach = (_RADIUS[self.filter] * self.stride().clamp(min=1))[:, None]
        lowest = torch.where(inside, centres - reach, torch.inf).amin()
        highest = torch.where(inside, centres + reach, -torch.inf).amax()
        first = max(lowest.item(), self.start.amin().item(), 0)
        last = min(highest.item(), self.stop.amax().item(), inputs)
        return int(first), min(-int(-last // 1), inputs)


def bicubic_kernel(distance: Tensor) -> Tensor:
    """Keys' cubic convolution kernel with a = -0.5, elementwise; zero from distance 2 on."""
    x = distance.abs().clamp(max=_RADIUS["bicubic"])
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, far)


def bilinear_kernel(distance: Tensor) -> Tensor:
    """The triangle 1 - distance, elementwise; zero from distance 1 on."""
    return (1 - distance.abs()).clamp(min=0)


_RADIUS: dict[Filter, float] = {"bicubic": 2.0, "bilinear": 1.0}
_KERNELS: dict[Filter, Callable[[Tensor], Tensor]] = {
    "bicubic": bicubic_kernel,
    "bilinear": bilinear_kernel,
}


def weight_matrices(
    axis: Axis,
    outputs: int,
    window: tuple[int, int],
    *,
    dtype: torch.dtype,
    device: torch.device | str,
) -> Tensor:
    """Matrices that resample one axis.

    Args:
        axis: The ``n`` resamplings.
        outputs: Number of samples of each.
        window: First and one past the last input pixel that the matrices' columns stand for.
        dtype: float32 or float64.
        device: Where the matrices are built.

    Returns:
        Tensor ``(n, outputs, pixels in the window)``. Rows sum to one; rows of padding to zero.
    """
    centres, inside = axis.positions(outputs)
    # Whole and fractional parts travel apart: in float32 a position near 1000 would be off by
    # 3e-5 of a pixel, while both parts are exact to 6e-8.
    whole = centres.floor()
    fraction = (centres - whole).to(device, dtype, non_blocking=True)
    whole = whole.to(device, dtype, non_blocking=True)
    inside = inside.to(device, non_blocking=True)[..., None]
    start, stop, stride = (
        t.to(device, dtype, non_blocking=True)[:, None, None]
        for t in (axis.start, axis.stop, axis.stride())
    )
    pixel = torch.arange(window[0], window[1], dtype=dtype, device=device)
    distance = (pixel - whole[..., None]) + (0.5 - fraction[..., None])
    covered = (torch.minimum(pixel + 1, stop) - torch.maximum(pixel, start)).clamp(0, 1)
    weights = _KERNELS[axis.filter](distance / stride.clamp(min=1)) * covered
    total = torch.where(inside, weights.sum(dim=-1, keepdim=True), 1)
    return torch.where(inside, weights / total, 0)


def apply_weights(
    pixels: Tensor, rows: Tensor, columns: Tensor, *, clamp: bool, clamp_result: bool = True
) -> Tensor:
    """Resample pictures by their matrices: columns first, as Pillow does, then rows.

    Args:
        pixels: Tensor ``(batch, channels, H, W)`` in the matrices' dtype.
        rows: Tensor ``(batch or 1, views, h, H)``; 1 applies the same matrices to every picture.
        columns: Tensor ``(batch or 1, views, w, W)``.
        clamp: Whether to clamp to [0, 1] after each of the two passes, where Pillow's 8-bit
            intermediate picture does. Bicubic weights are partly negative and overshoot at edges.
        clamp_result: False leaves the second pass to the caller, who adds up strips of rows.

    Returns:
        Tensor ``(batch, views, channels, h, w)``.
    """
    if columns.shape[0] == 1:
        narrowed = torch.einsum("bchw,vxw->bchvx", pixels, columns[0])
    else:
        narrowed = torch.einsum("bchw,bvxw->bchvx", pixels, columns)
    if clamp:
        narrowed = narrowed.clamp(0, 1)
    if rows.shape[0] == 1:
        resized = torch.einsum("vyh,bchvx->bvcyx", rows[0], narrowed)
    else:
        resized = torch.einsum("bvyh,bchvx->bvcyx", rows, narrowed)
    return resized.clamp(0, 1) if clamp and clamp_result else resized
