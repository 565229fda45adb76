"""One http(s) request with a time limit for all of it, and no redirect to anything else."""

from __future__ import annotations

import io
import socket
import time
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, Final
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from http.client import HTTPMessage
    from typing import IO

SCHEMES: Final = ("http", "https")


class Deadline:
    """When a request has to be over.

    Args:
        seconds: From now on.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds that are left.

        Raises:
            TimeoutError: There are none.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            msg = f"not complete within {self.seconds:g} s"
            raise TimeoutError(msg)
        return left

    def renew(self) -> None:
        """Begin anew with the same number of seconds."""
        self._end = time.monotonic() + self.seconds


def addresses(host: str | None, port: int | None, deadline: Deadline) -> list[tuple[Any, ...]]:
    """A host's addresses for TCP, as `socket.getaddrinfo` gives them.

    The operating system's look-up has no time limit: it is left to a thread, which may outlive the
    call.

    Raises:
        OSError: The name is not known; `TimeoutError` if that takes too long.
        ValueError: It cannot be a name.
    """
    found: SimpleQueue[list[tuple[Any, ...]] | Exception] = SimpleQueue()

    def look_up() -> None:
        try:
            found.put(list(socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)))
        except Exception as error:
            found.put(error)

    Thread(target=look_up, name="look-up", daemon=True).start()
    try:
        answer = found.get(timeout=deadline.left())
    except Empty:
        msg = f"the name {host} was not looked up within {deadline.seconds:g} s"
        raise TimeoutError(msg) from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def open_url(url: str, *, deadline: Deadline, headers: Mapping[str, str]) -> HTTPResponse:
    """The answer to a GET request, its body still to be read.

    The proxy settings of the environment and redirects are followed, those that stay http or https.
    The deadline holds for connecting, for headers, of each redirect too, and for the body.

    Raises:
        OSError: It cannot be opened: `urllib.error.HTTPError` for an error status, `TimeoutError`
            at the deadline, `urllib.error.URLError` for most others.
        ValueError: It is no http(s) address.
    """
    opener = OpenerDirector()
    for handler in (
        ProxyHandler(),
        _Handler(deadline),
        _SecureHandler(deadline),
        HTTPDefaultErrorHandler(),
        _RedirectHandler(),
        HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    scheme = urlsplit(url).scheme.lower()
    if scheme not in SCHEMES:
        msg = f"its scheme is {scheme!r}; expected http or https"
        raise ValueError(msg)
    answer: HTTPResponse = opener.open(Request(url, headers=dict(headers)), timeout=deadline.left())
    return answer


class _TimedReader(io.RawIOBase):
    """A socket's bytes, each read of which may take what is left of the time."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        super().__init__()
        self._socket = sock
        self._raw = sock.makefile("rb", buffering=0)
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:  # noqa: ANN401 - any writable buffer
        self._socket.settimeout(self._deadline.left())
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Connection(HTTPConnection):
    """A connection of which every step looks at the deadline."""

    deadline: Deadline

    def connect(self) -> None:
        self.timeout = self.deadline.left()
        self._create_connection = self._connected
        self.response_class = self._response  # type: ignore[assignment]
        super().connect()

    def _connected(
        self,
        address: tuple[str, int],
        timeout: float | None = None,
        source: tuple[str, int] | None = None,
    ) -> socket.socket:
        """Try the host's addresses one after the other, together within the time."""
        del timeout
        failure: OSError = OSError(f"{address[0]} has no address")
        for *_, place in addresses(*address, self.deadline):
            try:
                host, port = place[:2]
                return socket.create_connection(
                    (str(host), int(port)), self.deadline.left(), source
                )
            except OSError as error:
                failure = error
        raise failure

    def _response(self, sock: socket.socket, method: str | None = None) -> HTTPResponse:
        response = HTTPResponse(sock, method=method)
        response.fp.close()
        response.fp = io.BufferedReader(_TimedReader(sock, self.deadline))
        return response


class _SecureConnection(HTTPSConnection, _Connection):
    """The same with TLS, whose handshake has the connection's timeout."""


class _Handler(HTTPHandler):
    def __init__(self, deadline: Deadline) -> None:
        super().__init__()
        self._kind: Any = type("_Timed", (_Connection,), {"deadline": deadline})

    def http_open(self, req: Request) -> HTTPResponse:
        return self.do_open(self._kind, req)


class _SecureHandler(HTTPSHandler):
    def __init__(self, deadline: Deadline) -> None:
        super().__init__()
        self._kind: Any = type("_TimedSecure", (_SecureConnection,), {"deadline": deadline})

    def https_open(self, req: Request) -> HTTPResponse:
        return self.do_open(self._kind, req)


class _RedirectHandler(HTTPRedirectHandler):
    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        if urlsplit(newurl).scheme.lower() not in SCHEMES:
            fp.close()
            reason = f"it redirects to {newurl[:100]!r}, which is not http(s)"
            raise URLError(reason)
        return super().redirect_request(req, fp, code, msg, headers, newurl)
