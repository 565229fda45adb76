"""Float pictures and views of them: checks, batches, and where each view lies in its picture."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def check_pictures(pixels: Tensor | Sequence[Tensor]) -> Tensor:
    """Check float pictures of any sizes, and give their sides.

    Args:
        pixels: RGB in [0, 1]: ``(batch, 3, H, W)``, or a sequence of ``(3, H_i, W_i)``.

    Returns:
        Heights and widths, float64 ``(batch, 2)``, on the CPU.

    Raises:
        TypeError: They are not floating point.
        ValueError: A shape is wrong, there are no pictures or no pixels, or they are of several
            dtypes or on several devices.
    """
    if isinstance(pixels, Tensor):
        if pixels.ndim != 4:
            raise ValueError(
                f"got pixels of shape {tuple(pixels.shape)}; expected (batch, 3, H, W), or a list "
                "of tensors (3, H, W)"
            )
        pictures: Sequence[Tensor] = [pixels[0]] if len(pixels) else []
    else:
        pictures = pixels
    if not len(pictures):
        raise ValueError("got no pictures; expected at least one")
    first = pictures[0]
    for index, picture in enumerate(pictures):
        shape = tuple(picture.shape)
        if not picture.is_floating_point():
            raise TypeError(
                f"picture {index} is {picture.dtype}; expected floating point in [0, 1] (divide "
                "8-bit values by 255, or give PIL images to the exact form)"
            )
        if len(shape) != 3 or shape[0] != 3 or not picture.numel():
            raise ValueError(
                f"picture {index} has shape {shape}; expected (3, H, W): three channels, RGB, and "
                "at least one pixel"
            )
        if picture.dtype != first.dtype or picture.device != first.device:
            raise ValueError(
                f"picture {index} is {picture.dtype} on {picture.device}, picture 0 is "
                f"{first.dtype} on {first.device}; expected one dtype and one device"
            )
    sides = torch.tensor(
        [picture.shape[1:] for picture in pictures], dtype=torch.float64, device="cpu"
    )
    return sides.expand(len(pixels), 2)


def as_batch(pixels: Tensor | Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Pictures as one batch, padded to equal size, and their own sides; see `check_pictures`."""
    sides = check_pictures(pixels)
    if isinstance(pixels, Tensor):
        return pixels, sides
    height, width = (int(side) for side in sides.amax(dim=0))
    padded = [
        functional.pad(picture, (0, width - picture.shape[2], 0, height - picture.shape[1]))
        for picture in pixels
    ]
    return torch.stack(padded), sides


def corners(
    sides: Tensor, boxes: Tensor | None, hflip: Tensor | None, *, batch: int
) -> tuple[Tensor, Tensor]:
    """Upper left and lower right corners of all views in pixels: (y, x), ``(batch, views, 2)``.

    Args:
        sides: Heights and widths of the pictures; see `check_pictures`.
        boxes: Left, top, right and bottom of each view as fractions, ``(batch, views, 4)``; None
            for whole pictures.
        hflip: Bool ``(batch, views)``, for the number of views without boxes.
        batch: Number of pictures; `sides` may have one row for all.

    Raises:
        ValueError: A shape is wrong, or a box is empty or leaves the picture.
    """
    if hflip is not None and (hflip.dtype != torch.bool or hflip.shape[:1] != (batch,)):
        raise ValueError(
            f"got hflip {hflip.dtype} {tuple(hflip.shape)}; expected bool ({batch}, views)"
        )
    if boxes is None:
        high = sides[:, None]
        if hflip is not None:
            high = high.expand(batch, hflip.shape[1], 2)
        return torch.zeros_like(high), high
    shaped = boxes.ndim == 3 and boxes.shape[::2] == (batch, 4) and boxes.shape[1]
    if not shaped or not boxes.is_floating_point():
        raise ValueError(
            f"got boxes {boxes.dtype} {tuple(boxes.shape)}; expected float ({batch}, views, 4)"
        )
    if hflip is not None and hflip.shape != boxes.shape[:2]:
        raise ValueError(
            f"got hflip of shape {tuple(hflip.shape)}; expected {tuple(boxes.shape[:2])} as boxes"
        )
    rounding = 4 * torch.finfo(boxes.dtype).eps
    edges = boxes.detach().to("cpu", torch.float64).unflatten(-1, (2, 2)).flip(-1)
    low, high = edges.unbind(dim=-2)
    if not bool(((low >= -rounding) & (high <= 1 + rounding) & (high > low)).all()):
        raise ValueError(
            "a box is empty, not finite, or leaves the picture; expected left < right and "
            "top < bottom, all from 0 to 1, as fractions of the picture's width and height"
        )
    # A fraction cannot hold every whole pixel exactly; what is within its rounding is meant whole.
    scale = sides[:, None]
    tolerance = rounding * scale

    def snap(position: Tensor) -> Tensor:
        whole = position.round()
        return torch.where((position - whole).abs() <= tolerance, whole, position)

    return snap(low * scale).clamp(min=0), snap(high * scale)
