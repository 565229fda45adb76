"""What stands where in a batch of pictures."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .layout import Placed
from .scenes import COLOURS, MAX_OBJECTS, SHAPES, Scene


class Objects(NamedTuple):
    """All objects of a batch of pictures, padded to the most that a picture can have.

    Attributes:
        places: `(batch, MAX_OBJECTS, 3)` float32: centre x, centre y and radius as shares of the
            picture's side, NaN where there is no object.
        colours: `(batch, MAX_OBJECTS)` int64, places in `COLOURS`; -1 where there is no object.
        shapes: `(batch, MAX_OBJECTS)` int64, places in `SHAPES`; -1 where there is no object.
    """

    places: Tensor
    colours: Tensor
    shapes: Tensor

    def to(self, device: str | torch.device) -> "Objects":
        """The same on another device."""
        return Objects(*(part.to(device) for part in self))


def list_objects(scenes: list[Scene], layouts: list[tuple[Placed, ...]], crops: Tensor) -> Objects:
    """What stands where in pictures after their crops, `(batch, 3)` as in `crop_pictures`."""
    places = torch.full((len(scenes), MAX_OBJECTS, 3), math.nan)
    colours, shapes = (torch.full((len(scenes), MAX_OBJECTS), -1) for _ in range(2))
    for row, (scene, placed) in enumerate(zip(scenes, layouts, strict=True)):
        left, top, side = crops[row].tolist()
        for column, one in enumerate(placed):
            centre = ((one.x - left) / side, (one.y - top) / side)
            places[row, column] = torch.tensor((*centre, one.radius / side))
            group = scene.groups[one.group]
            colours[row, column] = COLOURS.index(group.colour)
            shapes[row, column] = SHAPES.index(group.shape)
    return Objects(places, colours, shapes)
