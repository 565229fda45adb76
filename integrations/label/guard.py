"""Who may use the page: this machine's own browsers, or whoever has the key."""

from __future__ import annotations

import json
import secrets
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Any, Final, final
from urllib.parse import parse_qs, urlsplit

from ..serve.settings import is_loopback

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    App = Callable[[Message, Receive, Send], Awaitable[None]]

KEY: Final = "stablepref-label-key"
"""The cookie that holds the key."""
POLICY: Final = (
    "default-src 'none'; img-src 'self' data:; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Nothing comes from elsewhere, and nothing goes there."""
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
LARGEST: Final = 2**16
"""Bytes of a request at most."""


@final
class Guard:
    """ASGI middleware: refuses strangers and other sites' requests, and sets the policy.

    Without a key the header Host must name this machine itself, since a page elsewhere can make a
    browser send requests here under a name of its own. A request that changes something must come
    from a page of this server.

    Args:
        app: What is guarded.
        key: What the address has to hold once, as in `/?key=...`; a cookie keeps it from then on.
    """

    def __init__(self, app: App, key: str | None = None) -> None:
        self.app = app
        self.key = key

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_encoded(HEADERS)]
            await send(message)

        headers = {name.decode("latin-1").lower(): value for name, value in scope["headers"]}
        host = headers.get("host", b"").decode("latin-1")
        refusal = self._refusal(scope, headers, host)
        if refusal is not None:
            await _answer(with_policy, *refusal)
        elif self.key is not None and self._is_key(_query_key(scope)):
            cookie = f"{KEY}={self.key}; HttpOnly; SameSite=Strict; Path=/"
            await _answer(with_policy, 303, "", {"Location": "/", "Set-Cookie": cookie})
        else:
            await self.app(scope, receive, with_policy)

    def _refusal(
        self, scope: Message, headers: MutableMapping[str, bytes], host: str
    ) -> tuple[int, str] | None:
        """Status and reason; None for a request that is passed on."""
        if self.key is None:
            if not is_loopback(_hostname(host)):
                return 403, "this page answers at 127.0.0.1 and localhost only"
        elif not (self._is_key(_cookie_key(headers)) or self._is_key(_query_key(scope))):
            return 401, "open the address with the key that `stablepref label` printed"
        if scope["method"] not in ("GET", "HEAD"):
            origin = headers.get("origin", b"").decode("latin-1")
            if origin and urlsplit(origin).netloc != host:
                return 403, "requests of other pages are refused"
            if not headers.get("content-type", b"").startswith(b"application/json"):
                return 415, "expected JSON"
            length = headers.get("content-length", b"").decode("latin-1")
            if not length.isdigit() or int(length) > LARGEST:
                return 413, f"expected a body of at most {LARGEST} bytes, with its length"
        return None

    def _is_key(self, given: str) -> bool:
        return secrets.compare_digest(given.encode(), (self.key or "").encode())


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _query_key(scope: Message) -> str:
    return parse_qs(scope.get("query_string", b"").decode("latin-1")).get("key", [""])[0]


def _cookie_key(headers: MutableMapping[str, bytes]) -> str:
    try:
        cookie = SimpleCookie(headers.get("cookie", b"").decode("latin-1"))
    except CookieError:
        return ""
    return cookie[KEY].value if KEY in cookie else ""


def _encoded(headers: MutableMapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]


async def _answer(
    send: Send, status: int, detail: str, headers: MutableMapping[str, str] | None = None
) -> None:
    body = json.dumps({"detail": detail}).encode()
    given = {"Content-Type": "application/json", "Content-Length": str(len(body))} | dict(
        headers or {}
    )
    await send({"type": "http.response.start", "status": status, "headers": _encoded(given)})
    await send({"type": "http.response.body", "body": body})
