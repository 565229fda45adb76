"""What image files say beside their pixels, which are not decoded; needs no torch."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, UnidentifiedImageError

from stablepref.images.paths import decoded_formats
from stablepref.images.sources import UnusableImageError


def read_metadata(path: str | Path) -> tuple[dict[str | tuple[int, int], object], Image.Exif]:
    """Texts and EXIF block of an image file.

    Returns:
        Pillow's `info`, with the texts of a PNG file by their keywords; and the EXIF block, which
        is empty where there is none.

    Raises:
        UnusableImageError: There is no such file, it is no image, it is damaged, or a text is
            longer than Pillow reads.
    """
    if not Path(path).is_file():
        message = "there is no such file"
        raise UnusableImageError(message)
    try:
        with Image.open(path, formats=decoded_formats()) as image:
            return dict(image.info), image.getexif()
    except UnidentifiedImageError as error:
        message = "it is not an image that Pillow can read"
        raise UnusableImageError(message) from error
    except Exception as error:  # Pillow's readers raise nearly anything on damaged data
        message = f"its metadata cannot be read: {error or type(error).__name__}"
        raise UnusableImageError(message) from error
