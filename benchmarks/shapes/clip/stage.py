"""One training of the laboratory in its folder: its steps, which resume after a kill."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, final

import torch
from torch.utils.data import DataLoader, Dataset, Subset

from .training_files import (
    Schedule,
    forget_metrics,
    load_checkpoint,
    log_metrics,
    progress_bar,
    save_checkpoint,
    set_learning_rate,
)

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Part(Protocol):
    """Something with a state, as networks have."""

    def state_dict(self) -> dict[str, Any]:
        """All that it has to remember."""

    def load_state_dict(self, state_dict: dict[str, Any], /) -> object:
        """Take up such a state."""


@final
class Stage:
    """The steps of a training, each with its batch and its learning rate, resumed after a kill.

    Batches depend on the number of the step alone, so that an interrupted training ends with the
    weights of one that was not.

    Attributes:
        complete: Whether the steps are taken to the last one.

    Args:
        name: The checkpoint is `{name}.pt`, and lines of `metrics.jsonl` have it as their `stage`.
        folder: Of both; what a checkpoint there holds is loaded into the parts.
        schedule: Decides steps and learning rates.
        parts: What is trained, and averages of it, by their names in the checkpoint.
        optimizers: Of the parts; they get the learning rates.
        settings: What decides the weights.
        device: Where the parts are.
        checkpoint_every: Steps between checkpoints.
        stop_after: Stop once this step is reached, as if interrupted there.

    Raises:
        ValueError: The folder holds a training with other settings, or of another version.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        schedule: Schedule,
        parts: Mapping[str, Part],
        optimizers: Sequence[torch.optim.Optimizer],
        *,
        settings: Mapping[str, Any],
        device: str,
        checkpoint_every: int,
        stop_after: int | None,
    ) -> None:
        self._end = schedule.steps if stop_after is None else min(stop_after, schedule.steps)
        self.complete = self._end == schedule.steps
        self._name = name
        self._folder = folder
        self._schedule = schedule
        self._parts = parts
        self._optimizers = optimizers
        self._settings = settings
        self._every = checkpoint_every
        self._path = checkpoint_path(folder, name)
        self._began = time.monotonic()
        self._bar: tuple[Progress, TaskID] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self._start = self._resumed(device)
        forget_metrics(folder, name, self._start)

    def steps(self, batches: Dataset[Any], *, workers: int = 0) -> Iterator[tuple[int, Any]]:
        """The number of each step that is left, from 0, and its batch.

        Args:
            batches: One for each step of the whole training.
            workers: Processes that make batches ahead; 0 makes them in this one.
        """
        left = range(self._start, max(self._start, self._end))
        loader = DataLoader(Subset(batches, left), batch_size=None, num_workers=workers)
        with progress_bar() as bar:
            task = bar.add_task(
                self._name, total=self._schedule.steps, completed=self._start, loss=math.nan
            )
            self._bar = bar, task
            for step, batch in zip(left, loader, strict=True):
                set_learning_rate(self._optimizers, self._schedule, step)
                yield step, batch

    def taken(self, step: int, loss: float) -> bool:
        """Show what a step came to.

        Args:
            step: Its number, from 0.
            loss: Its loss, for the bar.

        Returns:
            Whether a checkpoint is due.
        """
        if self._bar is not None:
            bar, task = self._bar
            bar.update(task, completed=step + 1, loss=loss)
        return (step + 1) % self._every == 0 or step + 1 == self._end

    def save(self, step: int, values: Mapping[str, float]) -> None:
        """Write the state after a step, and a line of `metrics.jsonl` with the seconds so far.

        Args:
            step: Its number, from 0.
            values: For the line.
        """
        line = {**values, "seconds": round(self.seconds, 1)}
        log_metrics(self._folder, self._name, step + 1, line)
        state = {name: part.state_dict() for name, part in self._parts.items()}
        save_checkpoint(
            self._path,
            {
                "config": self._settings,
                "step": step + 1,
                **state,
                "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            },
        )

    @property
    def seconds(self) -> float:
        """Since this call of the training began."""
        return time.monotonic() - self._began

    def _resumed(self, device: str) -> int:
        """The steps that the checkpoint has behind it; 0 without one."""
        state = load_checkpoint(self._path, self._settings, device=device)
        if state is None:
            return 0
        if missing := sorted({*self._parts, "optimizers"} - state.keys()):
            raise ValueError(
                f"{self._path} has no {', no '.join(missing)}: another version wrote it. "
                "Choose another folder, or remove this one"
            )
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        step: int = state["step"]
        return step


def checkpoint_path(folder: Path, name: str) -> Path:
    """Of a stage."""
    return folder / f"{name}.pt"
