"""Files that are on the disk when they are said to be, and what a kill leaves of others."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

WRITING: Final = ".writing"
"""How hidden files and folders end that are being written."""
SAVING: Final = ".saving-"
"""How folders begin in which a scorer is being saved."""


def sync(path: Path) -> None:
    """Have what was written to a file, or to a folder's list of names, on the disk.

    Raises:
        OSError: It cannot be opened, or the disk fails.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Delete what killed runs had begun to write in a folder; nothing must be writing there."""
    for pattern in (f".*{WRITING}", f"{SAVING}*"):
        for path in folder.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
