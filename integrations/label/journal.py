"""The file of answers: it only grows, and each line is on disk before anybody hears of it."""

from __future__ import annotations

import json
import os
import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING, final

from stablepref.data.labels import Label, label_of_row, read_labels
from stablepref.data.rows import read_rows
from stablepref.output.durable import sync

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any

    from stablepref.data.labels import Answer

    from .questions import Question


@final
class Journal:
    """Answers on disk and in memory. The caller holds the lock on the file (`sole_writer`).

    Args:
        path: The file. A last line that a killed process left incomplete is cut off.

    Attributes:
        labels: The answers that were not taken back, by their ids, in order.
        undone: Of each annotator the answers that were taken back and not given anew, in order.

    Raises:
        ValueError: The file holds something else, or is damaged.
        OSError: It cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._folder = path.absolute().parent
        self.labels: dict[str, Label] = {}
        self.undone: dict[str, list[Label]] = {}
        if path.exists():
            self._cut_half_line()
        if path.exists() and path.stat().st_size:
            read_labels(path)  # every line is checked, and a wrong one named
            for _, row in read_rows(path):
                assert not isinstance(row, ValueError), "checked before"
                self._take(row)

    def of(self, annotator: str) -> list[Label]:
        """The answers of an annotator that count, in order."""
        return [label for label in self.labels.values() if label.annotator == annotator]

    def annotators(self) -> dict[str, int]:
        """How many answers of each annotator count."""
        counts: dict[str, int] = dict.fromkeys(self.undone, 0)
        for label in self.labels.values():
            counts[label.annotator] = counts.get(label.annotator, 0) + 1
        return counts

    def answer(
        self,
        annotator: str,
        question: Question,
        answer: Answer,
        ranks: Sequence[int],
        *,
        shown: Sequence[int],
        seconds: float | None = None,
    ) -> Label:
        """Write an answer; it is on disk when this returns.

        Args:
            annotator: Who gave it.
            question: To what.
            answer: What was answered.
            ranks: Of the question's pictures; empty with "skip".
            shown: In which order the pictures stood on the screen.
            seconds: How long it took.

        Raises:
            OSError: It cannot be written; it then does not count.
        """
        row: dict[str, Any] = {
            "label": secrets.token_hex(8),
            "annotator": annotator,
            "prompt": question.prompt,
            "images": self.names(question),
            "answer": answer,
            "ranks": list(ranks),
            "shown": list(shown),
        }
        if seconds is not None:
            row["seconds"] = round(seconds, 2)
        return self._write(row)

    def undo(self, label: Label) -> None:
        """Take an answer back; that is on disk when this returns.

        Raises:
            OSError: It cannot be written; the answer then still counts.
        """
        row = {"label": secrets.token_hex(8), "annotator": label.annotator, "undo": label.id}
        self._write(row)

    def names(self, question: Question) -> list[str]:
        """The pictures as the file names them: relative to its folder where they lie below it."""
        return [
            path.relative_to(self._folder).as_posix()
            if path.is_relative_to(self._folder)
            else str(path)
            for path in question.images
        ]

    def _write(self, row: dict[str, Any]) -> Any:  # noqa: ANN401 (the label, or None)
        row["time"] = datetime.now(UTC).isoformat(timespec="seconds")
        line = json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
        new = not self.path.exists()
        before = 0 if new else self.path.stat().st_size
        with self.path.open("ab", buffering=0) as file:
            try:
                written = file.write(line)
                if written != len(line):
                    msg = f"{self.path}: {written} of {len(line)} bytes could be written"
                    raise OSError(msg)
                os.fsync(file.fileno())
            except OSError:
                file.truncate(before)  # half a line would spoil the next one
                raise
        if new:
            sync(self._folder)
        return self._take(row)

    def _take(self, row: Any) -> Label | None:  # noqa: ANN401 (a row of the file)
        if "undo" in row:
            taken = self.labels.pop(row["undo"], None)
            if taken is not None:
                self.undone.setdefault(taken.annotator, []).append(taken)
            return None
        label = label_of_row(row)
        self.labels[label.id] = label
        waiting = self.undone.get(label.annotator, [])
        again = [place for place, one in enumerate(waiting) if one.key == label.key]
        if again:
            waiting.pop(again[-1])
        return label

    def _cut_half_line(self) -> None:
        whole = 0
        with self.path.open("r+b") as file:
            for line in file:
                whole += len(line) if line.endswith(b"\n") else 0
            file.truncate(whole)
