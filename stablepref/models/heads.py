"""The linear heads that turn a feature into a number, computed in float32."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from stablepref.runtime.precision import widen

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor


class MLPHead(nn.Module):
    """Five linear layers without activations between them: width, 1024, 128, 64, 16, 1.

    The head of LAION aesthetic v2 and of ImageReward, with the layer numbers of their files. The
    dropouts act in training mode only.

    Args:
        width: Width of the features.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, 1024),
            nn.Dropout(0.2),
            nn.Linear(1024, 128),
            nn.Dropout(0.2),
            nn.Linear(128, 64),
            nn.Dropout(0.1),
            nn.Linear(64, 16),
            nn.Linear(16, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Numbers `(batch,)`, float32 or wider, of features `(batch, width)` of any float type."""
        return _apply_wide(self.layers, features)


class LinearHead(nn.Module):
    """One linear layer: the head of LAION aesthetic v1.

    Args:
        width: Width of the features.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Numbers `(batch,)`, float32 or wider, of features `(batch, width)` of any float type."""
        return _apply_wide([self.layer], features)


def _apply_wide(layers: Iterable[nn.Module], x: Tensor) -> Tensor:
    """Run the layers in float32 or wider, whatever the weights are stored in."""
    x = widen(x)
    with torch.autocast(x.device.type, enabled=False):
        for layer in layers:
            if isinstance(layer, nn.Linear):
                x = functional.linear(x, layer.weight.to(x.dtype), layer.bias.to(x.dtype))
            else:
                x = layer(x)
    return x.squeeze(-1)
