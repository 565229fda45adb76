"""What every request passes first: the token, the bounds on number, bytes and time, the log."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import logging
import secrets
import time
from typing import TYPE_CHECKING, Any, final
from urllib.parse import urlsplit

from stablepref.runtime.bounded_json import check_parts

from .settings import MEGA, is_loopback

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from .service import Service

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    App = Callable[[Message, Receive, Send], Awaitable[None]]

OPEN = ("/health",)
"""Paths that answer without a token: whether the server is alive."""

END = {"Connection": "close"}
"""With the answer to a request whose end is not waited for."""

FAILED = "the server failed; its log says why"

log = logging.getLogger(__name__)


@final
class _RefusedError(Exception):
    """A request that is not passed on."""

    def __init__(self, status: int, detail: str, **headers: str) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, headers


@final
class Guard:
    """ASGI middleware: refuses strangers and floods, and lets no traceback out.

    A request's body is read whole, within the bounds, before anything else looks at it. There are
    no WebSockets here.

    Args:
        app: What is guarded.
        service: Whose settings and counts these are.
    """

    def __init__(self, app: App, service: Service) -> None:
        self.app = app
        self.service = service
        self._active = 0
        self._bytes = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.monotonic()
        status = 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._admitted(scope, receive, noting)
        except _RefusedError as refused:
            log.info("refused %s: %d %s", scope["path"], refused.status, refused.detail)
            if not status:
                await _answer(noting, refused.status, refused.detail, refused.headers)
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"])
            if not status:
                await _answer(noting, 500, FAILED, {})
        route = scope.get("route")
        path = getattr(route, "path", "unknown")
        self.service.metrics.request(path, status, time.monotonic() - started)

    async def _admitted(self, scope: Message, receive: Receive, send: Send) -> None:
        headers = {key.decode("latin-1").lower(): value for key, value in scope["headers"]}
        settings = self.service.settings
        known = self._is_known(headers)
        scope.setdefault("state", {})["known"] = known
        if not known and scope["path"] not in OPEN:
            raise _RefusedError(
                401,
                "this server asks for its token: send the header Authorization: Bearer TOKEN",
                **{"WWW-Authenticate": "Bearer"},
            )
        if scope["method"] in ("GET", "HEAD"):
            await self.app(scope, receive, send)
            return
        most = settings.max_request_mb * MEGA
        length = _length(headers, most)
        full = self._bytes + length > settings.max_total_mb * MEGA
        if self._active >= settings.max_waiting or full:
            pause = str(self.service.seconds_to_wait())
            await _drained(receive, length, settings.body_timeout)
            busy = f"{self._active} requests wait already; try again in {pause} s"
            raise _RefusedError(503, busy, **{"Retry-After": pause})
        self._active += 1
        self._bytes += length
        self.service.metrics.active(self._active)
        try:
            body = await _read_body(receive, most, settings.body_timeout)
            if b"json" in headers.get("content-type", b"").lower():
                _check_json(body)
            await self.app(scope, _replayed(body, receive), send)
        finally:
            self._active -= 1
            self._bytes -= length
            self.service.metrics.active(self._active)

    def _is_known(self, headers: MutableMapping[str, bytes]) -> bool:
        """Whether the token is right; without one, whether the client calls this machine its own.

        A page in a browser can make it send requests to this machine under a name of the page's
        own; the header Host then says so.
        """
        token = self.service.settings.token
        if token is None:
            host = headers.get("host", b"").decode("latin-1")
            return is_loopback(urlsplit(f"//{host}").hostname or "")
        kind, _, given = headers.get("authorization", b"").decode("latin-1").partition(" ")
        if kind.lower() == "basic":  # http://:TOKEN@host, for clients that know no bearer
            try:
                given = base64.b64decode(given, validate=True).decode("latin-1")
            except (binascii.Error, ValueError):
                return False
            user, _, password = given.partition(":")
            given = password or user
        elif kind.lower() != "bearer":
            return False
        return secrets.compare_digest(given.strip().encode(), token.encode())


def _length(headers: MutableMapping[str, bytes], most: float) -> int:
    """The length that a request says its body has; the most for one that does not say."""
    text = headers.get("content-length", b"").decode("latin-1")
    if not text:
        return int(most)
    if "transfer-encoding" in headers:
        # A proxy may go by the other of the two, and take the rest for another client's request.
        raise _RefusedError(400, "the request has both Content-Length and Transfer-Encoding", **END)
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise _RefusedError(400, "Content-Length is not a number", **END)
    if int(text) > most:
        raise _RefusedError(413, f"the request has {text} bytes; this server takes {most:.0f}")
    return int(text)


async def _read_body(receive: Receive, most: float, seconds: float) -> bytes:
    """The whole body."""
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise _RefusedError(400, "the client left before its request was complete")
                body += message.get("body", b"")
                more = message.get("more_body", False)
                if len(body) > most:
                    raise _RefusedError(413, f"the request has more than {most:.0f} bytes", **END)
    except TimeoutError as error:
        late = f"the request did not arrive within {seconds:g} s"
        raise _RefusedError(408, late, **END) from error
    return bytes(body)


def _check_json(body: bytes) -> None:
    """Refuse JSON of so many values that reading it would take the memory."""
    try:
        check_parts(body)
    except ValueError as error:
        raise _RefusedError(413, str(error)) from error


async def _drained(receive: Receive, length: int, seconds: float) -> None:
    """Read a body and forget it, so that the client can read why it is refused."""
    try:
        async with asyncio.timeout(min(seconds, 5)):
            while length >= 0:
                message = await receive()
                length -= len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
    except TimeoutError:
        return


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body, and then what really comes."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


async def _answer(send: Send, status: int, detail: str, headers: MutableMapping[str, str]) -> None:
    body = json.dumps({"detail": detail}).encode()
    pairs = {"Content-Type": "application/json", "Content-Length": str(len(body))} | dict(headers)
    encoded = [(key.lower().encode(), value.encode("latin-1")) for key, value in pairs.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})
