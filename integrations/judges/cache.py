"""Answers of judges on disk, so that work goes on where it ended and nothing is paid for twice."""

from __future__ import annotations

import json
import sqlite3
import threading
from typing import TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    from pathlib import Path


@final
class AnswerCache:
    """Answers by what was asked; may be used from several threads and processes.

    Args:
        path: The file; None keeps answers in memory.

    Raises:
        OSError: The file cannot be opened.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        try:
            self._file = sqlite3.connect(path or ":memory:", timeout=60, check_same_thread=False)
            with self._file:
                self._file.execute(
                    "CREATE TABLE IF NOT EXISTS answers (asked TEXT PRIMARY KEY, answer TEXT)"
                )
        except sqlite3.Error as error:
            msg = f"the judge's cache {path} cannot be used: {error}"
            raise OSError(msg) from error

    def get(self, asked: str) -> dict[str, Any] | None:
        """The answer to what was asked before, or None."""
        with self._lock:
            found = self._file.execute(
                "SELECT answer FROM answers WHERE asked = ?", (asked,)
            ).fetchone()
        return None if found is None else json.loads(found[0])

    def put(self, asked: str, answer: dict[str, Any]) -> None:
        """Keep an answer."""
        with self._lock, self._file:
            self._file.execute(
                "INSERT OR REPLACE INTO answers VALUES (?, ?)", (asked, json.dumps(answer))
            )

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.close()
