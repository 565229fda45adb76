"""One writer at a time: a second process that writes the same output is refused at once.

The operating system holds the lock and frees it when the process ends, however it ends: what a
killed process leaves behind blocks nobody.
"""

from __future__ import annotations

import errno
import warnings
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from filelock import FileLock, Timeout

from stablepref.output.durable import remove_leftovers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FOLDER_LOCK: Final = ".stablepref.lock"
"""The lock's name in a folder that is written to."""
_NO_LOCKS: Final = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL}
"""What file systems without locks report, some network folders among them."""


class InUseError(OSError):
    """Another process is writing the same output."""


@contextmanager
def sole_writer(output: Path, *, folder: bool = False, active: bool = True) -> Iterator[None]:
    """Be the only process that writes an output, until the block ends.

    What killed processes had begun to write there is deleted first. Use it around everything that
    reads what is done already and continues after it.

    Args:
        output: The file, in a folder that exists, or the folder.
        folder: Whether it is a folder; it is made, and removed again if it is still empty at the
            end.
        active: Whether to lock at all: of the processes that work together, one does.

    Raises:
        InUseError: Another process, or another thread, is writing it.
        OSError: The place cannot be written.
    """
    if not active:
        yield
        return
    made = [path for path in (output, *output.parents) if not path.exists()] if folder else []
    if folder:
        output.mkdir(parents=True, exist_ok=True)
    path = output / FOLDER_LOCK if folder else output.with_name(f".{output.name}.lock")
    lock = FileLock(path, timeout=0)
    try:
        _acquire(lock, output)
        try:
            if folder:
                remove_leftovers(output)
            else:
                remove_leftovers(output.parent, of=output)
            yield
        finally:
            with suppress(OSError):  # Windows keeps the name of a file that is open
                path.unlink()  # still locked, so that whoever opens it now sees that it is gone
            lock.release()
    finally:
        with suppress(OSError):  # not empty, as it should be
            for place in made:
                place.rmdir()


def _acquire(lock: FileLock, output: Path) -> None:
    """Take the lock, or warn that there are none here."""
    try:
        lock.acquire()
    except Timeout as error:
        raise InUseError(
            f"{output} is being written by another process: wait until that has ended, or choose "
            "another output"
        ) from error
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise OSError(
                f"cannot write to {output}: its lock {lock.lock_file} cannot be opened ({error})"
            ) from error
        warnings.warn(
            f"{output} is on a file system without locks ({error}): make sure that no other "
            "process writes to it",
            stacklevel=5,
        )
