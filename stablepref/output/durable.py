"""Files that are complete on disk or absent, and what a killed process leaves behind."""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import contextmanager
from glob import escape
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

    The file appears whole and on disk, or, if the block fails, not at all. Its name until then is
    hidden and cannot be predicted: in a folder that others write to, nobody can put a link there
    beforehand, and two processes never write to the same one. A killed process leaves it, for
    `remove_leftovers` to delete.

    Raises:
        OSError: It cannot be written.
    """
    staging = path.with_name(f"{_start(path)}{secrets.token_hex(8)}{WRITING}")
    try:
        yield staging
        sync(staging)
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)


def remove_leftovers(folder: Path, *, of: Path | None = None) -> None:
    """Delete what killed processes had begun to write in a folder.

    No process may be writing there; see `stablepref.output.locks.sole_writer`.

    Args:
        folder: The folder; it need not exist.
        of: Only what was begun for this file.
    """
    patterns = [f".*{WRITING}", f"{SAVING}*"]
    if of is not None:
        patterns = [f"{escape(_start(of))}{'[0-9a-f]' * 16}{WRITING}"]
    for pattern in patterns:
        for path in folder.glob(pattern):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _start(path: Path) -> str:
    """How the hidden name of a file begins; cut, as the whole name may be as long as allowed."""
    return f".{path.name[:32]}."
