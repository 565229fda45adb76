"""What the page on the paper's tables shows runs, as a reader would type it."""

import re
import shlex
from pathlib import Path

import pytest
from helpers.commandline import run
from helpers.docs import NOT_RUN
from helpers.places import DOCS

from stablepref.benchmarks.cli import paper
from stablepref.benchmarks.paper.methods import METHODS
from stablepref.benchmarks.paper.numbers import misprints
from stablepref.benchmarks.paper.request import ITEMS, SHOWN, SIZE
from stablepref.benchmarks.shapes.people import generators

PAGE = (DOCS / "paper.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands(*, shown: bool) -> list[list[str]]:
    """The page's commands, those that run as they stand or the others."""
    found = BLOCK.finditer(PAGE)
    blocks = [one[1] for one in found if bool(NOT_RUN.search(PAGE[: one.start()])) != shown]
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines]


def test_the_nine_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    # Fewer pictures than a reader's, who has the time.
    monkeypatch.setattr(paper, "CANDIDATES", 2)
    monkeypatch.setattr(generators, "GENERATORS", {"level-3": None, "level-8": None})
    monkeypatch.setattr(paper, "SIZE", 2)
    found = commands(shown=True)
    assert [words[3] for words in found] == list(ITEMS)
    for words in found:
        place = words.index("--size") if "--size" in words else len(words)
        done = run(*words[1:place], *words[place + 2 :], *(["--size", "2"] * (place < len(words))))
        assert done.returncode == 0, done.stderr
        assert ("on the laboratory, not the paper's data" in done.stdout) == (words[3] != "figure4")
    drawn = {path.name for path in (tmp_path / "paper").glob("*.png")}
    assert drawn == {"figure4.png", "figure5.png", "figure6.png"}


def test_the_page_says_what_there_is() -> None:
    for words in commands(shown=False):
        assert words[:2] == ["stablepref", "bench"]
    rows = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    assert rows == list(ITEMS)
    assert f"groups or prompts, {SIZE} by default" in PAGE
    assert f"number of prompts shown, {SHOWN} by default." in PAGE
    assert len(list(misprints())) == 3
    for words in ("+0.4 and +0.3", "65.2 in Table 1 and 65.1 in Table 4", "(53.9)"):
        assert words in PAGE
    assert "No recipe trains BLIP" in PAGE
    assert METHODS["ce-blip"].training is None
