"""What a training tells: metrics.jsonl, a progress bar, and accelerate's trackers."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, final

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from accelerate import Accelerator

METRICS_FILE = "metrics.jsonl"
_COLUMNS = {"loss": "loss {:.3f}", "accuracy": "pairs {:.1%}", "margin": "ΔS {:+.2f}",
            "weight": "weight {:.2f}", "images_per_second": "{:.0f} images/s"}  # fmt: skip


@final
class TrainLog:
    """Rows of metrics for people and for programs; only the main process writes.

    Args:
        accelerator: Whose trackers are told too.
        folder: Holds metrics.jsonl.
        bar: A started or silent progress bar.
        task: Its task.
    """

    def __init__(self, accelerator: Accelerator, folder: Path, bar: Progress, task: Any) -> None:  # noqa: ANN401 (rich's TaskID is an int in disguise)
        self._accelerator = accelerator
        self._path = folder / METRICS_FILE
        self._bar = bar
        self._task = task

    def show(self, step: int, metrics: Mapping[str, float]) -> None:
        """Move the bar to a step and show its metrics."""
        told = "  ".join(text.format(metrics[k]) for k, text in _COLUMNS.items() if k in metrics)
        self._bar.update(self._task, completed=step, told=told)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append a row, at once on its way to the disk."""
        self._accelerator.log(dict(metrics), step=step)
        if self._accelerator.is_main_process:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **metrics}) + "\n")

    def say(self, text: str) -> None:
        """One line to people, above the bar."""
        if self._accelerator.is_main_process:
            self._bar.console.print(text, highlight=False, soft_wrap=True, markup=False)


@contextmanager
def train_log(
    accelerator: Accelerator, folder: Path, *, steps: int, start: int, show: bool | None
) -> Iterator[TrainLog]:
    """A log whose metrics after `start` are forgotten, as they will be written again.

    Args:
        accelerator: The distributed engine.
        folder: The training's folder.
        steps: Optimiser steps in all.
        start: Those done before.
        show: False hides the bar, True shows it anywhere, None only on a terminal.
    """
    if accelerator.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        _forget_after(folder / METRICS_FILE, start)
    hidden = show is False or (show is None and not sys.stderr.isatty())
    bar = Progress(
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[told]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=hidden or not accelerator.is_main_process,
    )
    task = bar.add_task("training", total=steps, completed=start, told="")
    with bar:
        yield TrainLog(accelerator, folder, bar, task)


def _forget_after(path: Path, step: int) -> None:
    """Drop rows after `step`, and half a row that a kill may have left."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n") and json.loads(line)["step"] <= step:
            kept.append(line)
    staging = path.with_suffix(".tmp")
    staging.write_text("".join(kept), encoding="utf-8")
    staging.replace(path)
