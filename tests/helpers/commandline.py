"""The command line for tests: run in this process, or as a process of its own."""

import contextlib
import io
import json
import runpy
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stablepref.cli.main import main

COMMAND = [sys.executable, "-c", "from stablepref.cli.main import main; main()"]


def draw_pictures(folder: Path) -> list[Path]:
    """Six pictures of noise, `0.png` to `5.png`."""
    rng = np.random.default_rng(0)
    paths = [folder / f"{i}.png" for i in range(6)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (70, 90, 3), dtype=np.uint8)).save(path)
    return paths


def write_manifest(folder: Path, pictures: list[Path], repeat: int) -> Path:
    """A manifest with a missing file every 7 rows and a row without prompt every 11."""
    lines = []
    for i, path in enumerate(pictures * repeat):
        row = {"image": "none.png" if i % 7 == 3 else path.name, "prompt": f"prompt {i}"}
        if i % 11 == 5:
            del row["prompt"]
        lines.append(json.dumps(row) + "\n")
    path = folder / "rows.jsonl"
    path.write_text("".join(lines))
    return path


def run_module(line: str, folder: Path) -> None:
    """Run a line `python -m MODULE ...` in this process, in another working directory."""
    python, option, name, *arguments = shlex.split(line)
    assert (python, option) == ("python", "-m")
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        patch.setattr(sys, "argv", [name, *arguments])
        patch.chdir(folder)
        try:
            runpy.run_module(name, run_name="__main__", alter_sys=True)
        except SystemExit as stop:
            assert not stop.code, stop.code  # noqa: PT017 (the code is what is asserted)


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str


def run(*arguments: object, cwd: Path | None = None, **environment: str) -> Done:
    """Run the command line in this process, which has torch loaded already."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    err = io.StringIO()
    code = 0
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setattr(sys, "argv", ["stablepref", *map(str, arguments)])
        patch.chdir(cwd or Path.cwd())
        for name, value in environment.items():
            patch.setenv(name, value)
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        out.seek(0)
        return Done(code, out.read(), err.getvalue())
