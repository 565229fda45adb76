"""Measurements in a process of their own, and what a process and all that it starts take.

No other measurement has then warmed the caches or filled the memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, final

import psutil  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

INTERVAL: Final = 0.5
"""Seconds between two looks at the processes that a process has started."""


def measure_apart(
    command: Sequence[str],
    job: Mapping[str, Any],
    *,
    what: str,
    threads: int,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Run a command on a job in a new process, and read what it measured.

    Args:
        command: Program and arguments; the path of the job's file is added as the last one.
        job: What to measure, as JSON values. The command finds under `out` the file to write.
        what: What is measured, for errors.
        threads: Of the process (`OMP_NUM_THREADS`).
        environment: Further environment variables.

    Returns:
        The JSON object that the command wrote.

    Raises:
        RuntimeError: The command failed or wrote nothing; with the last lines of its output.
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


@final
class ProcessTree:
    """Processor time and memory of the processes that this one starts while a block runs.

    They are looked at every `INTERVAL` seconds and at the end of the block: what a process does
    between the last look and its own end is not counted.

    Attributes:
        peak_bytes: Largest resident memory of any single one of them, shared memory included.
    """

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._seconds: dict[tuple[int, float], float] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        """Begin to look."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Look a last time."""
        self._look()
        self._end.set()
        self._thread.join()

    def cpu_seconds(self) -> float:
        """Processor time of all of them so far, those that have ended included."""
        return sum(self._seconds.values())

    def _watch(self) -> None:
        while not self._end.wait(INTERVAL):
            self._look()

    def _look(self) -> None:
        for process in psutil.Process().children(recursive=True):
            try:
                with process.oneshot():
                    times = process.cpu_times()
                    key = process.pid, process.create_time()
                    resident = process.memory_info().rss
            except psutil.NoSuchProcess:  # it has ended since
                continue
            self._seconds[key] = max(self._seconds.get(key, 0.0), times.user + times.system)
            self.peak_bytes = max(self.peak_bytes, resident)
