"""The address that a server listens at."""

from __future__ import annotations

import socket


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Args:
        host: A name or address of this machine.
        port: 0 takes a free one.

    Raises:
        ValueError: The address cannot be listened at.
    """
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        bound.listen(128)
    except OSError as error:
        bound.close()
        msg = f"{host}:{port} cannot be listened at: {error.strerror}; choose another --port"
        raise ValueError(msg) from error
    return bound


def check_address(host: str, port: int) -> None:
    """Refuse an address that cannot be listened at, before models are loaded.

    Raises:
        ValueError: It cannot be listened at.
    """
    listening(host, port).close()
