"""Official files on this machine: found in a cache or downloaded, and checked once."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.constants import ENDPOINT

from stablepref.weights.folder import WeightsError
from stablepref.weights.network import require_network

if TYPE_CHECKING:
    from stablepref.models.catalog import Entry, RemoteFile

SHA256 = re.compile(r"[0-9a-f]{64}")
BLOCK = 2**24


class UnavailableError(OSError):
    """A model's files are neither cached here nor can they be downloaded."""


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


def is_cached(entry: Entry) -> bool:
    """Whether every file of `entry` is here."""
    return all(cached(file) is not None for file in entry.files)


def fetch(entry: Entry, file: RemoteFile) -> Path:
    """The file's local copy, downloaded if need be, its size and checksum verified.

    Raises:
        UnavailableError: It cannot be downloaded.
        WeightsError: It is not the official file.
    """
    path = cached(file) or _download(entry, file)
    verify(path, size=file.size, sha256=file.sha256 or _hub_checksum(path))
    return path


def verify(path: Path, *, size: int | None, sha256: str | None) -> None:
    """Check a file's size and, once for each state of it on this machine, its SHA-256.

    Raises:
        WeightsError: Either differs.
    """
    stat = path.stat()
    if size is not None and stat.st_size != size:
        msg = (
            f"{path} has {stat.st_size:,} bytes, the official file has {size:,}: it is truncated "
            "or another file; delete it and load again"
        )
        raise WeightsError(msg)
    if sha256 is None:
        return
    record = cache_folder() / "verified" / hashlib.sha256(str(path.resolve()).encode()).hexdigest()
    state = json.dumps([stat.st_size, stat.st_mtime_ns, sha256])
    if record.is_file() and record.read_text() == state:
        return
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != sha256:
        msg = f"{path} has SHA-256 {found}, expected {sha256}; delete it and load again"
        raise WeightsError(msg)
    record.parent.mkdir(parents=True, exist_ok=True)
    staging = record.with_suffix(f".{os.getpid()}")
    staging.write_text(state)
    staging.replace(record)


def _hub_checksum(path: Path) -> str | None:
    """The hub's cache stores a large file under its SHA-256, which is thus known."""
    name = path.resolve().name
    return name if SHA256.fullmatch(name) else None


def _download(entry: Entry, file: RemoteFile) -> Path:
    if file.repo is None and file.url is None:
        msg = (
            f"{entry.name} is not on the hub: get {file.filename} from {entry.page} and pass its "
            f"path, stablepref.load({file.filename!r}, like={entry.name!r})"
        )
        raise UnavailableError(msg)
    try:
        if file.repo is not None:
            require_network(ENDPOINT)
            return Path(hf_hub_download(file.repo, file.filename))
        path = cache_folder() / file.filename
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(str(file.url), str(path))
    except OSError as error:  # no network, no such host, offline mode, a full disk
        msg = f"cannot download {file.filename} of {entry.name} ({first_line(error)})"
        raise UnavailableError(msg) from error
    return path


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its kind where it has none."""
    return next(iter(str(error).splitlines()), type(error).__name__)
