"""What a machine is and can do: its kind, its matrix-product rate, and a model's arithmetic."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    """The processor's name; the architecture where the system does not tell."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    found = {key.strip(): value.strip() for key, value in fields.items()}
    name = found.get("model name") or platform.processor() or platform.machine()
    family, model = found.get("cpu family"), found.get("model")
    return f"{name} (family {family}, model {model})" if family and model else name


def matrix_rate(dtype: torch.dtype, device: torch.device, *, seconds: float = SECONDS) -> float:
    """Floating-point operations per second of the fastest of many square matrix products.

    The best, not the mean: the yardstick is what the machine can do.
    """
    side = _affordable_side(CPU_SIDE if device.type == "cpu" else GPU_SIDE, dtype, device, seconds)
    a, b = _square(side, dtype, device), _square(side, dtype, device)
    torch.mm(a, b)  # libraries choose their kernels on the first call
    taken: list[float] = []
    begun = time.perf_counter()
    while not taken or time.perf_counter() - begun < seconds:
        taken.append(_product_seconds(a, b))
    return 2 * side**3 / min(taken)


def _affordable_side(largest: int, dtype: torch.dtype, device: torch.device, seconds: float) -> int:
    """The largest side up to a limit whose product takes less than the time there is.

    Without units for bfloat16 a product of the largest takes a minute. Twice the side is eight
    times the work.
    """
    side = min(FIRST_SIDE, largest)
    while side < largest:
        a, b = _square(side, dtype, device), _square(side, dtype, device)
        torch.mm(a, b)
        if 8 * _product_seconds(a, b) > seconds:
            break
        side = min(2 * side, largest)
    return side


def _square(side: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    return torch.randn(side, side, device=device, dtype=dtype)


def _product_seconds(a: torch.Tensor, b: torch.Tensor) -> float:
    synchronize(a.device)
    start = time.perf_counter()
    torch.mm(a, b)
    synchronize(a.device)
    return time.perf_counter() - start


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def image_tower_flops(sizes: Mapping[str, Any]) -> int:
    """Floating-point operations of a CLIP vision transformer for one image.

    With n tokens (patches and the class token), width w and an MLP of 4w, each block multiplies
    matrices of 12 w^2 weights with n rows, and queries with keys and weights with values, n x n x w
    each. A multiplication with its addition counts as two. Patch embedding and projection are
    added; norms, softmax and activations, under 1 %, are not.

    Args:
        sizes: open_clip's configuration: `embed_dim` and `vision_cfg` with image_size, patch_size,
            width and layers.
    """
    vision = sizes["vision_cfg"]
    width, patch = vision["width"], vision["patch_size"]
    patches = (vision["image_size"] // patch) ** 2
    block = transformer_block_flops(patches + 1, width)
    embedding = 2 * patches * 3 * patch**2 * width
    return vision["layers"] * block + embedding + 2 * width * sizes["embed_dim"]


def text_tower_flops(sizes: Mapping[str, Any], tokens: int | None = None) -> int:
    """As `image_tower_flops`, of a prompt of so many tokens; None for the padded 77."""
    text = sizes["text_cfg"]
    length = tokens or text["context_length"]
    block = transformer_block_flops(length, text["width"])
    return text["layers"] * block + 2 * text["width"] * sizes["embed_dim"]


def transformer_block_flops(tokens: int, width: int) -> int:
    """Matrix products of one block: 24 n w^2 + 4 n^2 w."""
    return 24 * tokens * width**2 + 4 * tokens**2 * width
