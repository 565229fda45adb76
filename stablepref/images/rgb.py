"""Any PIL image to RGB as a person would see it: upright, opaque, in 8 bits."""

import struct
import warnings

import numpy as np
from PIL import ExifTags, Image, ImageOps

from stablepref.images.sources import UnusableImageError, describe

ROUNDING = 1e-4
"""How far float pixels may leave [0, 1]: a fortieth of an 8-bit step, what resampling rounds to."""

# Overshoot below the one is no sign of another range; beyond the other it is no overshoot.
_SLIGHT, _STRONG = 0.1, 0.5
_WHITE = 255
_MAX_16_BIT = 65535


def to_rgb(image: Image.Image) -> Image.Image:
    """Turn a PIL image of any mode into an upright, opaque one of mode RGB.

    - Orientation from EXIF (or XMP) is applied.
    - Transparency is laid over white (`over_white`).
    - 16-bit grey (modes I;16 and I) is scaled from 0..65535 to 0..255 and rounded; float grey
      (mode F) from 0..1.
    - Every other mode is converted by Pillow: 1, L, P, RGBX, CMYK, YCbCr, HSV, LAB. Colour
      profiles are not applied, as the official code of the reward models does not apply them.

    Args:
        image: not modified, but loaded if it was not yet. An animation gives its current frame.

    Returns:
        `image` itself, not a copy, if it is RGB, opaque and upright already.

    Raises:
        UnusableImageError: no pixels, values out of range, or a mode that cannot be converted.
    """
    if 0 in image.size:
        message = f"it has no pixels: width {image.width}, height {image.height}"
        raise UnusableImageError(message)
    image.load()
    orientation = _orientation(image)
    rgb = image if image.mode == "RGB" and not image.has_transparency_data else _convert(image)
    if orientation == 1:
        return rgb
    # Pillow writes the other tags anew when it turns an image, which fails where one of them is
    # damaged: it is given the orientation alone.
    tag = Image.Exif()
    tag[ExifTags.Base.Orientation] = orientation
    turned = rgb.copy()
    turned.info = {"exif": tag.tobytes()}
    upright = ImageOps.exif_transpose(turned)
    upright.info.clear()
    return upright


def over_white(image: Image.Image) -> Image.Image:
    """Lay a transparent image over white, as web pages and image viewers show it.

    colour = round((alpha * colour + (255 - alpha) * 255) / 255), exact for all values, so that an
    opaque image keeps its colours.

    Args:
        image: with an alpha channel (RGBA, LA, PA and their premultiplied forms) or a transparent
            colour (P, L, 1 or RGB with `transparency` in its info).

    Returns:
        RGB image of the same size.
    """
    rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    canvas = Image.new("RGB", rgba.size, (_WHITE, _WHITE, _WHITE))
    canvas.paste(rgba, mask=rgba)
    return canvas


def from_levels(levels: np.ndarray) -> Image.Image:
    """Make a grey picture in mode RGB.

    Args:
        levels: (H, W) uint8.

    Returns:
        RGB image of width W and height H with equal channels.
    """
    return Image.fromarray(levels).convert("RGB")


def check_unit_range(low: float, high: float) -> None:
    """Refuse float pixels outside [0, 1], saying what they look like instead.

    Args:
        low: smallest pixel value, NaN if any pixel is.
        high: largest pixel value, NaN if any pixel is.

    Raises:
        UnusableImageError: NaN, infinite, or out of range by more than rounding.
    """
    if np.isnan(low) or np.isnan(high):
        message = (
            "it contains NaN; if it comes from a diffusion model, its VAE may have overflowed in "
            "half precision: decode the latents in float32 or bfloat16"
        )
        raise UnusableImageError(message)
    if np.isinf(low) or np.isinf(high):
        message = "it contains infinite values; float pixels must lie in [0, 1]"
        raise UnusableImageError(message)
    if low >= -ROUNDING and high <= 1 + ROUNDING:
        return
    advice = []
    if low < -_SLIGHT:
        advice.append("if these are in [-1, 1] use (x + 1) / 2")
    if high >= 1 + _STRONG:
        advice.append("if these are 0..255 use uint8 or divide by 255")
    if low > -_STRONG and high < 1 + _STRONG:
        advice.append("if resampling or a decoder overshot, clamp to [0, 1]")
    message = f"float pixels must lie in [0, 1], got {low:.6g} to {high:.6g}; {'; '.join(advice)}"
    raise UnusableImageError(message)


def _orientation(image: Image.Image) -> int:
    """The orientation by Exif 2.32, tag 274: 1 is upright, 2 to 8 are turned or mirrored."""
    try:
        found = int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except (SyntaxError, ValueError, TypeError, LookupError, OSError, struct.error) as error:
        warnings.warn(
            f"{describe(image)}: its EXIF block cannot be read ({error}); taken as upright",
            stacklevel=2,
        )
        return 1
    return found if found in range(2, 9) else 1


def _convert(image: Image.Image) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):
        return from_levels(_levels_of_16_bit(image))
    if image.mode == "F":
        values = np.asarray(image)
        check_unit_range(float(values.min()), float(values.max()))
        return from_levels(np.floor(values.clip(0, 1) * 255 + 0.5).astype(np.uint8))
    if image.has_transparency_data:
        return over_white(image)
    return image.convert("RGB")


def _levels_of_16_bit(image: Image.Image) -> np.ndarray:
    """Scale 16-bit grey to 8 bits; 65535 = 255 * 257, so that 257 steps are one."""
    values = np.asarray(image).astype(np.int64)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > _MAX_16_BIT:
        message = (
            f"its mode {image.mode} is read as 16-bit grey, 0 to 65535, but it holds {low} to "
            f"{high}; scale it yourself and pass a uint8 array"
        )
        raise UnusableImageError(message)
    if image.mode == "I" and image.format is None and 1 < high <= _WHITE:
        message = (
            f"its mode I is read as 16-bit grey, 0 to 65535, but it holds only {low} to {high}, "
            'which would be black; if these are 8-bit levels use image.convert("L")'
        )
        raise UnusableImageError(message)
    levels = ((values + 128) // 257).astype(np.uint8)
    transparent = image.info.get("transparency")
    if transparent is not None:
        levels[values == transparent] = _WHITE
    return levels
