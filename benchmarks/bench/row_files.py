"""Rows that several processes write, each to a file of its own, and read together."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any, final

from stablepref.output.durable import remove_leftovers, replacing, sync
from stablepref.output.partial import PartialFile, ResumeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path


@final
class RowFiles:
    """JSON Lines in a folder, one file a process; a killed run resumes in them.

    A row is on the disk when `write` returns. Half a line, of a run that was killed while it wrote,
    is cut off by the next `begin`.

    Args:
        folder: Made by `begin` if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(
        self, settings: Mapping[str, object], *, retry: Callable[[dict[str, Any]], bool]
    ) -> None:
        """Check and mend all files, and remove unfinished ones, before any process reads or writes.

        Args:
            settings: What the rows depend on, plain JSON values.
            retry: Whether a row is to be forgotten, so that its work is done again.

        Raises:
            ResumeError: A file was made with other settings, or is damaged.
            OSError: The folder cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.folder)
        first = self._file(0)
        for path in {first.path, *self._paths()}:
            file = PartialFile(path)
            rows = list(file.resume(settings, itertools.repeat({})))
            kept = [row for row in rows if not retry(row)]
            if len(kept) < len(rows):
                _rewrite(path, settings, kept)

    def rows(self, check: Callable[[object], None]) -> Iterator[dict[str, Any]]:
        """All whole rows of all files; none where nothing has begun.

        Args:
            check: Raises a ValueError that says what is wrong with a row.

        Raises:
            ResumeError: A file is damaged; the message names file, line and what is wrong.
        """
        for path in self._paths():
            with path.open("rb") as lines:
                for number, line in enumerate(lines, start=1):
                    if number > 1 and line.endswith(b"\n"):
                        yield _parsed(line, path, number, check)

    def write(self, process: int, settings: Mapping[str, object], rows: Sequence[object]) -> None:
        """Append rows to a process's file, and have them on the disk.

        Raises:
            OSError: The disk is full, or fails.
        """
        file = self._file(process)
        if not file.path.exists():
            _rewrite(file.path, settings, [])
        with file.path.open("a", encoding="utf-8") as lines:
            lines.write("".join(json.dumps(row) + "\n" for row in rows))
        sync(file.path)

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("*.jsonl"))

    def _file(self, process: int) -> PartialFile:
        return PartialFile(self.folder / f"{process:03d}.jsonl")


def _parsed(
    line: bytes, path: Path, number: int, check: Callable[[object], None]
) -> dict[str, Any]:
    try:
        row: dict[str, Any] = json.loads(line)
        check(row)
    except (ValueError, RecursionError) as error:
        msg = f"{path} is damaged in line {number} ({error}): delete it, and its work is done again"
        raise ResumeError(msg) from error
    return row


def _rewrite(path: Path, settings: Mapping[str, object], rows: Sequence[object]) -> None:
    """Put a file of these rows in the place of one that may be there."""
    lines = [{"settings": dict(settings)}, *rows]
    with replacing(path) as staging:
        staging.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
