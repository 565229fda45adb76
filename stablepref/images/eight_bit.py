"""Float pictures as PIL images of 8 bits, whole or in views; no gradient passes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from PIL import Image, ImageOps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def eight_bit_views(
    pixels: Tensor | Sequence[Tensor], boxes: Tensor | None = None, hflip: Tensor | None = None
) -> list[Any]:
    """PIL images of pictures `(3, H, W)` in [0, 1], or of views of them at whole pixels.

    Args:
        pixels: The pictures.
        boxes: `(batch, views, 4)`: left, top, right and bottom of each view, as fractions.
        hflip: Bool `(batch, views)`: which views are mirrored.

    Returns:
        For each picture its image; with boxes or flips for each picture the list of its views.
    """
    images = [_picture(one) for one in pixels]
    shaped = boxes if boxes is not None else hflip
    if shaped is None:
        return images
    return [
        [
            eight_bit_view(
                image,
                None if boxes is None else boxes[row, view].tolist(),
                flipped=hflip is not None and bool(hflip[row, view]),
            )
            for view in range(shaped.shape[1])
        ]
        for row, image in enumerate(images)
    ]


def _picture(pixels: Tensor) -> Image.Image:
    values = (255 * pixels.detach().float()).round().clamp(0, 255).byte()
    return Image.fromarray(values.permute(1, 2, 0).cpu().numpy())


def eight_bit_view(
    image: Image.Image, box: Sequence[float] | None, *, flipped: bool
) -> Image.Image:
    """A view of a PIL image at whole pixels, at least one wide and high.

    Args:
        image: The picture.
        box: Left, top, right and bottom, as fractions; None for all of it.
        flipped: Whether it is mirrored.
    """
    if box is not None:
        left, upper, right, lower = box
        x, y = round(left * image.width), round(upper * image.height)
        image = image.crop(
            (x, y, max(x + 1, round(right * image.width)), max(y + 1, round(lower * image.height)))
        )
    return ImageOps.mirror(image) if flipped else image
