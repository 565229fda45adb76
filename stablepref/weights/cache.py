"""Which published files are on this machine already; needs no torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import try_to_load_from_cache

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stablepref.weights.remote import RemoteFile


def cache_folder() -> Path:
    """Where files that are not on the hub are kept: `$STABLEPREF_CACHE` or ~/.cache/stablepref."""
    default = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "stablepref"
    return Path(os.environ.get("STABLEPREF_CACHE", default)).expanduser()


def cached(file: RemoteFile) -> Path | None:
    """The file's local copy, if there is one."""
    if file.repo is not None:
        found = try_to_load_from_cache(file.repo, file.filename)
        return Path(found) if isinstance(found, str) else None
    path = cache_folder() / file.filename
    return path if path.is_file() else None


def is_cached(files: Iterable[RemoteFile]) -> bool:
    """Whether every one of these files is here."""
    return all(cached(file) is not None for file in files)
