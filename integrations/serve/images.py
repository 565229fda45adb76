"""Images of requests: bytes, base64, arrays; files in allowed folders only, addresses never."""

from __future__ import annotations

import base64
import binascii
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, final

import numpy as np
from numpy.lib.format import read_array_header_1_0, read_array_header_2_0, read_magic
from PIL import Image, UnidentifiedImageError

from stablepref.images.decoding import open_bytes
from stablepref.images.paths import decoded_formats
from stablepref.images.sources import UnusableImageError
from stablepref.output.text import shorten

if TYPE_CHECKING:
    from numpy.typing import NDArray


@final
class ImageReader:
    """Turns what a request holds into pictures, within bounds; may be used from several threads.

    Args:
        max_pixels: Of one image.
        max_bytes: Of one image file in an allowed folder.
        folders: Where a request may name files; none lets no file be opened.
    """

    def __init__(self, *, max_pixels: float, max_bytes: float, folders: Sequence[str] = ()) -> None:
        self.max_pixels, self.max_bytes = max_pixels, max_bytes
        self.folders = [Path(folder).resolve() for folder in folders]

    def read(self, given: object) -> Image.Image:
        """A picture as it is scored: upright, opaque RGB.

        Args:
            given: Bytes of an image file; base64 of it, which may be a `data:` URL; a uint8 array
                `(H, W, 3)`; or `{"path": ...}`, a file in an allowed folder.

        Raises:
            UnusableImageError: It is something else, damaged, too large or not allowed.
        """
        if isinstance(given, bytes | bytearray | memoryview):
            return self._of_bytes(bytes(given))
        if isinstance(given, str):
            return self._of_bytes(from_base64(given))
        if isinstance(given, np.ndarray):
            return self._of_array(given)
        if isinstance(given, Mapping) and set(given) == {"path"}:
            return self._of_bytes(self._allowed(given["path"]).read_bytes())
        msg = (
            'an image must be base64 of an image file, or {"path": ...} in a folder that the '
            f"server allows; got {shorten(repr(given))}"
        )
        raise UnusableImageError(msg)

    def _of_bytes(self, data: bytes) -> Image.Image:
        try:
            with Image.open(io.BytesIO(data), formats=decoded_formats()) as image:
                self._check_size(*image.size)
        except UnidentifiedImageError:
            pass  # which `open_bytes` says better
        except UnusableImageError:
            raise
        except Exception as error:  # Pillow raises nearly anything on damaged data
            msg = f"the image is damaged: {error or type(error).__name__}"
            raise UnusableImageError(msg) from error
        return open_bytes(data)

    def _of_array(self, levels: NDArray[np.uint8]) -> Image.Image:
        if (
            levels.dtype != np.uint8
            or levels.ndim != 3
            or levels.shape[2] != 3
            or 0 in levels.shape
        ):
            msg = f"an array must be uint8 (H, W, 3); got {levels.dtype} {levels.shape}"
            raise UnusableImageError(msg)
        self._check_size(levels.shape[1], levels.shape[0])
        return Image.fromarray(np.ascontiguousarray(levels))

    def size_fault(self, width: int, height: int) -> str | None:
        """That an image of this size has too many pixels, or None."""
        if width * height <= self.max_pixels:
            return None
        return (
            f"it has {width} x {height} pixels; this server takes {self.max_pixels:.0f} pixels in "
            "an image"
        )

    def _check_size(self, width: int, height: int) -> None:
        if fault := self.size_fault(width, height):
            raise UnusableImageError(fault)

    def _allowed(self, given: object) -> Path:
        """The file of a path, if it lies in an allowed folder, wherever links lead.

        Raises:
            UnusableImageError: It does not; whether there is such a file is not said.
        """
        refused = UnusableImageError(
            "the server opens no file of this path: it is not an image in a folder that the server "
            "allows"
        )
        if not isinstance(given, str) or "\0" in given:
            raise refused
        for folder in self.folders:
            try:
                path = (folder / given).resolve()
                if path.is_relative_to(folder) and path.is_file():
                    return self._small(path)
            except OSError:  # a name that is too long, a loop of links
                continue
        raise refused

    def _small(self, path: Path) -> Path:
        if (size := path.stat().st_size) > self.max_bytes:
            msg = f"the file has {size} bytes; this server reads {self.max_bytes:.0f} bytes"
            raise UnusableImageError(msg)
        return path


def from_base64(text: str) -> bytes:
    """The bytes of base64, which may be a `data:` URL; others are never opened.

    Raises:
        UnusableImageError: It is not base64.
    """
    head, comma, _ = text[:200].partition(",")
    if head.startswith("data:") and comma:
        text = text[len(head) + 1 :]
    elif "://" in head or head.startswith("data:"):
        msg = "the server opens no address: send the image itself, as base64"
        raise UnusableImageError(msg)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        msg = f"it is not base64 of an image file: {error}"
        raise UnusableImageError(msg) from error


def from_npy(data: bytes) -> NDArray[np.uint8]:
    """The array of the bytes that `numpy.save` wrote; nothing is unpickled.

    Raises:
        ValueError: They are no such bytes, or say that the array has another size than they have.
    """
    file = io.BytesIO(data)
    try:
        version = read_magic(file)
        read = read_array_header_1_0 if version == (1, 0) else read_array_header_2_0
        shape, fortran, dtype = read(file)
    except (ValueError, EOFError, SyntaxError, MemoryError, RecursionError) as error:
        msg = f"the images are not bytes of numpy.save: {error!s:.200}"
        raise ValueError(msg) from error
    start, count = file.tell(), math.prod(shape)
    if dtype != np.uint8 or fortran or count != len(data) - start:
        msg = (
            f"the images are {dtype} {shape} in {len(data) - start} bytes; expected uint8, in the "
            "order of C, and as many bytes as that"
        )
        raise ValueError(msg)
    return np.frombuffer(data, np.uint8, count, start).reshape(shape)
