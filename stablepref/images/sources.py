"""One flat sequence of single images out of everything a person can hold, lazily."""

import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from stablepref.images.paths import expand_path
from stablepref.output.text import shorten

if TYPE_CHECKING:
    import torch

_BATCH_RANK = 4
_URL = re.compile(r"(?i)https?://")
_SCHEME = re.compile(r"(?i)(data:|[a-z][a-z0-9+.-]+://)")

Kind = Literal["path", "array", "list", "lazy", "single"]
_SINGLE = (Image.Image, bytes, bytearray, memoryview, Mapping, set, frozenset)


class UnusableImageError(ValueError):
    """Why one value cannot be used as an image; `decode` turns it into an `ImageError`."""


class ImageError(ValueError):
    """One image that cannot be used: which one, and why.

    Attributes:
        index: position in the flat sequence of images, from 0.
        name: whole path or URL, or a short description; in the message a long one is cut.
        reason: what came, what was expected and what to do.
        scores: what was scored before it, where the scoring of a list ended with this error.
    """

    def __init__(self, index: int, name: str, reason: str) -> None:
        """Compose the message from position, name and reason."""
        super().__init__(f"image {index} ({shorten(name)}): {reason}")
        self.index = index
        self.name = name
        self.reason = reason
        self.scores: torch.Tensor | None = None

    def __reduce__(self) -> tuple[type["ImageError"], tuple[int, str, str], dict[str, object]]:
        """Rebuild from the parts, so that the error crosses process boundaries."""
        return type(self), (self.index, self.name, self.reason), {"scores": self.scores}


@dataclass(frozen=True)
class Source:
    """One image that is not decoded yet.

    Attributes:
        index: position in the flat sequence, from 0.
        name: whole path or URL, or a short description.
        value: what to decode. An `UnusableImageError` where flattening found the reason already (an
            empty folder, say), so that a stream continues and `decode` reports it.
    """

    index: int
    name: str
    value: object


def iter_sources(images: object) -> Iterator[Source]:
    """Walk through everything in `images`, one `Source` for each single image.

    Nothing is read ahead: a generator is asked for its next item, and a folder is listed, only
    when the walk arrives there. An item that cannot be used does not end the walk; `decode` raises
    for it. Which inputs are understood is listed in `docs/images.md`.

    Args:
        images: a path, folder, glob pattern, http(s) URL, PIL image, bytes, binary file object,
            array or tensor (single or batch), row `{"bytes": ..., "path": ...}`, or any nesting
            of lists, tuples, generators and other iterables of these.

    Yields:
        Sources numbered from 0 in order. Folders and globs are sorted naturally (2 before 10).

    Raises:
        ImageError: `images` holds nothing at all.
    """
    empty = True
    for index, (name, value) in enumerate(_flatten(images, outermost=True)):
        empty = False
        yield Source(index, name, value)
    if empty:
        raise ImageError(0, describe(images), "it holds no images; pass at least one")


def count_sources(images: object) -> int | None:
    """Count the sources of `images` where that consumes nothing.

    Folders and globs are listed for it. Generators and iterables other than lists, tuples, arrays
    and tensors are lazy.

    Args:
        images: as in `iter_sources`.

    Returns:
        The number of sources, or None if a lazy input is among them.
    """
    kind, value = _unpack(images)
    if kind == "lazy":
        return None
    if kind == "list":
        assert isinstance(value, list | tuple)
        total = 0
        for item in value:
            count = count_sources(item)
            if count is None:
                return None
            total += max(count, 1)  # an empty list inside is one unusable item
        return total
    return sum(1 for _ in _flatten(value, outermost=True))


def describe(value: object) -> str:
    """Name a value: its whole path if it has one, else briefly its kind and size."""
    if isinstance(value, Mapping):
        value = value.get("path") or value
    path = value if isinstance(value, str | os.PathLike) else _file_name(value)
    if path is not None:
        return os.fsdecode(path)
    if isinstance(value, Image.Image):
        text = f"PIL image {value.width}x{value.height} {value.mode}"
    elif isinstance(value, bytes | bytearray | memoryview):
        text = f"{memoryview(value).nbytes} bytes"
    elif is_tensor(value) or isinstance(value, np.ndarray):
        kind = "tensor" if is_tensor(value) else "array"
        shape, dtype = getattr(value, "shape", ()), getattr(value, "dtype", "")
        text = f"{kind} {tuple(shape)} {str(dtype).removeprefix('torch.')}"
    else:
        text = type(value).__name__
    return shorten(text)


def is_url(value: object) -> bool:
    """Whether a value is the address of a file on the web."""
    return isinstance(value, str) and _URL.match(value) is not None


def has_scheme(text: str) -> bool:
    """Whether a text is an address (http://, s3://, data:, ...) rather than a path."""
    return _SCHEME.match(text) is not None


def is_tensor(value: object) -> bool:
    """Whether a value is a tensor; torch is not imported for it, since without it none exists."""
    loaded = sys.modules.get("torch")
    return loaded is not None and isinstance(value, loaded.Tensor)


def _file_name(value: object) -> str | os.PathLike[str] | None:
    """Path that an open file or a lazily opened PIL image came from."""
    if isinstance(value, Image.Image):
        name = getattr(value, "filename", None)
    else:
        name = getattr(value, "name", None) if hasattr(value, "read") else None
    return name if isinstance(name, str | os.PathLike) and str(name) else None


def _unpack(value: object) -> tuple[Kind, object]:
    """How a value is taken apart. The order matters: many of these are iterable as well."""
    if isinstance(value, str | os.PathLike):
        return "path", os.fsdecode(value)
    if isinstance(value, _SINGLE) or hasattr(value, "read"):
        return "single", value
    if is_tensor(value):
        return "array", value
    if hasattr(value, "__array__"):
        array = np.asarray(value)
        # A column of paths or images, of pandas for example, is a list in the form of an array.
        is_column = array.dtype.kind in "OU" and array.ndim == 1
        return ("list", array.tolist()) if is_column else ("array", array)
    kind: Kind = "single"
    if isinstance(value, Iterable):
        kind = "list" if isinstance(value, list | tuple) else "lazy"
    return kind, value


def _flatten(value: object, *, outermost: bool = False) -> Iterator[tuple[str, object]]:
    """Name and value of each single image in `value`."""
    kind, value = _unpack(value)
    if kind == "path":
        assert isinstance(value, str)
        yield from _flatten_path(value)
    elif kind == "single" or (kind == "array" and getattr(value, "ndim", 0) != _BATCH_RANK):
        yield describe(value), value
    else:
        assert isinstance(value, Iterable)
        name = describe(value)
        empty = True
        for position, item in enumerate(value):
            empty = False
            if kind == "array":
                yield f"[{position}] of {name}", item
            else:
                yield from _flatten(item)
        if empty and not outermost:
            yield name, UnusableImageError("it holds no images; leave it out")


def _flatten_path(text: str) -> Iterator[tuple[str, object]]:
    if not text:
        yield "''", UnusableImageError("the path is empty")
    elif is_url(text):
        yield text, text
    elif has_scheme(text):
        yield (
            shorten(text),  # a data: address holds a whole picture
            UnusableImageError(
                "only http:// and https:// addresses are fetched; open it yourself and pass the "
                "bytes (of a data: URL with base64.b64decode) or the file object (of a bucket with "
                "fsspec.open)"
            ),
        )
    else:
        try:
            paths = expand_path(text)
        except (OSError, ValueError, RuntimeError) as error:
            yield text, UnusableImageError(str(error))
            return
        for path in paths:
            yield str(path), path
