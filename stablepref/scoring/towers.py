"""The encoders of a scorer, in the parts that training freezes and moves."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn


class Tower(NamedTuple):
    """An encoder in the order of its computation.

    Attributes:
        first: What comes before the blocks; None stands for a part that this tower lacks.
        blocks: Its blocks, first to last.
        last: What follows them.
    """

    first: Sequence[nn.Module | nn.Parameter | None]
    blocks: Sequence[nn.Module]
    last: Sequence[nn.Module | nn.Parameter | None]


class Towers(NamedTuple):
    """The two encoders of a scorer that can be trained."""

    image: Tower
    text: Tower


def checkpoint_blocks(tower: Tower) -> None:
    """Keep no activations inside the blocks, but compute them again in the backward pass.

    transformers' own switch works in training mode alone, in which a scorer is never trained.
    """
    for block in tower.blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
