"""The progress bar, on real terminals."""

import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = """
from stablepref.output import progress
progress.PATIENCE_SECONDS = -1  # at once
with progress.progress_bar("working", total=50) as advance:
    for number in range(50):
        print("line", number)
        advance(1)
"""
LINES = [f"line {number}" for number in range(50)]


def shown(terminal: int, process: subprocess.Popen[bytes]) -> str:
    """All that a terminal shows until the process ends."""
    shown = b""
    os.set_blocking(terminal, False)
    while True:
        ended = process.poll() is not None
        try:
            shown += os.read(terminal, 2**16)
        except OSError:  # nothing there now, or nobody left who writes
            if ended:
                return shown.decode()
            time.sleep(0.01)


@pytest.mark.parametrize("stdout", ["file", "terminal"])
def test_a_bar_on_the_terminal_leaves_print_where_it_belongs(stdout: str, tmp_path: Path) -> None:
    terminal, seen_by_process = pty.openpty()
    try:
        with (tmp_path / "out.txt").open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM],
                stdout=file if stdout == "file" else seen_by_process,
                stderr=seen_by_process,
                env={**os.environ, "TERM": "xterm", "COLUMNS": "80"},
            )
            screen = shown(terminal, process)
    finally:
        os.close(terminal)
        os.close(seen_by_process)
    assert process.returncode == 0
    assert "working" in screen
    written = (tmp_path / "out.txt").read_text().splitlines()
    assert written == (LINES if stdout == "file" else [])
    assert screen.count("line ") == (0 if stdout == "file" else 50)
