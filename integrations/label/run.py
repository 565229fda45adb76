"""The labelling page as a process."""

from __future__ import annotations

import secrets
from contextlib import suppress
from typing import TYPE_CHECKING

import uvicorn

from ..serve.address import listening
from ..serve.settings import is_loopback
from .app import create_app

if TYPE_CHECKING:
    from collections.abc import Callable

    from .session import Session


def run(session: Session, *, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        session: The questions and the answers.
        host: The address to listen at; other machines need a key for one that they can reach.
        port: 0 takes a free one.
        ready: Called with the address of the page once it can be opened.

    Raises:
        ValueError: The address cannot be listened at.
    """
    key = None if is_loopback(host) else secrets.token_urlsafe(16)
    with listening(host, port) as bound:
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{bound.getsockname()[1]}/"
        config = uvicorn.Config(
            create_app(session, key=key), log_level="warning", server_header=False, lifespan="off"
        )
        ready(address if key is None else f"{address}?key={key}")
        with suppress(KeyboardInterrupt):  # the usual end
            uvicorn.Server(config).run(sockets=[bound])
