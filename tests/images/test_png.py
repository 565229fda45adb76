"""PNG files whose texts or colour profile are longer than Pillow reads: their pixels are good."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from stablepref.images.decoding import decode
from stablepref.images.png import without_texts
from stablepref.images.sources import ImageError, Source

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
LONG = PngImagePlugin.MAX_TEXT_CHUNK + 1


def chunk(name: bytes, content: bytes) -> bytes:
    """As the PNG specification has it: length, name, content and the CRC of name and content."""
    checksum = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def picture(*chunks: bytes, last: bool = False) -> bytes:
    """A picture with further chunks after its header, or before its end."""
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "PNG")
    data = buffer.getvalue()
    place = len(data) - 12 if last else 8 + 25
    return data[:place] + b"".join(chunks) + data[place:]


def compressed(length: int) -> bytes:
    return zlib.compress(b"a" * length)


TEXT = chunk(b"zTXt", b"workflow\0\0" + compressed(LONG))
INTERNATIONAL = chunk(b"iTXt", b"workflow\0\1\0\0\0" + compressed(LONG))
PROFILE = chunk(b"iCCP", b"profile\0\0" + compressed(LONG))
BOMB = chunk(b"zTXt", b"bomb\0\0" + compressed(100 * LONG))


@pytest.mark.parametrize(
    "chunks", [[TEXT], [INTERNATIONAL], [PROFILE], [BOMB], [TEXT, PROFILE], [BOMB] * 70]
)
@pytest.mark.parametrize("last", [False, True])
def test_long_texts_and_profiles_do_not_damage_a_picture(chunks: list[bytes], last: bool) -> None:
    data = picture(*chunks, last=last)
    assert (np.asarray(decode(Source(0, "a.png", data))) == PIXELS).all()


def test_all_that_pixels_depend_on_is_kept() -> None:
    image = Image.fromarray(PIXELS).quantize(16)
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    image.save(buffer, "PNG", transparency=3, exif=exif, dpi=(72, 72))
    plain = buffer.getvalue()
    long = plain[:33] + TEXT + PROFILE + plain[33:]
    assert without_texts(long) == plain
    found = [np.asarray(decode(Source(0, "a.png", data))) for data in (plain, long)]
    assert (found[0] == found[1]).all()
    assert found[0].shape == (7, 9, 3), "turned as its EXIF block says"


def test_a_file_that_is_damaged_as_well_is_an_error() -> None:
    data = picture(TEXT)
    with pytest.raises(ImageError, match="truncated or damaged"):
        decode(Source(0, "a.png", data[:-40]))
    assert without_texts(b"GIF89a") == b"GIF89a"
    for end in range(8, 60):
        assert without_texts(data[:end]).startswith(data[:8])
