"""Files that are complete on disk or absent, and what a killed process leaves behind."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WRITING: Final = ".writing"
"""The end of the names of hidden files and folders that are being written."""
SAVING: Final = ".saving-"
"""The start of the names of folders in which a scorer is being saved."""


def sync(path: Path) -> None:
    """Make sure that what was written to a file, or to a folder's list of names, is on disk.

    Raises:
        OSError: It cannot be opened, or the disk fails.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield where to write a file that takes the place of `path` when the block ends.

    The file appears whole and on disk, or, if the block fails, not at all. A killed process leaves
    a hidden file, which `remove_leftovers` deletes.

    Raises:
        OSError: It cannot be written.
    """
    staging = path.with_name(f".{path.name}{WRITING}")
    try:
        yield staging
        sync(staging)
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Delete what killed runs had begun to write in a folder; no process may be writing there."""
    for pattern in (f".*{WRITING}", f"{SAVING}*"):
        for path in folder.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
