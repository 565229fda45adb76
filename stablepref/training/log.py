"""What a training shows and logs: metrics.jsonl, a progress bar, and accelerate's trackers."""

from __future__ import annotations

import json
import math
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, final

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from stablepref.output.durable import replacing
from stablepref.output.progress import ProgressLines

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from accelerate import Accelerator

    from stablepref.training.step import StepResult

METRICS_FILE = "metrics.jsonl"
# Steps of large models take minutes; rich needs two of them in its window to know the speed.
_SPEED_WINDOW_SECONDS = 3600
_COLUMNS = {"loss": "loss {:.3f}", "reward": "reward {:.3f}",
            "accuracy": "pairs {:.1%}", "margin": "ΔS {:+.2f}",
            "effective_pairs": "effective pairs {:.1f}",
            "images_per_second": "{:.0f} images/s"}  # fmt: skip


def batch_metrics(result: StepResult) -> dict[str, float]:
    """The metrics of a batch; without usable pairs, NaN except for their number.

    Returns:
        "loss"; "accuracy", the share of pairs whose better image scores higher; "margin", the mean
        ΔS; "weight", the mean weight of a pair's loss, always 1 in step 2 by its definition;
        "effective_pairs", from 1 to "pairs": the number of pairs of equal weight that would spread
        it as evenly, (Σw)² / Σw² (Kish, Survey Sampling, 1965); "pairs", the usable ones.
    """
    loss, margin, weight = result.objective
    weight = weight.double()
    means = {
        "loss": loss if result.pairs else torch.nan,
        "accuracy": (margin > 0).double().mean(),
        "margin": margin.mean(),
        "weight": weight.mean(),
        "effective_pairs": weight.sum() ** 2 / weight.square().sum(),
    }
    return {name: float(value) for name, value in means.items()} | {"pairs": float(result.pairs)}


@final
class TrainLog:
    """Rows of metrics for people and for programs; only the main process writes.

    Args:
        accelerator: Its trackers log the metrics too.
        folder: Holds metrics.jsonl.
        bar: A started or hidden progress bar.
        task: The bar's task.
        lines: What shows the steps where there is no terminal.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        folder: Path,
        bar: Progress,
        task: Any,  # noqa: ANN401 (rich's TaskID is an int in disguise)
        lines: ProgressLines,
    ) -> None:
        self._accelerator = accelerator
        self._path = folder / METRICS_FILE
        self._bar = bar
        self._task = task
        self._lines = lines
        self._latest = ""

    def advance(self, step: int) -> None:
        """Move the bar to a step."""
        self._lines.advance(step - self._bar.tasks[self._task].completed, more=self._latest)
        self._bar.update(self._task, completed=step)

    def show(self, metrics: Mapping[str, float]) -> None:
        """Show metrics beside the bar."""
        shown = "  ".join(text.format(metrics[k]) for k, text in _COLUMNS.items() if k in metrics)
        self._bar.update(self._task, shown=shown)
        self._latest = shown

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append a row and hand it to the disk at once; numbers that are not finite become null."""
        self._accelerator.log(dict(metrics), step=step)
        if self._accelerator.is_main_process:
            row = {k: v if math.isfinite(v) else None for k, v in metrics.items()}
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **row}, allow_nan=False) + "\n")

    def say(self, text: str) -> None:
        """Print one line above the bar."""
        if self._accelerator.is_main_process:
            self._bar.console.print(text, highlight=False, soft_wrap=True, markup=False)


@contextmanager
def train_log(
    accelerator: Accelerator, folder: Path, *, steps: int, start: int, show: bool | None
) -> Iterator[TrainLog]:
    """A log without its rows after `start`, which will be written again.

    Args:
        accelerator: The distributed engine.
        folder: The training's folder.
        steps: Optimiser steps in all.
        start: Optimiser steps done before.
        show: False hides the bar, True shows it anywhere, None only on a terminal.
    """
    if accelerator.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        _forget_after(folder / METRICS_FILE, start)
    main = accelerator.is_main_process
    hidden = show is False or (show is None and not sys.stderr.isatty())
    lines = ProgressLines(
        "training", steps, done=start, hidden=not main or not hidden or show is False
    )
    bar = training_bar(hidden=hidden or not main)
    task = bar.add_task("training", total=steps, completed=start, shown="")
    with bar:
        yield TrainLog(accelerator, folder, bar, task, lines)


@final
class Speed:
    """Images per second of training alone: the clock stands still while the trainer validates."""

    def __init__(self) -> None:
        self._images, self._seconds = 0, 0.0
        self._since = time.monotonic()

    def restart(self) -> None:
        """Let the clock run again."""
        self._since = time.monotonic()

    def count(self, images: int) -> None:
        """Add images, and the time since the clock was started; it stops."""
        self._images += images
        self._seconds += time.monotonic() - self._since

    def taken(self) -> float:
        """Images per second since this was last called."""
        speed = self._images / self._seconds
        self._images, self._seconds = 0, 0.0
        return speed


def training_bar(*, hidden: bool) -> Progress:
    """A bar for steps that may take minutes each."""
    return Progress(
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[shown]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=hidden,
        speed_estimate_period=_SPEED_WINDOW_SECONDS,
    )


def _forget_after(path: Path, step: int) -> None:
    """Drop rows after `step`, and half a row that a kill may have left."""
    if not path.exists():
        return
    kept = []
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
        if not line.endswith(b"\n"):
            continue
        try:
            done = json.loads(line)["step"]
            if done <= step:
                kept.append(line.decode())
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"{path} is damaged in line {number} ({error!r}): delete the line, or choose "
                "another folder"
            ) from error
    with replacing(path) as staging:
        staging.write_text("".join(kept), encoding="utf-8")
