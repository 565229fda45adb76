"""Pictures side by side on one sheet, each with a line below it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from collections.abc import Sequence

SIDE: Final = 192
"""Pixels on each side of the square that a picture is fitted into."""
MARGIN: Final = 12
LINE: Final = 22
DASH: Final = 6
FONT_SIZE: Final = 13
GROUND: Final = (246, 246, 243)
INK: Final = (27, 28, 26)
BEST: Final = (31, 107, 73)


def contact_sheet(
    pictures: Sequence[Image.Image],
    lines: Sequence[str],
    *,
    title: str,
    side: int = SIDE,
    frame_first: bool = True,
    tied: int = 0,
) -> Image.Image:
    """Draw pictures in rows, in their order.

    Args:
        pictures: At least one, of any size and mode; shown whole, its long side `side`
            pixels.
        lines: The text below each; cut where it is too long.
        title: The text above all of them, cut at the sheet's width.
        side: Pixels on each side of the square that a picture is fitted into.
        frame_first: Frame the first, as the best one.
        tied: How many of the first are tied for the best: each of them gets a dashed frame of the
            text's colour, and none that of the best.

    Returns:
        RGB image, wider than high where there are many.
    """
    columns = min(len(pictures), max(1, math.ceil(math.sqrt(1.5 * len(pictures)))))
    rows = math.ceil(len(pictures) / columns)
    step_x, step_y = side + MARGIN, side + LINE + MARGIN
    top = 2 * MARGIN + LINE
    sheet = Image.new("RGB", (columns * step_x + MARGIN, rows * step_y + top), GROUND)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(FONT_SIZE)
    draw.text((MARGIN, MARGIN), _cut(draw, title, sheet.width - 2 * MARGIN, font), INK, font)
    for place, (picture, line) in enumerate(zip(pictures, lines, strict=True)):
        left = MARGIN + place % columns * step_x
        upper = top + place // columns * step_y
        small = fitted(picture, side)
        corner = left + (side - small.width) // 2, upper + (side - small.height) // 2
        sheet.paste(small, corner)
        best = place == 0 and frame_first and not tied
        if place < tied:
            _dashed(draw, (left - 3, upper - 3, left + side + 2, upper + side + 2))
        if best:
            draw.rectangle(
                (left - 3, upper - 3, left + side + 2, upper + side + 2), outline=BEST, width=3
            )
        colour = BEST if best else INK
        draw.text((left, upper + side + 5), _cut(draw, line, side, font), colour, font)
    return sheet


def _dashed(draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int]) -> None:
    """A dashed rectangle."""
    left, upper, right, lower = box
    for start in range(left, right, 2 * DASH):
        stop = min(start + DASH, right)
        draw.line((start, upper, stop, upper), INK, 2)
        draw.line((start, lower, stop, lower), INK, 2)
    for start in range(upper, lower, 2 * DASH):
        stop = min(start + DASH, lower)
        draw.line((left, start, left, stop), INK, 2)
        draw.line((right, start, right, stop), INK, 2)


def fitted(picture: Image.Image, side: int) -> Image.Image:
    """The picture in RGB, shrunk or enlarged to a long side of `side` pixels."""
    scale = side / max(picture.size)
    width, height = (max(1, round(length * scale)) for length in picture.size)
    return picture.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)


def _cut(
    draw: ImageDraw.ImageDraw,
    text: str,
    width: int,
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
) -> str:
    """The text, or as much of it as fits with an ellipsis."""
    text = " ".join(text.split())
    if draw.textlength(text, font) <= width:
        return text
    while text and draw.textlength(f"{text}...", font) > width:
        text = text[:-1]
    return f"{text}..."
