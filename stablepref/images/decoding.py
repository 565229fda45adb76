"""Any image a user holds to RGB pixels; every rejection is an `ImageError`.

`stablepref.images.sources.iter_sources` turns whatever was passed into a flat, lazy sequence of
`Source`, and `decode` turns one of them into pixels. Both may be called from any thread.
"""

import io
import os
import stat
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, BinaryIO, TypeVar, cast

import numpy as np
from PIL import Image, UnidentifiedImageError

from stablepref.images.arrays import from_array, from_tensor
from stablepref.images.paths import decoded_formats, package_for
from stablepref.images.png import is_text_too_long, without_texts
from stablepref.images.rgb import to_rgb
from stablepref.images.sources import ImageError, Source, UnusableImageError, is_tensor, is_url
from stablepref.images.web import fetch
from stablepref.output.text import shorten

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

# One PIL image or file object may be in a list twice and reach two threads at once, and both have
# a position in a file. Locks chosen by identity let different objects pass side by side.
_LOCKS = tuple(Lock() for _ in range(64))

# Reading these may never end.
_NO_FILES = (stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK)

_HEAD = 64
_KNOWN_OTHERS = (
    (b"version https://git-lfs", "a Git LFS pointer: run `git lfs pull`"),
    (b"<svg", "an SVG drawing: render it to PNG first"),
    (b"<?xml", "XML, perhaps an SVG drawing: render it to PNG first"),
    (b"<!doctype html", "a web page in place of an image"),
    (b"<html", "a web page in place of an image"),
    (b"%pdf", "a PDF: render its page to PNG first"),
    (b"%!ps", "an EPS or PostScript drawing: render it to PNG first"),
)
# Where a file of a format begins with what, by a suffix of the format: ISO/IEC 23008-12 for HEIC,
# ISO/IEC 18181-2 for JPEG XL.
_PLUGIN_STARTS = {
    ".heic": ((4, b"ftypheic"), (4, b"ftypheix"), (4, b"ftypmif1")),
    ".jxl": ((0, b"\xff\x0a"), (0, b"\0\0\0\x0cJXL \r\n\x87\n")),
    ".avif": ((4, b"ftypavif"), (4, b"ftypavis")),
}


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
        pixels = _decode(source.value)
    except UnusableImageError as error:
        raise ImageError(source.index, source.name, str(error)) from error
    except MemoryError as error:
        reason = "it does not fit into memory: make it smaller"
        raise ImageError(source.index, source.name, reason) from error
    limit = Image.MAX_IMAGE_PIXELS
    if isinstance(pixels, Image.Image) and limit and pixels.width * pixels.height > limit:
        warnings.warn(  # beside Pillow's own, which names nothing
            f"image {source.index} ({shorten(source.name)}) has {pixels.width} x {pixels.height} "
            f"pixels, more than the {limit:,} of PIL.Image.MAX_IMAGE_PIXELS",
            Image.DecompressionBombWarning,
            stacklevel=2,
        )
    return pixels


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


def open_path(path: str) -> Image.Image:
    """Read an image file.

    Args:
        path: a file, not a folder or pattern.

    Returns:
        Upright, opaque RGB image; the first frame of an animation.

    Raises:
        UnusableImageError: missing, unreadable, empty, not an image, truncated, damaged or too
            large.
    """
    try:
        if stat.S_IFMT(Path(path).stat().st_mode) in _NO_FILES:
            message = "it is a pipe, a socket or a device; expected a file"
            raise UnusableImageError(message)
        # Buffered as Pillow itself opens it; opened here so that a missing file is not taken for an
        # image that is wrong inside.
        with Path(path).open("rb") as file:
            return _open(file)
    except FileNotFoundError as error:
        message = "there is no such file"
        raise UnusableImageError(message) from error
    except (OSError, ValueError) as error:
        if isinstance(error, UnusableImageError):
            raise
        message = f"the file cannot be read: {getattr(error, 'strerror', None) or error}"
        raise UnusableImageError(message) from error


def open_bytes(data: bytes | bytearray | memoryview) -> Image.Image:
    """Read an image file that is in memory; returns and raises as `open_path` does."""
    return _open(io.BytesIO(data))


def open_picture(image: Image.Image) -> Image.Image:
    """Bring a PIL image to RGB, loading it if it was opened lazily; see `to_rgb`."""
    with _LOCKS[hash(id(image) >> 4) % len(_LOCKS)]:
        return _guarded(
            lambda: to_rgb(image), "the image cannot be loaded (damaged, or its file was closed)"
        )


def read_file(file: BinaryIO) -> bytes:
    """Read an open file from its start, as Pillow does, and put its position back.

    Args:
        file: binary; one that cannot seek is read from where it stands.

    Returns:
        Everything in it.

    Raises:
        UnusableImageError: it cannot be read, or was opened as text.
    """
    with _LOCKS[hash(id(file) >> 4) % len(_LOCKS)]:
        try:
            seekable = hasattr(file, "seekable") and file.seekable()
            position = file.tell() if seekable else 0
            if seekable:
                file.seek(0)
            data: object = file.read()
            if seekable:
                file.seek(position)
        except (OSError, ValueError) as error:
            message = f"the file object cannot be read: {error}"
            raise UnusableImageError(message) from error
    if not isinstance(data, bytes):
        message = f"its read() gives {type(data).__name__}, not bytes; open it in mode 'rb'"
        raise UnusableImageError(message)
    return data


def _open(file: BinaryIO) -> Image.Image:
    # The formats are listed, and thereby loaded, before any thread looks for one; EPS is not among
    # them, under whatever name, since Pillow would start Ghostscript for it.
    formats = decoded_formats()

    def read() -> Image.Image:
        with Image.open(file, formats=formats) as image:
            if isinstance(file, io.BufferedReader):
                image.filename = str(file.name)  # for messages
            return to_rgb(image)

    try:
        return _guarded(read, "the image is truncated or damaged")
    except _TextTooLongError:
        file.seek(0)
        return _open(io.BytesIO(without_texts(file.read())))
    except UnidentifiedImageError as error:
        raise UnusableImageError(_not_an_image(file)) from error


class _TextTooLongError(UnusableImageError):
    """A PNG file has a text or a colour profile that Pillow does not read."""


def _guarded(read: Callable[[], T], fault: str) -> T:
    """Run Pillow, and say what its errors mean; `fault` is what an unknown one means."""
    try:
        return read()
    except (UnusableImageError, UnidentifiedImageError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        message = (
            f"it is too large and may be a decompression bomb ({error}); if you trust it, raise "
            "PIL.Image.MAX_IMAGE_PIXELS (None: no limit)"
        )
        raise UnusableImageError(message) from error
    except Exception as error:
        if is_text_too_long(error):
            raise _TextTooLongError(str(error)) from error
        # Pillow's decoders raise nearly anything on damaged data (OSError, SyntaxError, EOFError,
        # struct.error, IndexError, zlib.error, ...), and all of it means the same.
        message = f"{fault}: {error or type(error).__name__}"
        raise UnusableImageError(message) from error


def _not_an_image(file: BinaryIO) -> str:
    file.seek(0)
    head = file.read(_HEAD)
    if not head:
        return "the file is empty (0 bytes)"
    for start, meaning in _KNOWN_OTHERS:
        if head.lstrip().lower().startswith(start):
            return f"it is not an image but {meaning}"
    for suffix, starts in _PLUGIN_STARTS.items():
        package = package_for(suffix)
        if package and any(head.startswith(start, place) for place, start in starts):
            return f"it is a {suffix[1:].upper()} image: pip install {package} to read it"
    return f"it is not an image that Pillow can read, or cut off at once; it begins {head[:16]!r}"
