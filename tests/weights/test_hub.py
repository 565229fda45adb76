"""Published files: found, verified once, and refused when they are not what they should be.

Whether there is a network is found out on sockets of this machine.
"""

import dataclasses
import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from stablepref.weights import download, hub, network
from stablepref.weights.cache import cache_folder, cached, is_cached
from stablepref.weights.errors import WeightsError
from stablepref.weights.hub import (
    UnavailableError,
    verify,
)
from stablepref.weights.network import require_network
from stablepref.weights.remote import RemoteFile

URL = "https://huggingface.co"


def fetch(file: RemoteFile) -> Path:
    return hub.fetch(file, model="hps-v1", page="https://github.com/tgxs002/align_sd")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STABLEPREF_CACHE", str(tmp_path / "cache"))


class Served(SimpleHTTPRequestHandler):
    """A folder, and two addresses that misbehave."""

    def do_GET(self) -> None:
        """Answer one request."""
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "file:///etc/hostname")
            self.end_headers()
        elif self.path == "/short":
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"weights")
        elif self.path == "/slow":
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):
                for _ in range(100):
                    self.wfile.write(b"w")
                    time.sleep(0.02)
        else:
            super().do_GET()

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server of the test's folder."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Served, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def file(address: str, tmp_path: Path) -> RemoteFile:
    """A file on a server."""
    served = tmp_path / "served.bin"
    served.write_bytes(b"weights")
    return RemoteFile(
        "weights.bin",
        url=f"{address}/served.bin",
        size=7,
        sha256=hashlib.sha256(b"weights").hexdigest(),
    )


def test_a_file_is_downloaded_once_and_verified(file: RemoteFile, tmp_path: Path) -> None:
    other = dataclasses.replace(file, filename="other.bin")
    assert not is_cached([file])
    path = fetch(file)
    assert path.read_bytes() == b"weights"
    assert cached(file) == path
    assert is_cached([file])
    assert not is_cached([file, other])
    (tmp_path / "served.bin").unlink()
    assert fetch(file) == path


def test_a_wrong_checksum_is_refused(file: RemoteFile) -> None:
    wrong = dataclasses.replace(file, sha256="0" * 64)
    with pytest.raises(WeightsError, match="SHA-256"):
        fetch(wrong)


def test_a_truncated_file_is_refused(file: RemoteFile) -> None:
    longer = dataclasses.replace(file, size=8)
    with pytest.raises(WeightsError, match=r"7 bytes, the official file has 8.*truncated"):
        fetch(longer)


def test_a_changed_file_is_verified_again(file: RemoteFile) -> None:
    path = fetch(file)
    path.write_bytes(b"weighty")
    with pytest.raises(WeightsError, match="SHA-256"):
        verify(path, size=7, sha256=file.sha256)


def test_a_checksum_is_computed_once(file: RemoteFile, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch(file)
    monkeypatch.setattr(hub.hashlib, "file_digest", None)
    fetch(file)


def test_the_hubs_own_checksum_is_used(tmp_path: Path) -> None:
    """The hub's cache names a large file by its SHA-256 and links to it."""
    blob = tmp_path / hashlib.sha256(b"weights").hexdigest()
    blob.write_bytes(b"weights")
    link = tmp_path / "model.safetensors"
    link.symlink_to(blob)
    assert hub._hub_checksum(link) == blob.name
    verify(link, size=None, sha256=hub._hub_checksum(link))
    blob.write_bytes(b"WEIGHTS")
    with pytest.raises(WeightsError, match="SHA-256"):
        verify(link, size=None, sha256=hub._hub_checksum(link))


def test_a_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = server.getsockname()[1]
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    file = RemoteFile("x.bin", url=f"http://127.0.0.1:{closed}/none.bin")
    with pytest.raises(UnavailableError, match=r"cannot download x\.bin of hps-v1"):
        fetch(file)
    assert not (cache_folder() / "x.bin").exists()


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("none.bin", "404"),
        ("served.bin", "larger than the 5 bytes"),
        ("short", "connection ended after 7 of 100 bytes"),
        ("slow", r"not complete within 0\.2 s|timed out"),
        ("moved", "file:///etc/hostname' is not allowed"),
    ],
)
def test_a_download_that_is_not_whole_leaves_nothing(
    path: str, says: str, file: RemoteFile, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "PATIENCE", 0.2 if path == "slow" else 20)
    size = 5 if path == "served.bin" else None
    with pytest.raises(UnavailableError, match=says):
        fetch(dataclasses.replace(file, url=f"{address}/{path}", size=size))
    assert not list(cache_folder().iterdir())


def test_a_name_that_is_never_looked_up_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, over = threading.Event(), threading.Event()

    def wait(*_: object) -> list[object]:
        asked.set()
        over.wait(60)
        return []

    monkeypatch.setattr(network, "ANSWER_SECONDS", 0.05)
    monkeypatch.setattr(socket, "getaddrinfo", wait)
    monkeypatch.setattr(network, "getproxies", dict)
    try:
        with pytest.raises(TimeoutError, match=r"huggingface\.co was not looked up within 0\.05 s"):
            require_network(URL)
        assert asked.is_set()
    finally:
        over.set()


def test_a_file_that_is_nowhere_to_be_downloaded() -> None:
    with pytest.raises(UnavailableError, match=r"get hpc\.pt from .*align_sd.*like='hps-v1'"):
        fetch(RemoteFile("hpc.pt"))


@pytest.fixture
def looked_up(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names that are looked up; none of them is known, and no proxy is set."""
    names: list[str] = []

    def fail(host: str, *_: object) -> None:
        names.append(host)
        raise OSError("Name or service not known")

    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", fail)
    return names


@pytest.fixture
def port() -> Iterator[int]:
    """A port on which something listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_without_a_proxy_the_name_is_looked_up(looked_up: list[str]) -> None:
    with pytest.raises(OSError, match="Name or service"):
        require_network(URL)
    assert looked_up == ["huggingface.co"]


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "ALL_PROXY"])
@pytest.mark.parametrize("address", ["http://127.0.0.1:{}", "http://me:secret@127.0.0.1:{}/"])
def test_a_proxy_is_connected_to(
    variable: str, address: str, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, address.format(port))
    require_network(URL)


def test_a_dead_proxy_is_an_error_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = server.getsockname()[1]
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:secret@127.0.0.1:{closed}")
    with pytest.raises(OSError, match=f"the proxy 127.0.0.1:{closed} does not answer") as caught:
        require_network(URL)
    assert "secret" not in str(caught.value)


def test_hosts_that_need_no_proxy(looked_up: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "huggingface.co")
    with pytest.raises(OSError, match="Name or service"):
        require_network(URL)
    assert looked_up == ["huggingface.co"]


def test_a_licence_is_accepted_before_the_download(
    file: RemoteFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking = dataclasses.replace(file, accept="AGPL-3.0")
    for accepted in (None, "MIT", "AGPL-3.0-or-later"):
        if accepted is not None:
            monkeypatch.setenv("STABLEPREF_ACCEPT", accepted)
        with pytest.raises(UnavailableError, match=r"under AGPL-3\.0.*STABLEPREF_ACCEPT=AGPL-3\.0"):
            fetch(asking)
    monkeypatch.setenv("STABLEPREF_ACCEPT", "MIT, agpl-3.0")
    path = fetch(asking)
    monkeypatch.delenv("STABLEPREF_ACCEPT")
    assert fetch(asking) == path, "what is here was accepted"
