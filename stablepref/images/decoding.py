"""Encoded images (files, bytes, open files, PIL's lazy images) to RGB, and what can be wrong."""

import io
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from stablepref.images.rgb import to_rgb
from stablepref.images.sources import UnusableImageError

# One PIL image or file object may be in a list twice and reach two threads at once, and both have
# a position in a file. Locks chosen by identity let different objects pass side by side.
_LOCKS = tuple(Lock() for _ in range(64))

_HEAD = 64
_KNOWN_OTHERS = (
    (b"version https://git-lfs", "a Git LFS pointer: run `git lfs pull`"),
    (b"<svg", "an SVG drawing: render it to PNG first"),
    (b"<?xml", "XML, perhaps an SVG drawing: render it to PNG first"),
    (b"<!doctype html", "a web page in place of an image"),
    (b"<html", "a web page in place of an image"),
    (b"%pdf", "a PDF: render its page to PNG first"),
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
        # Buffered as Pillow itself opens it; opened here so that a missing file is told apart from
        # an image that is wrong inside.
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
    # All plugins before any thread looks for one: Image.open loads them on demand, and one that
    # another thread registers between its two looks at the list would never be tried.
    Image.init()

    def read() -> Image.Image:
        with Image.open(file) as image:
            if isinstance(file, io.BufferedReader):
                image.filename = str(file.name)  # for messages
            return to_rgb(image)

    try:
        return _guarded(read, "the image is truncated or damaged")
    except UnidentifiedImageError as error:
        raise UnusableImageError(_not_an_image(file)) from error


def _guarded(read: Callable[[], Image.Image], fault: str) -> Image.Image:
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
    if head[4:12] in {b"ftypheic", b"ftypheix", b"ftypmif1"}:
        return "it is a HEIC image: install pillow-heif and call register_heif_opener() first"
    return f"it is not an image that Pillow can read, or cut off at once; it begins {head[:16]!r}"
