"""Slight disturbances of a picture by name, to measure how stable a scorer's choices are.

Each takes an 8-bit RGB PIL image and returns one, so that any scorer, official code included, can
be evaluated under them, and each is deterministic. ``hflip+crop-0.97`` to ``hflip+crop-0.9`` are
those of Table 1 of *Stable Preference*: mirrored, then cut to a central box whose sides have that
ratio to the picture's. The others are disturbances that training never saw.
"""

import io
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from PIL import Image, ImageEnhance, ImageFilter, ImageOps

Perturbation = Callable[[Image.Image], Image.Image]

_SIDE_RATIOS = (0.97, 0.95, 0.93, 0.9)
_BLUR_REFERENCE_SIDE = 512


def hflip(image: Image.Image) -> Image.Image:
    """Mirror left to right."""
    return ImageOps.mirror(_require_rgb(image))


def centre_crop(image: Image.Image, *, side_ratio: float) -> Image.Image:
    """Cut to a central box with sides of ``side_ratio`` times the picture's, in whole pixels."""
    old = _require_rgb(image).size
    width, height = (max(1, round(side * side_ratio)) for side in old)
    left, top = round((old[0] - width) / 2), round((old[1] - height) / 2)
    return image.crop((left, top, left + width, top + height))


def hflip_and_centre_crop(image: Image.Image, *, side_ratio: float) -> Image.Image:
    """Mirror left to right, then `centre_crop`."""
    return centre_crop(hflip(image), side_ratio=side_ratio)


def jpeg(image: Image.Image, *, quality: int) -> Image.Image:
    """Compress as JPEG of that quality, with halved colour resolution (4:2:0), and decode."""
    buffer = io.BytesIO()
    _require_rgb(image).save(buffer, format="JPEG", quality=quality, subsampling="4:2:0")
    with Image.open(buffer) as decoded:
        return decoded.convert("RGB")


def blur(image: Image.Image, *, radius: float) -> Image.Image:
    """Gaussian blur whose standard deviation is ``radius`` pixels per 512 of the short side."""
    scale = min(_require_rgb(image).size) / _BLUR_REFERENCE_SIDE
    return image.filter(ImageFilter.GaussianBlur(radius * scale))


def brightness(image: Image.Image, *, factor: float) -> Image.Image:
    """Multiply every value by ``factor``, cut off at white."""
    return ImageEnhance.Brightness(_require_rgb(image)).enhance(factor)


def resize_round_trip(image: Image.Image, *, ratio: float) -> Image.Image:
    """Bicubic to ``ratio`` times both sides, and back."""
    width, height = _require_rgb(image).size
    smaller = max(1, round(width * ratio)), max(1, round(height * ratio))
    bicubic = Image.Resampling.BICUBIC
    return image.resize(smaller, bicubic).resize((width, height), bicubic)


def _require_rgb(image: Image.Image) -> Image.Image:
    if not isinstance(image, Image.Image):
        raise TypeError(f"got {type(image).__name__}; expected a PIL image")
    if image.mode != "RGB":
        raise ValueError(f"got a PIL image of mode {image.mode}; convert it to RGB first")
    return image


# The rows of Table 1, in its order.
TABLE_1 = tuple(f"hflip+crop-{ratio:g}" for ratio in _SIDE_RATIOS)

# Disturbances that training with weak views, which mirror and crop, never saw.
UNSEEN = ("jpeg-75", "jpeg-50", "blur-1", "brightness-0.9", "brightness-1.1", "resize-0.5")

# Rows that mirror: not for prompts that name a side.
MIRRORING = frozenset({"hflip", *TABLE_1})

PERTURBATIONS: Mapping[str, Perturbation] = MappingProxyType(
    {
        **{
            name: partial(hflip_and_centre_crop, side_ratio=ratio)
            for name, ratio in zip(TABLE_1, _SIDE_RATIOS, strict=True)
        },
        **{f"crop-{ratio:g}": partial(centre_crop, side_ratio=ratio) for ratio in _SIDE_RATIOS},
        "hflip": hflip,
        "jpeg-75": partial(jpeg, quality=75),
        "jpeg-50": partial(jpeg, quality=50),
        "blur-1": partial(blur, radius=1.0),
        "brightness-0.9": partial(brightness, factor=0.9),
        "brightness-1.1": partial(brightness, factor=1.1),
        "resize-0.5": partial(resize_round_trip, ratio=0.5),
    }
)
