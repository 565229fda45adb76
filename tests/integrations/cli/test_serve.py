"""`stablepref serve`: what is refused before a model is loaded, and what reaches the server."""

import socket
from pathlib import Path
from typing import Any

import pytest
from helpers.commandline import run

from stablepref.integrations.serve.settings import ServeSettings, is_loopback


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[ServeSettings]:
    """The settings with which a server would have been run."""
    monkeypatch.delenv("STABLEPREF_TOKEN", raising=False)
    found: list[ServeSettings] = []
    monkeypatch.setattr("stablepref.integrations.serve.run.run", found.append)
    return found


def test_by_default_it_is_this_machines_own(served: list[ServeSettings]) -> None:
    done = run("serve", "shapes")
    assert done.returncode == 0, done.stderr
    (settings,) = served
    assert (settings.host, settings.port, settings.token) == ("127.0.0.1", 8000, None)
    assert settings.protocols == ("unirl", "flow-factory", "cosmos-rl")
    assert settings.folders == ()
    assert settings == ServeSettings(("shapes",))


def test_what_is_typed(served: list[ServeSettings], tmp_path: Path) -> None:
    (tmp_path / "token").write_text("abc\n")
    done = run(
        *("serve", "pick=shapes", "shapes-clip", "--host", "0.0.0.0", "--port", 7),
        *("--token-file", tmp_path / "token", "--protocol", "pickle", "--protocol", "unirl"),
        *("--max-batch", 5, "--max-delay", 20, "--allow-folder", tmp_path, "--workers", 2),
    )
    assert done.returncode == 0, done.stderr
    (settings,) = served
    assert settings.named_models() == [("pick", "shapes"), ("shapes-clip", "shapes-clip")]
    assert (settings.host, settings.token) == ("0.0.0.0", "abc")
    assert settings.protocols == ("pickle", "unirl")
    assert settings.max_delay == pytest.approx(0.02)
    assert settings.folders == (str(tmp_path.resolve()),)
    assert ServeSettings.from_json(settings.to_json()) == settings


def test_the_token_of_the_environment(
    served: list[ServeSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("serve", "shapes", STABLEPREF_TOKEN="xyz").returncode == 0
    assert served[0].token == "xyz"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["none-such"], "unknown model 'none-such'"),
        (["shapes", "shapes"], "two models are called shapes"),
        (["shapes", "--host", "0.0.0.0"], "a token is needed"),
        (["shapes", "--host", "example.com"], "a token is needed"),
        (["shapes", "--protocol", "other"], "expected some of unirl"),
        (["shapes", "--workers", "2"], "leave cosmos-rl out"),
        (["shapes", "--allow-folder", "/nowhere"], "/nowhere is not a folder"),
        (["shapes", "--max-request", "0"], "max_request_mb must be above 0"),
        (["shapes", "--dtype", "float99"], "dtype must be one of"),
        (["shapes", "--token-file", "/nowhere"], "No such file"),
    ],
)
def test_what_cannot_be_served(
    served: list[ServeSettings], arguments: list[str], says: str
) -> None:
    done = run("serve", *arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert not served


def test_an_empty_token_is_none(served: list[ServeSettings], tmp_path: Path) -> None:
    (tmp_path / "token").write_text(" \n")
    done = run("serve", "shapes", "--token-file", tmp_path / "token")
    assert done.returncode == 2
    assert "one line of text" in done.stderr


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("localhost", True),
        ("::1", True),
        ("[::1]", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.example.com", False),
        ("", False),
    ],
)
def test_which_addresses_are_this_machines_own(host: str, own: bool) -> None:
    assert is_loopback(host) is own


@pytest.mark.parametrize(
    ("model", "named"),
    [
        ("hps-v2.1", ("hps-v2.1", "hps-v2.1")),
        ("a=hps-v2.1", ("a", "hps-v2.1")),
        ("/models/mine/", ("mine", "/models/mine/")),
        ("hf-hub:user/repo", ("repo", "hf-hub:user/repo")),
        ("judge:m@http://h/v1?cache=none", ("v1?cache=none", "judge:m@http://h/v1?cache=none")),
        ("q=judge:m@http://h/v1?a=b", ("q", "judge:m@http://h/v1?a=b")),
    ],
)
def test_names_of_models(model: str, named: tuple[str, str]) -> None:
    assert ServeSettings((model,)).named_models() == [named]


def test_settings_that_are_missing_are_the_usual_ones() -> None:
    usual: dict[str, Any] = {"models": ("m",)}
    assert ServeSettings(**usual).max_waiting == 256
    with pytest.raises(ValueError, match="at least one model"):
        ServeSettings(())


def test_an_address_that_is_taken_is_refused_before_models_are_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("stablepref.integrations.serve.run.load_scorers", None)  # nothing to call
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = run("serve", "shapes", "--port", port)
    assert done.returncode == 2
    assert f"127.0.0.1:{port} cannot be listened at: " in done.stderr
    assert "choose another --port" in done.stderr
