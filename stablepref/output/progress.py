"""Progress that appears when work takes long: a bar on a terminal or in a notebook, else lines."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, final

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE_SECONDS = 1.5
LINE_SECONDS: Final = 10.0
"""Least time between two lines."""
QUIET_SECONDS: Final = 60.0
"""Time after which a line comes even if less than `LINE_SHARE` was done since the last."""
LINE_SHARE: Final = 0.1

_commands: list[str] = []
"""Not empty while a command runs: only commands print lines, a library does not."""


@contextmanager
def progress_bar(
    description: str, *, total: int | None, show: bool | None = None
) -> Iterator[Callable[[int], None]]:
    """Yield `advance(n)`; after a second or two of work a bar on standard error shows it.

    Args:
        description: What is being done.
        total: How many items there will be, if known.
        show: False hides the bar, True shows it anywhere, None only on a terminal or in a notebook
            that has ipywidgets; elsewhere a command prints a line every ten seconds or more, see
            `ProgressLines`.
    """
    if show is False or (show is None and not sys.stderr.isatty() and not in_notebook()):
        lines = ProgressLines(description, total, hidden=show is False)
        yield lines.advance
        return
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        # What is printed meanwhile goes above the bar; but what was sent to a file stays its own.
        redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
    )
    task = bar.add_task(description, total=total, rate="")
    begun = time.monotonic()

    def advance(count: int) -> None:
        elapsed = time.monotonic() - begun
        done = bar.tasks[task].completed + count
        bar.update(task, advance=count, rate=f"{done / max(elapsed, 1e-9):.1f}/s")
        if elapsed > PATIENCE_SECONDS and not bar.live.is_started:
            bar.start()

    try:
        yield advance
    finally:
        if bar.live.is_started:
            bar.refresh()  # in a notebook, stopping does not draw the end
        bar.stop()


def in_notebook() -> bool:
    """Whether this is a notebook's kernel that can show a bar, which takes ipywidgets."""
    return Console(stderr=True).is_jupyter and find_spec("ipywidgets") is not None


@contextmanager
def lines_without_terminal() -> Iterator[None]:
    """While the block runs, work that has no terminal to show a bar on prints lines instead."""
    _commands.append("")
    try:
        yield
    finally:
        _commands.pop()


@final
class ProgressLines:
    """Lines on standard error about work that takes long, for logs.

    One comes after each tenth of the work, but at most every ten seconds, and after a minute in any
    case.

    Args:
        description: What is being done.
        total: How many items there will be, if known.
        done: How many were done before.
        hidden: Print nothing, as outside of commands.
    """

    def __init__(
        self, description: str, total: int | None, *, done: int = 0, hidden: bool = False
    ) -> None:
        self._description = description
        self._total = total
        self._hidden = hidden or not _commands
        self._before = self._done = self._shown = done
        self._begun = self._last = time.monotonic()

    def advance(self, count: int, *, more: str = "") -> None:
        """Count items, and print a line if it is time.

        Args:
            count: Items that are done now.
            more: What else the line says.
        """
        self._done += count
        if self._hidden:
            return
        now = time.monotonic()
        waited = now - self._last
        enough = self._total is not None and self._done - self._shown >= LINE_SHARE * self._total
        if waited < LINE_SECONDS or (not enough and waited < QUIET_SECONDS):
            return
        self._last, self._shown = now, self._done
        rate = (self._done - self._before) / (now - self._begun)
        parts = [str(self._done) if self._total is None else f"{self._done} of {self._total}"]
        parts.append(f"{rate:.2g}/s" if rate < 10 else f"{rate:.0f}/s")
        if self._total is not None and rate:
            parts.append(f"about {_duration((self._total - self._done) / rate)} left")
        if more:
            parts.append(more)
        print(f"{self._description}: {', '.join(parts)}", file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
    """Hours, minutes and seconds as on a clock: 1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
