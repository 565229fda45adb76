"""Files of results: where they can be, whole or not there, and their rows as a table."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO, cast, final

from stablepref.output.durable import replacing
from stablepref.output.partial import PartialFile, ResumeError, Row
from stablepref.output.tables import Cell, Table, csv_line
from stablepref.output.text import ANY_TEXT, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

SUFFIXES = (".jsonl", ".json", ".csv")
_NUMBERS = ("rank", "score", "uncertainty", "spread")
_ITEM: Final = ("image", "prompt")
"""The columns that identify what a row is of."""


@final
class ResultsFile:
    """Rows written to `path`, through `path`.partial until they are complete.

    A hidden file beside a complete one, `.NAME.made`, holds what it was made with, so that the same
    work is not done twice. Whoever resumes and writes is `stablepref.output.locks.sole_writer`.

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
        self._made = path.with_name(f".{path.name}.made")
        self._settings: dict[str, object] = {}
        self._done = 0

    def resume(
        self, settings: Mapping[str, object], expected: Iterator[Mapping[str, object]]
    ) -> tuple[int, int]:
        """Take the rows of an interrupted run out of what is left to do.

        Args:
            settings: What the results depend on, such as the model.
            expected: What identifies each row, its image and prompt, in the same order as in that
                run; one is taken for each row that is done.

        Returns:
            How many rows are done, and how many of these have an error.

        Raises:
            ResumeError: The partial file was made with other settings or for other rows, or is
                damaged.
        """
        self._settings = dict(settings)
        done = failed = 0
        for row in self.partial.resume(settings, expected):
            done += 1
            failed += row.get("error") is not None
        self._done = done
        return done, failed

    @contextmanager
    def writing(self) -> Iterator[Callable[[Row], None]]:
        """Yield `write(row)`; on a clean end the file is put in place under its own name.

        Raises:
            ResumeError: The partial file is gone, or does not have as many rows as were resumed and
                written; then nothing is replaced.
        """
        count = self._done

        def counted(row: Row) -> None:
            nonlocal count
            write(row)
            count += 1

        with self.partial.writing() as write:
            yield counted
        summary = _Summary()
        with replacing(self.path) as staging:
            with staging.open("w", encoding="utf-8", errors=ANY_TEXT, newline="") as file:
                write_rows(summary.over(self.partial.rows()), file, self.path.suffix.lower())
            if summary.rows != count:
                raise ResumeError(
                    f"{self.partial.path} has {summary.rows} results, expected {count}: something "
                    f"else wrote to it; {self.path} is left as it was. Delete the partial file or "
                    "choose another --out"
                )
            made = {"settings": self._settings, **vars(summary), "file": _digest(staging)}
            with replacing(self._made) as beside:
                beside.write_text(json.dumps(made) + "\n", encoding="utf-8")
        self.partial.remove()

    def check_finished(self, items: Iterable[Mapping[str, object]]) -> None:
        """Refuse a complete file of other inputs, or of which nobody knows what made it.

        Args:
            items: What identifies each row now, its image and prompt.

        Raises:
            ValueError: It is not the file that a run wrote, or that run was of other images or
                prompts.
        """
        made = self._record()
        if made is None:
            raise self._complete("and is not known to be of the same model, images and prompts")
        now = _Summary()
        for _ in now.over(items):
            pass
        if made["items"] != now.items:
            raise self._complete(
                f"and has other images or prompts ({made['rows']} rows, now {now.rows})"
            )

    def finished(self, settings: Mapping[str, object]) -> tuple[int, int]:
        """Say how many rows a complete file has, and how many of these have an error.

        Args:
            settings: What the results depend on now.

        Raises:
            ValueError: The file was made with other settings; the message names them.
        """
        made = self._record()
        assert made is not None, "check_finished accepted it"
        before = made["settings"]
        changed = [
            f"{name} was {before.get(name)!r}, now it is {settings[name]!r}"
            for name in settings
            if before.get(name) != settings[name]
        ]
        if changed:
            raise self._complete(f"with other settings: {'; '.join(changed)}")
        self.partial.path.unlink(missing_ok=True)  # of a run that was killed right at its end
        return made["rows"], made["failed"]

    def _record(self) -> dict[str, Any] | None:
        """What the complete file was made with; None if that is not known of this content."""
        try:
            made = json.loads(self._made.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        known = {"settings": dict, "rows": int, "failed": int, "items": str, "file": str}
        fits = isinstance(made, dict) and all(
            isinstance(made.get(name), kind) for name, kind in known.items()
        )
        return made if fits and made["file"] == _digest(self.path) else None

    def _complete(self, how: str) -> ValueError:
        return ValueError(
            f"--out {self.path} exists already and is complete, {how}: delete it to score again, "
            "or choose another --out"
        )


@final
class _Summary:
    """What there is to know of rows that pass by: how many, of which items, how many failed."""

    def __init__(self) -> None:
        self.rows = self.failed = 0
        self.items = hashlib.sha256().hexdigest()

    def over(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Pass rows on."""
        digest = hashlib.sha256()
        for row in rows:
            self.rows += 1
            self.failed += row.get("error") is not None
            digest.update(json.dumps([row.get(name) for name in _ITEM]).encode() + b"\n")
            yield row
        self.items = digest.hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_rows(
    rows: Iterable[Row], file: TextIO, suffix: str, *, spreadsheet: bool = False
) -> None:
    """Write rows as they come: a JSON object a line (.jsonl), a JSON list (.json), or .csv.

    Each row is flushed, so that a pipe passes it on at once. The columns of CSV are those of the
    first row; None is an empty cell.

    Args:
        rows: What to write.
        file: Where to.
        suffix: The format.
        spreadsheet: For CSV, see `stablepref.output.tables.csv_line`.

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
                file.write(csv_line(columns, spreadsheet=spreadsheet))
            if row.keys() != set(columns):
                raise ValueError(f"a row has the columns {list(row)}; expected {columns}")
            cells = (row[name] for name in columns)
            file.write(csv_line(cells, spreadsheet=spreadsheet))
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
    if any(row.get("tie") for row in rows):
        shown.insert(3, "tie")
    if len({row["prompt"] for row in rows}) > 1:
        shown.append("prompt")
    if any(row["error"] is not None for row in rows):
        shown.append("error")
    columns = [name for name in shown if any(name in row for row in rows)]
    return Table(
        title=title,
        columns=columns,
        rows=[[_shown(row[name]) for name in columns] for row in rows],
        right=_NUMBERS,
        unbroken=_NUMBERS,
        number_format=".4f",
    )


def _shown(value: object) -> Cell:
    """A cell of one line, whatever a name or a prompt holds."""
    return printable(value) if isinstance(value, str) else cast("Cell", value)


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
