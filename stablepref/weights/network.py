"""Whether the network can be reached, found out in seconds; needs no torch."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name

from stablepref.runtime.web import Deadline, addresses

ANSWER_SECONDS: Final = 5.0
PORTS: Final = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its kind where it has none."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def require_repository(repository: str) -> None:
    """Check whether a hub repository is in the cache, or else whether the hub can be reached.

    Args:
        repository: "user/name".

    Raises:
        OSError: Neither.
    """
    folder = repo_folder_name(repo_id=repository, repo_type="model")
    if Path(constants.HF_HUB_CACHE, folder, "snapshots").is_dir():
        return
    if constants.HF_HUB_OFFLINE:
        msg = "it is not in the cache, and HF_HUB_OFFLINE is set"
        raise OSError(msg)
    try:
        require_network(constants.ENDPOINT)
    except OSError as error:
        msg = f"it is not in the cache, and the hub cannot be reached: {first_line(error)}"
        raise OSError(msg) from error


def require_network(url: str) -> None:
    """Check whether the first step towards `url` succeeds.

    Clients of the hub try for half a minute before they give up. Here a name is looked up, or the
    proxy of the environment connected to, once.

    Args:
        url: An http(s) address.

    Raises:
        OSError: Its host cannot be resolved, or its proxy does not answer, within 5 seconds.
    """
    parts = urlsplit(url)
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if proxy is None or proxy_bypass(parts.hostname or ""):
        addresses(parts.hostname, None, Deadline(ANSWER_SECONDS))
        return
    address = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    port = address.port or PORTS.get(address.scheme, PORTS["http"])
    try:
        socket.create_connection((address.hostname or "", port), timeout=ANSWER_SECONDS).close()
    except OSError as error:
        msg = f"the proxy {address.hostname}:{port} does not answer: {error}"
        raise OSError(msg) from error
