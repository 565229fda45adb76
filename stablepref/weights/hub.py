"""Published files and repositories on this machine: found in a cache, or downloaded and checked."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.constants import ENDPOINT
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from stablepref.output.durable import replacing
from stablepref.weights.cache import cache_folder, cached
from stablepref.weights.download import download
from stablepref.weights.errors import WeightsError
from stablepref.weights.folder import CONFIG_FILE, read_config
from stablepref.weights.network import first_line, require_network

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from stablepref.weights.remote import RemoteFile

log = logging.getLogger(__name__)

SHA256 = re.compile(r"[0-9a-f]{64}")
BLOCK = 2**24


class UnavailableError(OSError):
    """A model's files are neither cached here nor can they be downloaded."""


def fetch(file: RemoteFile, *, model: str, page: str) -> Path:
    """The file's local copy, downloaded if need be, its size and checksum verified.

    Args:
        file: What is needed.
        model: Whose file it is, for messages.
        page: Where the model is described, for messages.

    Raises:
        UnavailableError: It cannot be downloaded.
        WeightsError: It is not the official file.
    """
    path = cached(file)
    if path is None:
        log.info("downloading %s of %s", file.filename, model)
        path = _download(file, model, page)
    log.info("%s: %s", file.filename, path)
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
    with replacing(record) as staging:
        staging.write_text(state)


def accepted(licence: str) -> bool:
    """Whether `$STABLEPREF_ACCEPT`, names of licences with commas between, has this one."""
    names = os.environ.get("STABLEPREF_ACCEPT", "").split(",")
    return licence.lower() in (name.strip().lower() for name in names)


def _hub_checksum(path: Path) -> str | None:
    """The hub's cache stores a large file under its SHA-256, which is thus known."""
    name = path.resolve().name
    return name if SHA256.fullmatch(name) else None


def _download(file: RemoteFile, model: str, page: str) -> Path:
    if file.repo is None and file.url is None:
        msg = (
            f"{model} is not on the hub: get {file.filename} from {page} and pass its path, "
            f"stablepref.load({file.filename!r}, like={model!r})"
        )
        raise UnavailableError(msg)
    if file.accept is not None and not accepted(file.accept):
        msg = (
            f"{file.filename} of {model} is under {file.accept}, a licence that also binds who "
            f"passes the model on or offers a service with it: read it at {page}, then set "
            f"STABLEPREF_ACCEPT={file.accept} to accept it and download the file; or get the file "
            f"yourself and pass its path, stablepref.load({file.filename!r}, like={model!r})"
        )
        raise UnavailableError(msg)
    try:
        if file.repo is not None:
            require_network(ENDPOINT)
            return Path(hf_hub_download(file.repo, file.filename))
        path = cache_folder() / file.filename
        path.parent.mkdir(parents=True, exist_ok=True)
        download(str(file.url), path, size=file.size)
    except OSError as error:  # no network, no such host, offline mode, a full disk
        msg = f"cannot download {file.filename} of {model} ({first_line(error)})"
        raise UnavailableError(msg) from error
    return path


def fetch_folder(
    name: str | os.PathLike[str],
    class_of: Callable[[object], type[nn.Module]],
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
    token: str | bool | None = None,
) -> Path:
    """The local folder `name` itself, or else the hub repository; see `download_folder`."""
    if Path(name).is_dir():
        return Path(name)
    return download_folder(
        os.fspath(name),
        class_of,
        revision=revision,
        cache_dir=cache_dir,
        force_download=force_download,
        local_files_only=local_files_only,
        token=token,
    )


def download_folder(
    repository: str,
    class_of: Callable[[object], type[nn.Module]],
    **options: Any,  # noqa: ANN401 - the hub's own
) -> Path:
    """The local copy of a hub repository that holds a saved model.

    The configuration comes first, so that another model's weights are not downloaded.

    Args:
        repository: "user/name".
        class_of: As `folder.load_folder` takes it.
        **options: Those of `huggingface_hub.snapshot_download`.

    Raises:
        WeightsError: It is no repository of a scorer.
        OSError: It cannot be downloaded, and is not in the cache.
    """
    offline: OSError | None = None
    try:
        require_network(ENDPOINT)
    except OSError as error:
        offline, options["local_files_only"] = error, True
    try:
        read_config(Path(hf_hub_download(repository, CONFIG_FILE, **options)).parent, class_of)
    except LocalEntryNotFoundError as error:
        raise (offline or error) from error
    except (EntryNotFoundError, WeightsError) as error:
        reason = error if isinstance(error, WeightsError) else f"it has no {CONFIG_FILE}"
        msg = f"{repository} on the hub is no scorer that save_pretrained wrote: {reason}"
        raise WeightsError(msg) from error
    patterns = ["*.json", "*.safetensors", "*.txt", "*.gz"]
    return Path(snapshot_download(repository, allow_patterns=patterns, **options))
