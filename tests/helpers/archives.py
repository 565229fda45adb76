"""Tiny pictures as bytes, and shards that hold such."""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

from PIL import Image


def png(shade: int) -> bytes:
    """A tiny grey picture as PNG bytes."""
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (shade, shade, shade)).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path: Path, files: Mapping[str, bytes]) -> Path:
    """Write a shard with the given members in order."""
    with tarfile.open(path, "w") as shard:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            shard.addfile(member, io.BytesIO(content))
    return path
