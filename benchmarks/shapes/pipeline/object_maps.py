"""Which object covers each place of a picture, and a reader that must find it in the denoiser.

A denoiser learns what shapes its prompt asks for very slowly: another shape at a place changes its
error little. A reader on features inside it that must name shape and colour at each place makes it
know them early (as in Yu et al. 2025, whose features are those of a pretrained network; here the
truth is at hand). The reader is thrown away after the training.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..world.drawing import layout
from ..world.scenes import COLOURS, SHAPES
from .autoencoder import circle
from .latents import TrainingPicture

NOTHING = len(SHAPES)
"""The class of a place without an object, after those of the shapes."""
_NO_COLOUR = -1
_COLOUR_WEIGHT = 0.5


def object_maps(pictures: Sequence[TrainingPicture], size: int) -> Tensor:
    """Shape and colour at each place of pictures: `(pictures, 2, size, size)` int64.

    Shapes are positions in `SHAPES`, or `NOTHING`; colours are positions in `COLOURS`, or -1. An
    object covers the places whose centre is in the circle around it.
    """
    maps = torch.empty(len(pictures), 2, size, size, dtype=torch.long)
    maps[:, 0], maps[:, 1] = NOTHING, _NO_COLOUR
    for row, picture in enumerate(pictures):
        for placed in layout(picture.drawn, picture.seed):
            group = picture.drawn.groups[placed.group]
            covered = circle(placed, size)
            maps[row, 0][covered] = SHAPES.index(group.shape)
            maps[row, 1][covered] = COLOURS.index(group.colour)
    return maps


def build_reader(channels: int, *, seed: int) -> nn.Conv2d:
    """A linear reader of features `(batch, channels, size, size)`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Conv2d(channels, NOTHING + 1 + len(COLOURS), 1)


def reading_loss(read: Tensor, maps: Tensor) -> Tensor:
    """How badly shapes and colours were read: scalar, mean cross-entropies in nats.

    That of colours, over the places of objects, counts half.

    Args:
        read: `(batch, classes, size, size)` from `build_reader`.
        maps: `(batch, 2, size, size)` from `object_maps`.
    """
    shapes, colours = read.float().split([NOTHING + 1, len(COLOURS)], dim=1)
    covered = (maps[:, 1] != _NO_COLOUR).sum().clamp(min=1)
    colour = functional.cross_entropy(colours, maps[:, 1], ignore_index=_NO_COLOUR, reduction="sum")
    return functional.cross_entropy(shapes, maps[:, 0]) + _COLOUR_WEIGHT * colour / covered


@contextmanager
def output_of(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Within this, every output of a layer is put into the list."""
    seen: list[Tensor] = []
    handle = layer.register_forward_hook(lambda _layer, _given, made: seen.append(made))
    try:
        yield seen
    finally:
        handle.remove()
