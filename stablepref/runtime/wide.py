"""What follows the encoders runs in float32 or wider, whatever type the weights have.

At a score of 27 neighbouring bfloat16 numbers lie 0.125 apart; the paper's b is 0.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

REDUCED: Final = (torch.float16, torch.bfloat16)


def widen(values: Tensor) -> Tensor:
    """The values in float32, or as they are if that is their type or a wider one is."""
    return values.float() if values.dtype in REDUCED else values


def unit(features: Tensor) -> Tensor:
    """L2-normalised features `(..., dim)`, float32 or wider, with autocast off."""
    with torch.autocast(features.device.type, enabled=False):
        return functional.normalize(widen(features), dim=-1)
