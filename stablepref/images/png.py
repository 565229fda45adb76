"""PNG files without their texts, which Pillow refuses to read where they are very long."""

from __future__ import annotations

import struct
from typing import Final

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
TEXTS: Final = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
"""Chunks of texts and of the colour profile (PNG specification, third edition, 11.3)."""
LIMITS: Final = ("MAX_TEXT_CHUNK", "MAX_TEXT_MEMORY")
"""Pillow's limits of such chunks, which its errors name."""


def is_text_too_long(error: Exception) -> bool:
    """Whether an error of Pillow says that a chunk of text or a colour profile is too long."""
    return isinstance(error, ValueError) and any(limit in str(error) for limit in LIMITS)


def without_texts(data: bytes) -> bytes:
    """A PNG file without texts and colour profile, which no pixel depends on here.

    Nothing is decompressed. What follows a damaged chunk is kept as it is.

    Args:
        data: The whole file.
    """
    if not data.startswith(SIGNATURE):
        return data
    kept = [SIGNATURE]
    place = len(SIGNATURE)
    while place + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        end = place + 12 + length  # length, name, content, checksum
        if end > len(data):
            break
        if data[place + 4 : place + 8] not in TEXTS:
            kept.append(data[place:end])
        place = end
    return b"".join([*kept, data[place:]])
