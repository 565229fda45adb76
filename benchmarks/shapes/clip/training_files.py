"""What the laboratory's trainings share: checkpoints, metrics, the progress bar."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from rich.progress import Progress, TextColumn, TimeRemainingColumn

from stablepref.output.durable import replacing

METRICS_NAME = "metrics.jsonl"

Precision = Literal["fp32", "bf16"]
"""Of matrix products in training: float32, or bfloat16 by autocast."""


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint beside its place, then move it, so that a kill leaves a whole one."""
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
        ValueError: it is of a training with another configuration.
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
            f"{path} is of another training: {'; '.join(changed)}. "
            "Choose another folder, or remove this one"
        )
    return state


def log_metrics(folder: Path, stage: str, step: int, values: Mapping[str, float]) -> None:
    """Append a line to `metrics.jsonl`."""
    row = {"stage": stage, "step": step, **values}
    with (folder / METRICS_NAME).open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def forget_metrics(folder: Path, stage: str, step: int) -> None:
    """Drop a stage's lines past a step, which a training that goes on from there writes again.

    A last line that a kill cut off goes too.
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
