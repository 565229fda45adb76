"""Files of results: where they can be, whole or not there, and their rows as a table."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, cast, final

from stablepref.output.durable import replacing
from stablepref.output.partial import PartialFile, Row
from stablepref.output.tables import Cell, Table, csv_line
from stablepref.output.text import ANY_TEXT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

SUFFIXES = (".jsonl", ".json", ".csv")
_NUMBERS = ("rank", "score", "spread")


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
            raise ValueError(
                f"--out {path}: expected a name that ends in one of {', '.join(SUFFIXES)}"
            )
        check_place("--out", path)
        self.path = path
        self.partial = PartialFile(path.with_name(path.name + ".partial"))

    def resume(
        self, settings: Mapping[str, object], expected: Iterator[Mapping[str, object]]
    ) -> tuple[int, int]:
        """Take the rows of an interrupted run out of what is left to do.

        Args:
            settings: What the results depend on, such as the model.
            expected: What identifies each row, columns and values, in the same order as in that
                run; one is taken for each row that is done.

        Returns:
            How many rows are done, and how many of these have an error.

        Raises:
            ResumeError: As `PartialFile.resume`.
        """
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

    Raises:
        ValueError: A row of CSV has other columns than the first.
    """
    columns: list[str] | None = None
    between = "[\n "
    for row in rows:
        if suffix == ".jsonl":
            file.write(json.dumps(row) + "\n")
        elif suffix == ".json":
            file.write(between + json.dumps(row))
            between = ",\n "
        else:
            if columns is None:
                columns = list(row)
                file.write(csv_line(columns))
            if row.keys() != set(columns):
                raise ValueError(f"a row has the columns {list(row)}; expected {columns}")
            file.write(csv_line(row[name] for name in columns))
        file.flush()
    if suffix == ".json":
        file.write("[]\n" if between.startswith("[") else "\n]\n")


def results_table(rows: Sequence[Row], *, title: str) -> Table:
    """Rows of results as people see them.

    Args:
        rows: With an image, a score and an error each, and perhaps a rank and a spread.
        title: Above the table.

    Returns:
        The table, with the prompt where there are several, and the error where there is one.
    """
    shown = [*_NUMBERS, "image"]
    if len({row["prompt"] for row in rows}) > 1:
        shown.append("prompt")
    if any(row["error"] is not None for row in rows):
        shown.append("error")
    columns = [name for name in shown if any(name in row for row in rows)]
    return Table(
        title=title,
        columns=columns,
        rows=[[cast("Cell", row[name]) for name in columns] for row in rows],
        right=_NUMBERS,
        unbroken=_NUMBERS,
        number_format=".4f",
    )


def check_place(option: str, path: Path) -> None:
    """Refuse a place where no file can be written.

    Raises:
        ValueError: It is a folder, or its folder is not there.
    """
    if path.is_dir():
        raise ValueError(f"{option} {path}: this is a folder; expected the name of a file")
    if not path.parent.is_dir():
        raise ValueError(f"{option} {path}: there is no folder {path.parent}")


def check_input(option: str, path: Path, inputs: Iterable[object]) -> None:
    """Refuse to write over one of the files that are read.

    Args:
        option: Name of the option that named the output.
        path: The output.
        inputs: Paths, under any name of the file; other values are skipped.

    Raises:
        ValueError: The output is one of them.
    """
    found = _stat(path)
    for given in inputs:
        other = _stat(given) if found is not None else None
        if found is not None and other is not None and os.path.samestat(found, other):
            raise ValueError(
                f"{option} {path} would write over {given}, which is read: choose another name"
            )


def _stat(path: object) -> os.stat_result | None:
    """What identifies a file; None where there is none, or the value is not a path."""
    try:
        return Path(path).stat() if isinstance(path, str | os.PathLike) else None
    except (OSError, ValueError):
        return None
