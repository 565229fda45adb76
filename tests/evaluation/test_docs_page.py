"""The page on evaluation shows what runs."""

import re
import shlex
from pathlib import Path

import pytest
from helpers.commandline import run, run_module
from helpers.docs import python_blocks
from helpers.places import DOCS

PAGE = (DOCS / "evaluation.md").read_text()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the page's first command was run, with fewer groups."""
    path = tmp_path_factory.mktemp("evaluation")
    line = next(line for line in PAGE.splitlines() if line.startswith("python -m stablepref"))
    run_module(re.sub(r"(groups|held-out) \d+", r"\1 4", line), path)
    return path


def test_python_blocks_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    names: dict[str, object] = {"__name__": "__main__"}
    for block in python_blocks(PAGE):
        exec(compile(block, "docs/evaluation.md", "exec"), names)
    assert {"report.json", "figure5.png", "plots"} <= {path.name for path in folder.iterdir()}


def test_the_first_command_runs(folder: Path) -> None:
    line = next(line for line in PAGE.splitlines() if line.startswith("stablepref eval"))
    done = run(*shlex.split(line)[1:], cwd=folder)
    assert done.returncode == 0, done.stderr
    for row in ("hflip+crop-0.97", "jpeg-50", "people: single against single"):
        assert row in done.stdout
        assert row in PAGE
