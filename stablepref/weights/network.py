"""Whether there is a network at all, found out in a moment."""

from __future__ import annotations

import socket
from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

ANSWER_SECONDS: Final = 5.0
PORTS: Final = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}


def require_network(url: str) -> None:
    """Look whether the first step towards `url` succeeds.

    Clients of the hub try for half a minute before they give up. Here a name is looked up, or the
    proxy of the environment connected to, once.

    Args:
        url: An http(s) address.

    Raises:
        OSError: No name service knows its host, or its proxy does not answer within 5 seconds.
    """
    parts = urlsplit(url)
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if proxy is None or proxy_bypass(parts.hostname or ""):
        socket.getaddrinfo(parts.hostname, None)
        return
    address = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    port = address.port or PORTS.get(address.scheme, PORTS["http"])
    try:
        socket.create_connection((address.hostname or "", port), timeout=ANSWER_SECONDS).close()
    except OSError as error:
        msg = f"the proxy {address.hostname}:{port} does not answer: {error}"
        raise OSError(msg) from error
