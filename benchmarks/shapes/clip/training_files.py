"""What the laboratory's trainings share: learning rate, checkpoints, metrics, progress bar."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from rich.progress import Progress, TextColumn, TimeRemainingColumn

from stablepref.output.durable import replacing
from stablepref.training.schedule import learning_rate_at

METRICS_NAME = "metrics.jsonl"

Precision = Literal["fp32", "bf16"]
"""Of matrix products in training: float32, or bfloat16 by autocast."""


class Schedule(Protocol):
    """A training's configuration, as far as it decides the learning rate."""

    @property
    def learning_rate(self) -> float:
        """Its peak."""

    @property
    def steps(self) -> int:
        """Optimiser steps; the rate falls to zero over them along a cosine."""

    @property
    def warmup(self) -> int:
        """Steps over which the rate first rises."""


def set_learning_rate(
    optimizers: Iterable[torch.optim.Optimizer], schedule: Schedule, step: int
) -> None:
    """Give all groups of parameters the learning rate of a step, counted from 0."""
    rate = learning_rate_at(
        step, peak=schedule.learning_rate, steps=schedule.steps, warmup_steps=schedule.warmup
    )
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint, which appears whole or not at all."""
    with replacing(path) as staging:
        torch.save(dict(state), staging)


def load_checkpoint(
    path: Path, config: Mapping[str, Any], *, device: str | torch.device
) -> dict[str, Any] | None:
    """The checkpoint at a path, or None if there is none yet.

    Args:
        path: where it would be.
        config: what decides the weights, as its entry "config" must have it.
        device: where tensors go.

    Raises:
        ValueError: it belongs to a training with another configuration.
    """
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    if state["config"] != config:
        changed = [
            f"{name} was {state['config'].get(name)!r} and is {config.get(name)!r}"
            for name in sorted({*state["config"], *config})
            if state["config"].get(name) != config.get(name)
        ]
        raise ValueError(
            f"{path} belongs to another training: {'; '.join(changed)}. "
            "Choose another folder, or remove this one"
        )
    return state


def log_metrics(folder: Path, stage: str, step: int, values: Mapping[str, float]) -> None:
    """Append a line to `metrics.jsonl`."""
    row = {"stage": stage, "step": step, **values}
    with (folder / METRICS_NAME).open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def forget_metrics(folder: Path, stage: str, step: int) -> None:
    """Drop a stage's lines after a step, which a training resumed from there writes again.

    So is a last line that a kill cut off.
    """
    path = folder / METRICS_NAME
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            row = json.loads(line)
            if row["stage"] != stage or row["step"] <= step:
                kept.append(line)
    with replacing(path) as staging:
        staging.write_text("".join(kept), encoding="utf-8")


def progress_bar() -> Progress:
    """A bar with steps, the loss (field `loss`) and the time that remains."""
    return Progress(
        *Progress.get_default_columns()[:3],
        TextColumn("step {task.completed}/{task.total} loss {task.fields[loss]:.4f}"),
        TimeRemainingColumn(),
    )
