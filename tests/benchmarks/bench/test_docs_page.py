"""What the page on benchmarks shows runs, in its order, as a reader would type it."""

import re
import shlex
from pathlib import Path

import pytest
from helpers.bench_case import save_pipeline
from helpers.commandline import run
from helpers.docs import NOT_RUN
from helpers.places import DOCS

BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGE = (DOCS / "bench.md").read_text()


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_pipeline(tmp_path / "pipeline")
    names: dict[str, object] = {"__name__": "__main__"}
    outputs = []
    for block in BLOCK.finditer(PAGE):
        if NOT_RUN.search(PAGE[: block.start()]):
            continue
        if block[1] == "python":
            exec(compile(block[2], "bench.md", "exec"), names)
            continue
        for line in block[2].replace("\\\n", " ").splitlines():
            command, *arguments = shlex.split(line)
            assert command == "stablepref"
            done = run(*arguments)
            assert done.returncode == 0, done.stderr
            outputs.append(done)
    assert len(outputs) == 6
    drawn, pipelines, both, markdown, report, joint = outputs
    assert "nothing of human taste" in drawn.stderr
    assert "Bradley-Terry ranking" in drawn.stdout
    assert "whole" in pipelines.stdout
    assert "level-9" in both.stdout
    assert "short" in both.stdout
    assert markdown.stdout.startswith("# prompts: 20 prompts")
    assert report.stdout == "drawn-run/report/index.html\n"
    assert joint.stdout == "both/index.html\n"
    assert '"../drawn/level-3/00000.png"' in (tmp_path / "both" / "index.html").read_text()
    # The oracle puts the generators in the order of their skill.
    ranks = [line.split("|")[2:4] for line in markdown.stdout.splitlines()
             if line.startswith("| oracle | ") and "level" in line.split("|")[3]]  # fmt: skip
    assert [cell.strip() for _, cell in ranks[-3:]] == ["level-9", "level-8", "level-3"]


def test_the_page_tells_of_failures_in_a_row_as_the_code_has_it() -> None:
    from stablepref.benchmarks.bench.generate import IN_A_ROW  # noqa: PLC0415 (heavy)

    assert IN_A_ROW == 3
    assert "four prompts in a row" in PAGE
