"""`stablepref label`: what is refused before anything is served, and what reaches the session."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.commandline import run
from helpers.labelling import draw

from stablepref.integrations.label.session import Session


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[Session]:
    """The sessions that would have been served."""
    found: list[Session] = []

    def serve(session: Session, *, host: str, port: int, ready: Callable[[str], None]) -> None:
        found.append(session)
        ready(f"http://{host}:{port}/")

    monkeypatch.setattr("stablepref.integrations.label.run.run", serve)
    return found


def test_defaults(sessions: list[Session], tmp_path: Path) -> None:
    folder = draw(tmp_path / "pictures")
    done = run("label", folder, "--prompts", folder / "prompts.txt", "--out", tmp_path / "o.jsonl")
    assert done.returncode == 0, done.stderr
    assert "9 questions at http://127.0.0.1:8010/" in done.stderr
    (session,) = sessions
    assert (session.repeats, session.annotators) == (0.1, None)
    assert not (tmp_path / "o.jsonl").exists()


@pytest.mark.parametrize("option", ["--scorer", "--model"])
def test_the_order_of_a_scorer(option: str, sessions: list[Session], tmp_path: Path) -> None:
    folder = draw(tmp_path / "pictures")
    words = ("label", folder, "--prompts", folder / "prompts.txt", "--out", tmp_path / "o.jsonl")
    assert run(*words).returncode == 0
    done = run(*words, option, "shapes", "--show", "groups", "--questions", 2, "--port", 0)
    assert done.returncode == 0, done.stderr
    assert len(sessions[1].questions) == 2


def test_an_address_that_is_taken_is_refused_before_a_scorer_is_loaded(
    sessions: list[Session], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stablepref.cli.options.ScorerOptions.load", None)  # nothing to call
    folder = draw(tmp_path / "pictures")
    words = ("label", folder, "--prompts", folder / "prompts.txt", "--out", tmp_path / "o.jsonl")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = run(*words, "--scorer", "shapes", "--port", port)
    assert done.returncode == 2
    assert f"127.0.0.1:{port} cannot be listened at: " in done.stderr
    assert "choose another --port" in done.stderr
    assert not sessions


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--out", "o.csv"], "expected a name such as answers.jsonl"),
        (["--out", "o.jsonl", "--scorer", "none-such"], "unknown model 'none-such'"),
        (["--out", "nowhere/o.jsonl"], "there is no folder"),
        (["--out", "o.jsonl", "--prompt-from", "caption"], "either --prompts"),
        (["--out", "pictures/p.jsonl", "--prompts", "pictures/p.jsonl"], "would write over"),
    ],
)
def test_refusals(words: list[str], says: str, sessions: list[Session], tmp_path: Path) -> None:
    folder = draw(tmp_path / "pictures")
    (folder / "p.jsonl").write_text('{"image": "00000.png", "prompt": "p"}\n')
    given = words if "--prompts" in words else [*words, "--prompts", "pictures/prompts.txt"]
    done = run("label", "pictures", *given, cwd=tmp_path)
    assert done.returncode == 2
    assert says in done.stderr
    assert not sessions


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    folder = draw(tmp_path / "pictures")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        words = (
            "label",
            folder,
            "--prompts",
            folder / "prompts.txt",
            "--out",
            tmp_path / "o.jsonl",
        )
        done = run(*words, "--port", port)
    assert done.returncode == 2
    assert "choose another --port" in done.stderr
