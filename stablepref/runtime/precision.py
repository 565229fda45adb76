"""Which number type a scorer's encoders run in when the user leaves it to us."""

from __future__ import annotations

from typing import Final

import torch

_AMPERE: Final = (8, 0)
"""The first CUDA capability whose tensor cores multiply bfloat16."""


def automatic_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device has units that multiply it, else float32.

    There it is several times as fast, and what it changes is small beside what decides a
    preference: docs/precision.md has the measurements. Elsewhere it is slower than float32, which
    is exact everywhere.
    """
    if device.type == "cpu":
        return torch.bfloat16 if has_bfloat16_units() else torch.float32
    if device.type == "cuda" and torch.version.hip is None:
        capable = torch.cuda.get_device_capability(device) >= _AMPERE
        return torch.bfloat16 if capable else torch.float32
    return torch.float32


def has_bfloat16_units() -> bool:
    """Whether this CPU multiplies bfloat16 matrices by itself (AVX-512 BF16 or AMX)."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
