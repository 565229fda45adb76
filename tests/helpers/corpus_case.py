"""Pictures and prompts of a corpus, as its tests make them."""

import io

import numpy as np
from PIL import Image


def picture(number: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    width, height = size
    noise = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def prompt_of(number: int) -> str:
    return f"a red circle and {number % 5} stars"
