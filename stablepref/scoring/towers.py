"""The encoders of a scorer, in the parts that training freezes and moves."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

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
