"""The distributed engine of a training: how it starts, and what it refuses."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import is_initialized
from accelerate.utils import DistributedType, is_tensorboard_available, is_wandb_available

from stablepref.runtime.precision import automatic_dtype

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stablepref.recipes import Precision, Tracker

_TRACKERS: Final = {
    "tensorboard": (is_tensorboard_available, "pip install tensorboard"),
    "wandb": (is_wandb_available, "pip install wandb"),
}
_CONFIGURED: Final = "ACCELERATE_MIXED_PRECISION"
"""Where `accelerate launch` leaves what it was configured with."""
_UNSUPPORTED: Final = (DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM)


class EngineConfig(Protocol):
    """What the engine asks of a training's configuration."""

    @property
    def mixed_precision(self) -> Precision | None:
        """Its autocast; None leaves it to accelerate's configuration, or else to the device."""

    @property
    def log_with(self) -> Tracker | None:
        """Its tracker, if any."""


@contextmanager
def engine(config: EngineConfig, folder: Path) -> Iterator[Accelerator]:
    """accelerate, as a launcher has set this process up: alone, or one of many.

    However the block ends, the trackers write what they have buffered.

    Args:
        config: Its precision and tracker are used.
        folder: The training's folder, for trackers.

    Raises:
        ImportError: The tracker's package is not installed; accelerate would log nothing.
        ValueError: The configuration cannot work here, or this Python process already runs
            accelerate in another precision.
    """
    if config.log_with is not None:
        available, install = _TRACKERS[config.log_with]
        if not available():
            raise ImportError(
                f"log_with is {config.log_with!r}, whose package is not installed: {install}"
            )
    accelerator = _started(config, folder)
    refuse_what_cannot_work(accelerator)
    together = False
    try:
        yield accelerator
        together = True
    except (KeyboardInterrupt, SystemExit):  # all processes stop after the same step
        together = True
        raise
    finally:
        _finish(accelerator, together=together)


def _started(config: EngineConfig, folder: Path) -> Accelerator:
    # By default accelerate joins processes on accelerators only: on CPUs each would train a copy
    # of its own.
    cpu = _world_size() > 1 and not torch.accelerator.is_available()
    try:
        return Accelerator(
            cpu=cpu,
            mixed_precision=_precision(config, cpu=cpu),
            log_with=config.log_with,
            project_dir=folder,
        )
    except ValueError as error:
        if "already been initialized" not in str(error):
            raise
        raise ValueError(
            f"mixed_precision is {config.mixed_precision!r}, but this Python process already runs "
            "accelerate in another precision or on another device, and it keeps the first; start "
            "a new process (in a notebook, restart the kernel), or keep the precision"
        ) from error


def _precision(config: EngineConfig, *, cpu: bool) -> Precision | None:
    """The precision of the configuration; None leaves it to a launcher, or to a running accelerate.

    Where none of them decides, it is bfloat16 if the device has units that multiply it.
    """
    asked = config.mixed_precision
    if asked is not None or is_initialized() or _CONFIGURED in os.environ:
        return asked
    device = PartialState(cpu=cpu).device
    return "bf16" if automatic_dtype(device) == torch.bfloat16 else "no"


def refuse_what_cannot_work(accelerator: Accelerator) -> None:
    """Refuse combinations that accelerate accepts and then ignores, or that fail late.

    Raises:
        ValueError: Names the combination, and one that works.
    """
    kind = accelerator.distributed_type
    if accelerator.num_processes != _world_size():
        raise ValueError(
            f"a launcher has started {_world_size()} processes, but accelerate runs "
            f"{accelerator.num_processes}: each would train a copy of its own; start one process "
            "without a launcher, or on CPUs set ACCELERATE_USE_CPU=true before anything else uses "
            "accelerate"
        )
    if kind in _UNSUPPORTED:
        raise ValueError(
            f"training does not run on {kind.value}; configure accelerate for DDP or FSDP"
        )
    if accelerator.device.type != "cpu":
        return
    if accelerator.mixed_precision == "fp16":
        raise ValueError("fp16 needs a GPU: a CPU would silently train in float32; use bf16 or no")
    # accelerate itself ignores FSDP on a CPU.
    asked = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() in ("true", "1")
    if kind == DistributedType.FSDP or asked:
        raise ValueError(
            "FSDP needs GPUs; on CPUs start several processes with torchrun alone (DDP)"
        )


def any_process(accelerator: Accelerator, signals: list[int]) -> int:
    """The signal that any process has received, or 0; all processes get the same answer."""
    if accelerator.num_processes == 1:
        return signals[0] if signals else 0
    mine = torch.tensor([signals[0] if signals else 0], device=accelerator.device)
    return int(accelerator.gather(mine).max())


def _finish(accelerator: Accelerator, *, together: bool) -> None:
    """Close the trackers and, where all processes end `together`, leave the group of processes.

    A process that fails alone must not wait for the others, which wait for it elsewhere.
    """
    if together or accelerator.num_processes == 1:
        accelerator.end_training()
        return
    for tracker in accelerator.trackers:
        tracker.finish()


def _world_size() -> int:
    """How many processes the launcher has started."""
    return int(os.environ.get("WORLD_SIZE", "1"))
