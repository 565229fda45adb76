"""docs/your_own_taste.md runs from its pictures to its scorer, in small."""

import re
import shlex
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import uvicorn
from helpers.commandline import Done, run
from helpers.docs import python_blocks
from helpers.places import DOCS

from stablepref.cli.main import load
from stablepref.data.labels import read_labels
from stablepref.integrations.label.app import create_app
from stablepref.integrations.label.session import Session
from stablepref.integrations.serve.address import listening

PAGE = (DOCS / "your_own_taste.md").read_text()
FEW = {"--steps 30": "--steps 2", "--order-steps 25": "--order-steps 1", "-size 32": "-size 4"}


def commands() -> list[list[str]]:
    """The words of each command of the page, with fewer steps."""
    found = []
    for block in re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").strip().splitlines():
            for asked, few in FEW.items():
                line = line.replace(asked, few)  # noqa: PLW2901
            found.append(shlex.split(line.replace("--warmup-steps 3", "--warmup-steps 0")))
    return found


def test_the_loop_from_pictures_to_a_scorer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    draw, click, split = python_blocks(PAGE)
    exec(draw.replace("per_category=5", "per_category=1"), {})
    assert len(list(Path("pictures").rglob("*.png"))) == 40
    asked = []

    def serve(session: Session, *, host: str, port: int, ready: Callable[[str], None]) -> None:
        """Serve by a thread, and let the page's annotator click."""
        assert (host, port) == ("127.0.0.1", 8010)
        asked.append(len(session.questions))
        server = uvicorn.Server(uvicorn.Config(create_app(session), lifespan="off"))
        with listening(host, 0) as bound:
            thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
            thread.start()
            try:
                exec(click.replace(":8010", f":{bound.getsockname()[1]}"), {})
            finally:
                server.should_exit = True
                thread.join()

    monkeypatch.setattr("stablepref.integrations.label.run.run", serve)
    results: list[Done] = []
    for words in commands():
        assert words[0] == "stablepref"
        if words[1] == "train":
            exec(split, {})
        done = run(*words[1:])
        assert done.returncode == 0, done.stderr
        results.append(done)
    assert asked == [60, 50]
    labels = read_labels("answers.jsonl")
    assert len(labels) == 60 + 6
    agreement = results[1].stdout
    assert "warm, with themselves" in agreement
    assert "100.0 (100.0 to 100.0)" in agreement  # the simulated annotator never changes its mind
    assert "people" in results[-1].stdout


def test_every_option_that_the_page_names_exists() -> None:
    options = {name for one in load("label").params for name in one.opts}
    section = PAGE.partition("## Label")[2].partition("## How steady")[0]
    named = set(re.findall(r"`(--[a-z-]+)", section))
    assert "--repeats" in named
    assert named <= options
