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
