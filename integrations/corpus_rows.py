"""Rows of a corpus, as Ray Data hands them over, as items that a scorer takes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import islice
from typing import Final

import numpy as np
from PIL import Image

from stablepref.images.sources import UnusableImageError, describe, iter_sources
from stablepref.scoring.manifest import Item

_IMAGE_RANK: Final = 3
_SINGLE: Final = (bytes, bytearray, memoryview, Mapping, Image.Image)


def row_item(image: object, prompt: object, *, number: int) -> Item:
    """The image and prompt of one row; what is wrong with either takes the image's place.

    Args:
        image: Bytes of an image file, a path or http(s) URL, an image of `datasets` (a dictionary
            of bytes and path), an array `(H, W)` or `(H, W, channels)`, or a PIL image.
        prompt: A string, or UTF-8 bytes, as an undecoded WebDataset has them.
        number: Of the row in its batch, from 0; names an image that has no path.
    """
    place = f"row {number}"
    text = _text(prompt)
    if isinstance(text, UnusableImageError):
        return Item(place, text, None)
    if isinstance(image, str | os.PathLike):
        first, *more = islice(iter_sources(image), 2)
        if more:
            reason = "a row holds one image, but this is a folder or pattern of several"
            return Item(first.name, UnusableImageError(reason), text)
        return Item(first.name, first.value, text)
    if _is_missing(image):
        return Item(place, UnusableImageError("the row has no image"), text)
    if not (isinstance(image, _SINGLE) or _is_one_array(image)):
        reason = (
            "a row's image must be bytes, a path or URL, a dictionary of bytes and path, an array "
            f"(H, W, 3) or a PIL image; got {describe(image)}"
        )
        return Item(place, UnusableImageError(reason), text)
    return Item(place, image, text)


def _text(prompt: object) -> str | UnusableImageError:
    """The prompt as a string, or what is wrong with it."""
    if isinstance(prompt, bytes):
        try:
            prompt = prompt.decode()
        except UnicodeDecodeError as error:
            return UnusableImageError(f"the row's prompt is not UTF-8: {error}")
    if _is_missing(prompt):
        return UnusableImageError("the row has no prompt")
    if not isinstance(prompt, str):
        return UnusableImageError(f"the row's prompt must be a string, got {prompt!r:.60}")
    return prompt if prompt.strip() else UnusableImageError("the row's prompt is empty")


def _is_missing(value: object) -> bool:
    """Whether a cell is empty: null in Arrow, NaN in pandas."""
    return value is None or (isinstance(value, float) and np.isnan(value))


def _is_one_array(value: object) -> bool:
    return isinstance(value, np.ndarray) and value.ndim <= _IMAGE_RANK and value.dtype.kind in "uif"
