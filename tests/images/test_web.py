"""Images from http addresses, served by this machine to itself."""

import io
import itertools
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from stablepref.images import web
from stablepref.images.decoding import decode
from stablepref.images.sources import ImageError, UnusableImageError, iter_sources
from stablepref.images.web import STRIKES, SlowHosts, fetch


def picture() -> bytes:
    """A small PNG file."""
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), (1, 2, 3)).save(buffer, "PNG")
    return buffer.getvalue()


class Handler(BaseHTTPRequestHandler):
    """Answers by path, and remembers what it was asked."""

    asked: ClassVar[list[tuple[str, str]]] = []
    over = threading.Event()  # the test

    def do_GET(self) -> None:
        """Answer one request."""
        self.asked.append((self.path, self.headers["User-Agent"]))
        body = picture()
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/a.png")
            self.end_headers()
            return
        if self.path == "/missing.png":
            self.send_error(404, "Not Found")
            return
        if self.path in {"/to-ftp", "/to-file"}:
            where = {"/to-ftp": "ftp://127.0.0.1:1/a.png", "/to-file": "file:///etc/hostname"}
            self.send_response(302)
            self.send_header("Location", where[self.path])
            self.end_headers()
            return
        if self.path == "/dripping-headers":
            self.wfile.write(b"HTTP/1.0 200 OK\r\n")
            for letter in itertools.cycle(b"X-A: a\r\n"):
                if self.over.wait(0.02):
                    return
                self.wfile.write(bytes([letter]))
        if self.path == "/silent":
            self.over.wait()
            return
        self.send_response(200)
        if self.path not in {"/unknown-length", "/endless", "/dripping"}:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.path == "/page":
            body = b"<!doctype html>".ljust(len(body))
        while self.path == "/endless" and not self.over.is_set():
            self.wfile.write(b"x")
        while self.path == "/dripping" and not self.over.wait(0.02):
            self.wfile.write(b"x")
        self.wfile.write(body[:20] if self.path == "/short" else body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Keep quiet."""


class Server(ThreadingHTTPServer):
    """Serves until the test ends; clients that hang up are part of the tests."""

    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep quiet."""


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of a running server."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    Handler.asked.clear()
    Handler.over.clear()
    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    Handler.over.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("path", ["/a.png", "/moved", "/unknown-length", "/b c/ü.png?x=%20&y=1#z"])
def test_an_address_is_fetched(address: str, path: str) -> None:
    (source,) = iter_sources(address + path)
    assert source.name == address + path
    assert Handler.asked == []  # not before it is decoded
    assert np.asarray(decode(source)).tolist() == [[[1, 2, 3]] * 3] * 2
    assert Handler.asked[0][1].startswith("stablepref")
    assert Handler.asked[0][0] in {path, "/b%20c/%C3%BC.png?x=%20&y=1"}


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("/missing.png", "the server answered 404 Not Found"),
        ("/page", "not an image but a web page"),
        ("/short", "connection ended after 20 of"),
    ],
)
def test_bad_answers(address: str, path: str, part: str) -> None:
    with pytest.raises(ImageError, match=r"image 1 \(http://127.*\): ") as caught:
        decode(list(iter_sources([b"", address + path]))[1])
    assert part in caught.value.reason


def test_limits(address: str) -> None:
    with pytest.raises(UnusableImageError, match="larger than the 30 bytes allowed"):
        fetch(f"{address}/a.png", largest=30)
    with pytest.raises(UnusableImageError, match="larger than the 5000 bytes allowed"):
        fetch(f"{address}/endless", largest=5000)
    with pytest.raises(UnusableImageError, match=r"did not send the file within 0\.2 s"):
        fetch(f"{address}/silent", timeout=0.2)


@pytest.mark.parametrize("path", ["/silent", "/dripping", "/dripping-headers"])
def test_a_download_that_goes_on_and_on(address: str, path: str) -> None:
    """Each read gets a byte well within the time, and together they would take forever."""
    with pytest.raises(UnusableImageError, match=r"did not send the file within 0\.3 s"):
        fetch(f"{address}{path}", timeout=0.3)


@pytest.mark.parametrize("path", ["/to-ftp", "/to-file"])
def test_no_redirect_leaves_http(address: str, path: str) -> None:
    with pytest.raises(UnusableImageError, match=r"'ftp:.*not http\(s\)|'file:.*not allowed"):
        fetch(f"{address}{path}")


def test_a_slow_host_does_not_stop_a_stream(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "SLOW", SlowHosts())
    for _ in range(STRIKES):
        with pytest.raises(UnusableImageError, match="did not send"):
            fetch(f"{address}/silent", timeout=0.1)
    asked = len(Handler.asked)
    with pytest.raises(UnusableImageError, match=r"3 downloads in a row .*not asked again for"):
        fetch(f"{address}/a.png")
    assert len(Handler.asked) == asked, "the host was left alone"
    other = address.replace("127.0.0.1", "localhost")
    monkeypatch.setenv("no_proxy", "*")
    assert fetch(f"{other}/a.png") == picture()


def test_after_a_rest_a_host_is_asked_again(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "SLOW", SlowHosts())
    monkeypatch.setattr(web, "REST", 0.0)
    for _ in range(STRIKES):
        with pytest.raises(UnusableImageError, match="did not send"):
            fetch(f"{address}/silent", timeout=0.1)
    assert fetch(f"{address}/a.png") == picture()


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/a.png", "http://[bad/a.png", "http://a:port/x", "http:///x"]
)
def test_no_server(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(ImageError, match="cannot be downloaded"):
        decode(next(iter_sources(url)))
