"""Processor time and memory of a program with all the processes that it starts."""

from __future__ import annotations

import threading
from typing import Final, Self, final

import psutil  # type: ignore[import-untyped]

INTERVAL: Final = 0.5  # seconds between two looks


@final
class ProcessTree:
    """Looks at the descendants of this process while a block runs.

    What a process does between the last look at it and its end is not seen.

    Attributes:
        peak_bytes: Largest resident memory of any one of them, shared memory included.
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
        """Of all descendants so far, those that have ended included."""
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
