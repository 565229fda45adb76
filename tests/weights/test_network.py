"""Whether there is a network, found out on sockets of this machine."""

import socket
from collections.abc import Iterator

import pytest

from stablepref.weights import network
from stablepref.weights.network import require_network

URL = "https://huggingface.co"


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
