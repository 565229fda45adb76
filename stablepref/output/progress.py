"""A progress bar that appears only when work takes long enough to wait for."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

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


@contextmanager
def progress_bar(
    description: str, *, total: int | None, show: bool | None = None
) -> Iterator[Callable[[int], None]]:
    """Yield `advance(n)`; after a second or two of work a bar on standard error shows it.

    Args:
        description: What is being done.
        total: How many items there will be, if known.
        show: False hides the bar, True shows it anywhere, None only on a terminal.
    """
    if show is False or (show is None and not sys.stderr.isatty()):
        yield lambda _: None
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
        bar.stop()
