"""Files that are complete on disk or absent, and what a killed process leaves behind."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

WRITING: Final = ".writing"
"""The end of the names of hidden files and folders that are being written."""
SAVING: Final = ".saving-"
"""The start of the names of folders in which a scorer is being saved."""
BEFORE: Final = ".before"
"""The folder of files that are being replaced, until all of them are."""


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


def replace_together(files: Sequence[Path], folder: Path) -> None:
    """Move files into a folder on the same disk, in this order; all of them or none.

    The folder's files of before lie together in a hidden folder until the last move is done, and
    `whole` finds them there: a failure, an interrupt and a kill at any moment leave them whole.

    Args:
        files: What to move; each keeps its name.
        folder: Where to. Files of these names are replaced.

    Raises:
        OSError: A file cannot be moved.
    """
    _put_back(folder)
    before = folder / BEFORE
    new = [path.name for path in files if not (folder / path.name).exists()]
    with tempfile.TemporaryDirectory(dir=folder, prefix=SAVING) as name:
        kept = Path(name) / "before"
        kept.mkdir()
        for path in folder.iterdir():
            if path.is_file() and not path.name.startswith("."):
                _keep(path, kept / path.name)
        sync(kept)
        os.replace(kept, before)  # noqa: PTH105 (as below)
        sync(folder)
        try:
            for path in files:
                path.replace(folder / path.name)
        except BaseException:
            _put_back(folder)
            for one in new:
                (folder / one).unlink(missing_ok=True)
            raise
        sync(folder)
        # From here on the new files count.
        os.replace(before, Path(name) / "before")  # noqa: PTH105 (as below)


def whole(folder: Path) -> Path:
    """Where a folder's files lie that belong together: itself, but for an interrupted replacement.

    Args:
        folder: A folder that `replace_together` writes to, perhaps just now.
    """
    before = folder / BEFORE
    return before if before.is_dir() and any(before.iterdir()) else folder


def _put_back(folder: Path) -> None:
    """Undo a replacement that failed or was killed; `whole` is right at every moment of it."""
    before = folder / BEFORE
    if before.is_symlink():
        before.unlink()
    if not before.is_dir():
        return
    for path in before.iterdir():
        with tempfile.TemporaryDirectory(dir=folder, prefix=SAVING) as name:
            _keep(path, Path(name) / path.name)
            os.replace(Path(name) / path.name, folder / path.name)  # noqa: PTH105 (other than the one that failed)
    with tempfile.TemporaryDirectory(dir=folder, prefix=SAVING) as name:
        os.replace(before, Path(name) / "before")  # noqa: PTH105 (as above)


def _keep(path: Path, kept: Path) -> None:
    """Give a file a second name, or where the disk knows no links, copy it."""
    try:
        kept.hardlink_to(path)
    except OSError:
        shutil.copy2(path, kept)


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
