"""The measurement of served scores: what it counts, without timing anything."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers.brightness import Brightness
from helpers.served import BASE, remote, served
from typer.testing import CliRunner

from stablepref.benchmarks.speed import serve as measured
from stablepref.benchmarks.speed.__main__ import app


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server in this process in place of one of its own, with a model that costs nothing."""
    with served({"model": Brightness()}, max_waiting=4096) as client:

        @contextmanager
        def server(model: str, *, device: str, dtype: str) -> Iterator[tuple[str, int]]:
            del model, device, dtype
            yield BASE, 0

        class Client:
            """Posts what is malformed to the server in this process."""

            def __init__(self, **_: object) -> None:
                self.post = client.post

            def __enter__(self) -> "Client":
                return self

            def __exit__(self, *_: object) -> None:
                pass

        monkeypatch.setattr(measured, "server", server)
        monkeypatch.setattr(measured, "RemoteScorer", lambda _: remote(client, "model"))
        monkeypatch.setattr(measured, "Client", Client)
        monkeypatch.setattr(measured, "SIDE", 8)
        monkeypatch.setattr(measured.stablepref, "load", _Load())
        yield


class _Load:
    def __call__(self, *_: object, **__: object) -> Brightness:
        return Brightness()

    def cache_clear(self) -> None:
        pass


@pytest.mark.usefixtures("local")
def test_what_is_measured(tmp_path: Path) -> None:
    arguments = ["serve", "--clients", "1", "--clients", "3", "--seconds", "0.2"]
    arguments += ["--requests", "100"]
    done = CliRunner().invoke(app, [*arguments, "--json", str(tmp_path / "out.json")])
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "out.json").read_text())["measured"]
    assert [row["clients"] for row in report["served"]] == [1, 3]
    assert all(row["requests"] > 0 and not row["failed"] for row in report["served"])
    found = report["malformed"]
    assert (found["right"], found["errors"], found["wrong"]) == (99, 1, 0)
    assert "99 right, 1 errors, 0 wrong" in done.output
    assert report["in_process"] == pytest.approx(sum(report["in_process_before_and_after"]) / 2)
    alone = CliRunner().invoke(
        app, ["serve", "--clients", "1", "--seconds", "0.2", "--requests", "0"]
    )
    assert alone.exit_code == 0, alone.output
    assert "malformed" not in alone.output


def test_a_server_that_ends_at_once_is_reported() -> None:
    with (
        pytest.raises(RuntimeError, match="ended with 2 before it listened"),
        measured.server("none-such", device="cpu", dtype="float32"),
    ):
        pass
