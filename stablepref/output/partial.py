"""Rows on disk as soon as they are there, from which interrupted work is resumed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, final

from stablepref.output.text import shorten

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Row = Mapping[str, object]


class ResumeError(ValueError):
    """A partial file was made with other settings or other inputs, so work cannot be resumed."""


@final
class PartialFile:
    """A line of settings, then one JSON object for each row.

    It is only ever read line by line, so that a million rows need no memory.

    Args:
        path: The file; it need not be there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def resume(
        self, settings: Mapping[str, object], expected: Iterator[Mapping[str, object]]
    ) -> Iterator[dict[str, Any]]:
        """Give the rows of an interrupted run, in its order.

        An incomplete last line, of a run that was killed while it wrote, is cut off. A new file
        is begun where there is none.

        Args:
            settings: What the rows depend on, such as the model.
            expected: What identifies each row, columns and values, in the same order as in that
                run. As many are taken as there are rows.

        Yields:
            The rows.

        Raises:
            ResumeError: The file was made with other settings or for other rows, or is something
                else.
        """
        self._cut_half_line()
        rows = self._lines()
        header = next(rows, None)
        if header is None:
            self.path.write_text(json.dumps({"settings": dict(settings)}) + "\n")
            return
        if header.get("settings") != settings:
            raise self._refusal(f"was made with {header.get('settings')}, now it is {settings}")
        for number, row in enumerate(rows):
            columns = next(expected, None)
            if columns is None:
                raise self._refusal(f"has more results than the {number} there are now")
            found = {name: row.get(name) for name in columns}
            if found != columns:
                raise self._refusal(
                    f"has {_in_words(found)} as result {number}, "
                    f"but now {_in_words(columns)} comes there"
                )
            yield row

    @contextmanager
    def writing(self) -> Iterator[Callable[[Row], None]]:
        """Yield `write(row)`, which puts a row on disk at once."""
        with self.path.open("a", encoding="utf-8") as file:

            def write(row: Row) -> None:
                file.write(json.dumps(row) + "\n")
                file.flush()

            yield write

    def rows(self) -> Iterator[dict[str, Any]]:
        """All rows, without the settings.

        Raises:
            ResumeError: The file is damaged, or is not there: that is not a file without rows.
        """
        rows = self._lines()
        if next(rows, None) is None:
            raise ResumeError(
                f"{self.path} is gone: something else deleted it, and the results in it are lost; "
                "run the same command again"
            )
        yield from rows

    def kept(self) -> int:
        """How many rows there are; 0 where nothing has begun."""
        return max(0, sum(1 for _ in self._lines()) - 1)

    def remove(self) -> None:
        """Delete the file."""
        self.path.unlink()

    def _lines(self) -> Iterator[dict[str, Any]]:
        """Settings and rows; nothing if there is no file or it is empty."""
        if not self.path.exists():
            return
        with self.path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                row: object = None
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise self._refusal(f"is damaged in line {number} ({error})") from error
                if not isinstance(row, dict):
                    raise self._refusal(f"is not a partial file of results (line {number})")
                yield row

    def _cut_half_line(self) -> None:
        if not self.path.exists():
            return
        whole = 0
        with self.path.open("r+b") as file:
            for line in file:
                whole += len(line) if line.endswith(b"\n") else 0
            file.truncate(whole)

    def _refusal(self, reason: str) -> ResumeError:
        return ResumeError(f"{self.path} {reason}: delete it or choose another output")


def _in_words(columns: Mapping[str, object]) -> str:
    return " with ".join(f"the {name} {shorten(repr(value))}" for name, value in columns.items())
