"""A file of results, whole or not there: its rows are in a partial file until all are."""

from __future__ import annotations

import csv
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO, final

from stablepref.output.durable import replacing
from stablepref.output.outputs import check_place
from stablepref.output.partial import PartialFile, Row
from stablepref.output.text import ANY_TEXT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from stablepref.scoring.manifest import Item

SUFFIXES = (".jsonl", ".json", ".csv")


@final
class ResultsFile:
    """Rows written to `path`, through `path`.partial until they are complete.

    Args:
        path: Ends in .jsonl, .json or .csv, which is also the format.

    Raises:
        ValueError: Another suffix, a folder of this name, or a folder that is not there.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix.lower() not in SUFFIXES:
            msg = f"--out {path}: expected a name that ends in one of {', '.join(SUFFIXES)}"
            raise ValueError(msg)
        check_place("--out", path)
        self.path = path
        self.partial = PartialFile(path.with_name(path.name + ".partial"))

    def resume(self, settings: Mapping[str, object], items: Iterator[Item]) -> tuple[int, int]:
        """Take those of `items` that an interrupted run has done.

        Args:
            settings: What the results depend on, such as the model.
            items: All items, in the same order as then; the rest is left to be scored.

        Returns:
            How many were done, and how many of these could not be scored.

        Raises:
            ResumeError: As `PartialFile.resume`.
        """
        expected = ({"image": item.name, "prompt": item.prompt} for item in items)
        done = failed = 0
        for row in self.partial.resume(settings, expected):
            done += 1
            failed += row.get("error") is not None
        return done, failed

    @contextmanager
    def writing(self) -> Iterator[Callable[[Row], None]]:
        """Yield `write(row)`; on a clean end the file is put in place under its own name."""
        with self.partial.writing() as write:
            yield write
        with (
            replacing(self.path) as staging,
            staging.open("w", encoding="utf-8", errors=ANY_TEXT, newline="") as file,
        ):
            write_rows(self.partial.rows(), file, self.path.suffix.lower())
        self.partial.remove()


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
