"""The page on training shows what runs, from the laboratory's data to the trained model."""

import re
import shlex
from pathlib import Path

import pytest
from helpers.commandline import run, run_module
from helpers.docs import python_blocks
from helpers.places import DOCS

from stablepref.recipes import RECIPES

PAGE = (DOCS / "training.md").read_text()
QUICK = shlex.split("--steps 2 --order-steps 1 --warmup-steps 1 --batch-size 4 --views 1")

FEW = {
    "steps=10, order_steps=9": "steps=2, order_steps=1",
    "steps=10": "steps=2",
    "batch_size=32": "batch_size=4",
}
"""What the page's Python asks for, and what is enough to see that it runs."""


def command(start: str) -> list[str]:
    """The words of the page's first line that begins so."""
    return shlex.split(next(line for line in PAGE.splitlines() if line.startswith(start)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the page's first three commands were run, with few groups and steps."""
    path = tmp_path_factory.mktemp("training")
    words = [re.sub(r"^\d+$", "4", word) for word in command("python -m stablepref")]
    run_module(shlex.join(words), path)
    for words in (
        [*command("stablepref train --recipe sp-shapes"), *QUICK],
        command("stablepref eval lab/test.jsonl"),
    ):
        done = run(*words[1:], cwd=path)
        assert done.returncode == 0, done.stderr
    return path


def test_a_finished_training_resumes_to_itself(folder: Path) -> None:
    before = (folder / "run" / "last" / "model.safetensors").read_bytes()
    done = run(*command("stablepref train --recipe sp-shapes")[1:], *QUICK, "--resume", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "run" / "last" / "model.safetensors").read_bytes() == before


def test_python_blocks_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    names: dict[str, object] = {"__name__": "__main__"}
    for block in python_blocks(PAGE):
        quick = block
        for asked, few in FEW.items():
            quick = quick.replace(asked, few)
        exec(compile(quick, "docs/training.md", "exec"), names)
    assert {"best", "last", "metrics.jsonl"} <= {path.name for path in Path("again").iterdir()}


def test_every_recipe_of_the_page_is_there_and_no_other() -> None:
    rows = [line for line in PAGE.splitlines() if re.match(r"\| `(sp|ce)-", line)]
    listed = {name for row in rows for name in re.findall(r"`((?:sp|ce)-[a-z0-9-]+)`", row)}
    assert listed == set(RECIPES)
