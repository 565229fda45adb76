"""Code in a process of its own, and what it imports."""

import json
import os
import subprocess
import sys
from pathlib import Path

HEAVY = {
    "accelerate",
    "datasets",
    "diffusers",
    "open_clip",
    "scipy",
    "timm",
    "torch",
    "torchvision",
    "transformers",
}
BENCH_HELP = """
import sys
from stablepref.cli.main import main
sys.argv = ["stablepref", "bench", {arguments}]
try:
    main()
except SystemExit as end:
    assert end.code in (0, 2), end.code
"""
"""Prints the help of a subcommand of `stablepref bench`; to be formatted with its arguments."""


COMMANDS = """
import contextlib, io, json, os, sys
from stablepref.cli.main import main
for arguments in json.loads(sys.argv[1]):
    read, write = os.pipe()
    if not os.fork():
        sys.argv = ["stablepref", *arguments]
        code = None
        nowhere = io.StringIO()
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            try:
                main()
            except SystemExit as end:
                code = end.code or 0
        with os.fdopen(write, "w") as file:
            json.dump([code, sorted(sys.modules)], file)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as file:
        print(file.read())
    os.wait()
"""
"""Runs commands one by one, each in a fork of a process that has imported nothing but the table."""


def imported_by(commands: list[list[str]], folder: Path) -> list[tuple[int, set[str]]]:
    """How each command ends and which modules it imports, with `folder` as working directory."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", COMMANDS, json.dumps(commands)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == len(commands)
    return [(code, set(modules)) for code, modules in rows]


def isolated(code: str, folder: Path, **environment: str) -> str:
    """Run Python code in a new process whose working directory is `folder`; its last line."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def heavy_imports(code: str, folder: Path) -> set[str]:
    """Which of `HEAVY` are imported once `code` has run."""
    report = "\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    return HEAVY & set(json.loads(isolated(code + report, folder)))
