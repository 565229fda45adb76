"""Any image a user holds to RGB pixels; every rejection is an `ImageError`.

`iter_sources` turns whatever was passed into a flat, lazy sequence of `Source`, and `decode` turns
one of them into pixels. Both may be called from any thread.
"""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np
from PIL import Image

from stablepref.images.arrays import from_array, from_tensor
from stablepref.images.decode import open_bytes, open_path, open_picture, read_file
from stablepref.images.rgb import over_white, to_rgb
from stablepref.images.sources import (
    ImageError,
    Source,
    UnusableImageError,
    count_sources,
    is_tensor,
    is_url,
    iter_sources,
    shorten,
)
from stablepref.images.web import fetch

if TYPE_CHECKING:
    import torch

__all__ = [
    "ImageError",
    "Source",
    "UnusableImageError",
    "count_sources",
    "decode",
    "iter_sources",
    "over_white",
    "to_rgb",
]


def decode(source: Source) -> "Image.Image | torch.Tensor":
    """Turn one source into pixels.

    Safe to call from several threads at once.

    Args:
        source: one item of `iter_sources`.

    Returns:
        For paths, URLs, bytes, file objects, PIL images, uint8 arrays and uint8 tensors: an
        upright, opaque PIL image in mode RGB. A PIL image that is that already is returned itself,
        not copied; it must not be modified. For float arrays and tensors: a float32 tensor
        (3, H, W) in [0, 1], on the device that the tensor was on.

    Raises:
        ImageError: the image cannot be used; the message names it by index and path and says what
            came, what was expected and what to do.
    """
    try:
        return _decode(source.value)
    except UnusableImageError as error:
        raise ImageError(source.index, source.name, str(error)) from error


def _decode(value: object) -> "Image.Image | torch.Tensor":
    pixels: Image.Image | torch.Tensor
    if isinstance(value, UnusableImageError):
        raise value
    if is_tensor(value):
        pixels = from_tensor(cast("torch.Tensor", value))
    elif isinstance(value, np.ndarray):
        pixels = from_array(value)
    elif isinstance(value, Image.Image):
        pixels = open_picture(value)
    elif isinstance(value, str) and is_url(value):
        pixels = open_bytes(fetch(value))
    elif isinstance(value, str | os.PathLike):
        pixels = open_path(os.fsdecode(value))
    elif isinstance(value, bytes | bytearray | memoryview):
        pixels = open_bytes(value)
    elif isinstance(value, Mapping):
        pixels = _decode(_of_row(value))
    elif hasattr(value, "read"):
        pixels = open_bytes(read_file(cast("BinaryIO", value)))
    else:
        raise UnusableImageError(_unsupported(value))
    return pixels


def _of_row(row: Mapping[object, object]) -> object:
    """Bytes, or else the path, of a row of an image column of Hugging Face datasets."""
    data, path = row.get("bytes"), row.get("path")
    if isinstance(data, bytes | bytearray | memoryview):
        return data
    if data is None and isinstance(path, str | os.PathLike) and str(path):
        return path
    keys = ", ".join(repr(key) for key in row)
    message = (
        'a dictionary must be an undecoded image {"bytes": ..., "path": ...} with bytes or a '
        f"path; got the keys {keys or 'of an empty one'}"
    )
    raise UnusableImageError(shorten(message))


def _unsupported(value: object) -> str:
    name = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    advice = ""
    if isinstance(value, set | frozenset):
        advice = "; a set has no order: pass a list"
    elif isinstance(value, int | float | complex):
        advice = "; are these pixels? Make them a numpy array: np.asarray(pixels)"
    return (
        "an image may be a path, folder, glob pattern, http(s) URL, PIL image, bytes, binary file, "
        f"numpy array or torch tensor, or a list or generator of these; got {name}{advice}"
    )
