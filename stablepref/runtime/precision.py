"""Number types: that of the encoders by default, and float32 for what follows them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from torch import Tensor, nn

REDUCED: Final = (torch.float16, torch.bfloat16)
"""Types that are too coarse for what follows the encoders."""
_AMPERE: Final = (8, 0)
"""The first CUDA capability whose tensor cores multiply bfloat16."""


def automatic_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device has units that multiply it, else float32.

    On such devices bfloat16 is several times as fast, and the error is small compared with the
    margins that decide a preference: docs/precision.md has the measurements. On others it is slower
    than float32, which is exact everywhere.
    """
    if device.type == "cpu":
        return torch.bfloat16 if has_bfloat16_units() else torch.float32
    if device.type == "cuda" and torch.version.hip is None:
        capable = torch.cuda.get_device_capability(device) >= _AMPERE
        return torch.bfloat16 if capable else torch.float32
    return torch.float32


def has_bfloat16_units() -> bool:
    """Whether this CPU multiplies bfloat16 matrices in hardware (AVX-512 BF16 or AMX)."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def widen(values: Tensor) -> Tensor:
    """float16 and bfloat16 values in float32; wider types as they are.

    What follows the encoders is computed in float32 or wider, whatever type the weights have: at a
    score of 27 neighbouring bfloat16 numbers lie 0.125 apart, and the paper's b is 0.3.
    """
    return values.float() if values.dtype in REDUCED else values


def unit(features: Tensor) -> Tensor:
    """L2-normalised features `(..., dim)`, float32 or wider, with autocast off."""
    with torch.autocast(features.device.type, enabled=False):
        return functional.normalize(widen(features), dim=-1)


@contextmanager
def kept_exact(weights: Callable[[], Iterable[nn.Parameter]]) -> Iterator[None]:
    """Move or cast a module within, but keep some of its weights in float32 or wider.

    In bfloat16 a logit scale of ln 100 would become 4.59375, and every score 1 % smaller.

    Args:
        weights: Finds them, the same before and after.
    """
    before = [weight.detach().clone() for weight in weights()]
    yield
    for weight, value in zip(weights(), before, strict=True):
        if weight.dtype in REDUCED:
            weight.data = value.to(device=weight.device, dtype=torch.float32)
