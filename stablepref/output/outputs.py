"""Files that a command is asked to write, checked before it does its work."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stablepref.scoring.manifest import Item


def check_place(option: str, path: Path) -> None:
    """Refuse a place where no file can be written.

    Raises:
        ValueError: It is a folder, or its folder is not there.
    """
    if path.is_dir():
        msg = f"{option} {path}: this is a folder; expected the name of a file"
        raise ValueError(msg)
    if not path.parent.is_dir():
        msg = f"{option} {path}: there is no folder {path.parent}"
        raise ValueError(msg)


def check_input(option: str, path: Path, inputs: Sequence[object]) -> None:
    """Refuse to write over one of the files that are read.

    Args:
        option: Name of the option that named the output.
        path: The output.
        inputs: Paths, under any name of the file; what else is among them is passed over.

    Raises:
        ValueError: The output is one of them.
    """
    found = _stat(path)
    for given in inputs:
        other = _stat(given) if found is not None else None
        if found is not None and other is not None and os.path.samestat(found, other):
            msg = f"{option} {path} would write over {given}, which is read: choose another name"
            raise ValueError(msg)


def checked_items(option: str, path: Path, items: Iterator[Item]) -> Iterator[Item]:
    """The items as they come, out of folders, patterns and manifests too.

    Raises:
        ValueError: One of them is the output.
    """
    for item in items:
        check_input(option, path, [item.image])
        yield item


def _stat(path: object) -> os.stat_result | None:
    """What tells one file from another; None where there is none or it is no path."""
    try:
        return Path(path).stat() if isinstance(path, str | os.PathLike) else None
    except (OSError, ValueError):
        return None
