"""A process that keeps one core busy, to measure beside."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

BUSY: Final = "while True: pass"
"""What the process runs: one core is never free."""


@contextmanager
def busy_process(*, wanted: bool) -> Iterator[None]:
    """Run it for the length of a block, if it is wanted."""
    if not wanted:
        yield
        return
    process = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        yield
    finally:
        process.kill()
        process.wait()
