"""What a machine is and can do: its kind and the rate of its matrix products."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = 3.0
FIRST_SIDE, CPU_SIDE, GPU_SIDE = 256, 2048, 8192


def machine_kind(device: torch.device) -> dict[str, object]:
    """Processor, cores, threads, accelerator and versions; nothing that names the machine."""
    kind: dict[str, object] = {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if device.type == "cuda":
        kind["gpu"] = torch.cuda.get_device_name(device)
    return kind


def cpu_model() -> str:
    """The processor's name; its architecture where the system does not name it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    found = {key.strip(): value.strip() for key, value in fields.items()}
    name = found.get("model name") or platform.processor() or platform.machine()
    family, model = found.get("cpu family"), found.get("model")
    return f"{name} (family {family}, model {model})" if family and model else name


def matrix_rate(
    dtype: torch.dtype,
    device: torch.device,
    *,
    seconds: float = SECONDS,
    clock: Callable[[], float] | None = None,
) -> float:
    """Floating-point operations per second of the fastest of many square matrix products.

    The best, not the mean: the yardstick is what the machine can do.

    Args:
        dtype: Of the matrices.
        device: Where they are multiplied.
        seconds: How long to measure.
        clock: What counts seconds; None is `time.perf_counter`. `time.process_time` counts those of
            all threads of this process together, so that other programs on the machine, which
            take time from it, do not make it look slow.
    """
    clock = clock or time.perf_counter
    largest = CPU_SIDE if device.type == "cpu" else GPU_SIDE
    side = _affordable_side(largest, dtype, device, seconds, clock)
    a, b = _square(side, dtype, device), _square(side, dtype, device)
    torch.mm(a, b)  # libraries choose their kernels on the first call
    taken: list[float] = []
    begun = clock()
    while not taken or clock() - begun < seconds:
        taken.append(_product_seconds(a, b, clock))
    return 2 * side**3 / min(taken)


def _affordable_side(
    largest: int,
    dtype: torch.dtype,
    device: torch.device,
    seconds: float,
    clock: Callable[[], float],
) -> int:
    """The largest side up to a limit whose product takes less than the time there is.

    Without units for bfloat16 a product of the largest takes a minute. Twice the side is eight
    times the work.
    """
    side = min(FIRST_SIDE, largest)
    while side < largest:
        a, b = _square(side, dtype, device), _square(side, dtype, device)
        torch.mm(a, b)
        if 8 * _product_seconds(a, b, clock) > seconds:
            break
        side = min(2 * side, largest)
    return side


def _square(side: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    return torch.randn(side, side, device=device, dtype=dtype)


def _product_seconds(a: torch.Tensor, b: torch.Tensor, clock: Callable[[], float]) -> float:
    synchronize(a.device)
    start = clock()
    torch.mm(a, b)
    synchronize(a.device)
    return clock() - start


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
