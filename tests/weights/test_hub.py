"""Published files: found, verified once, and refused when they are not what they should be.

Whether there is a network is found out on sockets of this machine.
"""

import dataclasses
import hashlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from stablepref.weights import hub, network
from stablepref.weights.errors import WeightsError
from stablepref.weights.hub import (
    UnavailableError,
    cache_folder,
    cached,
    is_cached,
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


@pytest.fixture
def file(tmp_path: Path) -> RemoteFile:
    """A file on a 'server' that is a folder."""
    served = tmp_path / "served.bin"
    served.write_bytes(b"weights")
    return RemoteFile(
        "weights.bin",
        url=served.as_uri(),
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


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    file = RemoteFile("x.bin", url=(tmp_path / "none.bin").as_uri())
    with pytest.raises(UnavailableError, match=r"cannot download x\.bin of hps-v1"):
        fetch(file)
    assert not (cache_folder() / "x.bin").exists()


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
    monkeypatch.setattr(network.socket, "getaddrinfo", fail)
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
