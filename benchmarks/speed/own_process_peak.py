"""A measurement in a process of its own, so that no other one has warmed or filled the memory."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def measure_apart(
    command: Sequence[str],
    job: Mapping[str, Any],
    *,
    what: str,
    threads: int,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Run a command on a job and read what it measured.

    Args:
        command: Program and arguments; the job's file comes last.
        job: What to measure, as it goes into JSON. The command finds in `out` where to write.
        what: Name of it all in errors.
        threads: Of the process.
        environment: Variables besides.

    Raises:
        RuntimeError: The command failed or wrote nothing; with the end of its output.
    """
    with tempfile.TemporaryDirectory() as folder:
        described, out = Path(folder) / "job.json", Path(folder) / "out.json"
        described.write_text(json.dumps({**job, "out": str(out)}), encoding="utf-8")
        done = subprocess.run(
            [*command, str(described)],
            env={**os.environ, **(environment or {}), "OMP_NUM_THREADS": str(threads)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode or not out.is_file():
            end = "\n".join(done.stderr.splitlines()[-12:])
            msg = f"{what} failed with exit status {done.returncode}:\n{end}"
            raise RuntimeError(msg)
        measured: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        return measured
