"""Rows of results on their way to a file: each on disk at once, resumed after a kill."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO, final

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stablepref.manifest import Item

Row = Mapping[str, object]
SUFFIXES = (".jsonl", ".json", ".csv")


class ResumeError(ValueError):
    """A results file was made with other settings or other inputs, so work cannot go on in it."""


@final
class ResultsFile:
    """Rows written to `path`, through `path`.partial until they are complete.

    The partial file begins with a line of settings; a JSON object follows for each row. It is only
    ever read line by line, so that a million rows need no memory.

    Args:
        path: Ends in .jsonl, .json or .csv, which is also the format.

    Raises:
        ValueError: Another suffix, or a folder that is not there.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix.lower() not in SUFFIXES:
            msg = f"--out {path}: expected a name that ends in one of {', '.join(SUFFIXES)}"
            raise ValueError(msg)
        if not path.parent.is_dir():
            msg = f"--out {path}: there is no folder {path.parent}"
            raise ValueError(msg)
        self.path = path
        self.partial = path.with_name(path.name + ".partial")

    def resume(self, settings: Mapping[str, object], items: Iterator[Item]) -> tuple[int, int]:
        """Take those of `items` that an interrupted run has done.

        Half a last line, of a run that was killed while it wrote, is cut off. A new partial file
        is begun where there is none.

        Args:
            settings: What the results depend on, such as the model.
            items: All items, in the same order as then; the rest is left to be scored.

        Returns:
            How many were done, and how many of these could not be scored.

        Raises:
            ResumeError: The partial file was made with other settings or other items, or is none.
        """
        self._cut_half_line()
        rows = self._partial_rows()
        header = next(rows, None)
        if header is None:
            self.partial.write_text(json.dumps({"settings": dict(settings)}) + "\n")
            return 0, 0
        if header.get("settings") != settings:
            raise self._refusal(f"was made with {header.get('settings')}, now it is {settings}")
        done = failed = 0
        for row in rows:
            item = next(items, None)
            if item is None:
                raise self._refusal(f"has more results than the {done} images there are now")
            if (row.get("image"), row.get("prompt")) != (item.name, item.prompt):
                raise self._refusal(
                    f"has {row.get('image')!r} with the prompt {row.get('prompt')!r} as result "
                    f"{done}, but now {item.name!r} with {item.prompt!r} comes there"
                )
            done += 1
            failed += row.get("error") is not None
        return done, failed

    @contextmanager
    def writing(self) -> Iterator[Callable[[Row], None]]:
        """Yield `write(row)`; on a clean end the file is put in place under its own name."""
        with self.partial.open("a", encoding="utf-8") as file:

            def write(row: Row) -> None:
                file.write(json.dumps(row) + "\n")
                file.flush()

            yield write
        staging = self.path.with_name(self.path.name + ".tmp")
        rows = self._partial_rows()
        next(rows)
        with staging.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            write_rows(rows, file, self.path.suffix.lower())
            os.fsync(file.fileno())
        staging.replace(self.path)
        self.partial.unlink()

    def kept(self) -> int:
        """How many results the partial file holds."""
        return max(0, sum(1 for _ in self._partial_rows()) - 1)

    def _partial_rows(self) -> Iterator[dict[str, Any]]:
        """Header and rows of the partial file; nothing if there is none or it is empty."""
        if not self.partial.exists():
            return
        with self.partial.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                row: object = None
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise self._refusal(f"is damaged in line {number} ({error})") from error
                if not isinstance(row, dict):
                    raise self._refusal(f"is no partial file of results (line {number})")
                yield row

    def _cut_half_line(self) -> None:
        if not self.partial.exists():
            return
        whole = 0
        with self.partial.open("r+b") as file:
            for line in file:
                whole += len(line) if line.endswith(b"\n") else 0
            file.truncate(whole)

    def _refusal(self, reason: str) -> ResumeError:
        return ResumeError(f"{self.partial} {reason}: delete it or choose another --out")


def write_rows(rows: Iterable[Row], file: TextIO, suffix: str) -> None:
    """Write rows as they come: a JSON object a line (.jsonl), a JSON list (.json), or .csv.

    Each row is flushed, so that a pipe passes it on at once. The columns of CSV are those of the
    first row; None is an empty cell.
    """
    writer: csv.DictWriter[str] | None = None
    between = "[\n "
    for row in rows:
        if suffix == ".jsonl":
            file.write(json.dumps(row) + "\n")
        elif suffix == ".json":
            file.write(between + json.dumps(row))
            between = ",\n "
        else:
            if writer is None:
                writer = csv.DictWriter(file, fieldnames=list(row), lineterminator="\n")
                writer.writeheader()
            writer.writerow(row)
        file.flush()
    if suffix == ".json":
        file.write("[]\n" if between.startswith("[") else "\n]\n")
