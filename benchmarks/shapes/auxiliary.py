"""A second task for training: both towers' features must say what stands where.

Contrast alone learns colours and shapes, but stays blind to places for very long: as long as one
tower ignores the order of the objects, the other gains nothing by heeding it. So one linear head,
the same for both towers and thrown away after training, reads from each unit feature how many
objects there are of every colour and shape, and which come first in the scene's relation.
"""

import math

import torch
from torch import Tensor, nn

from .scenes import COLOURS, RELATIONS, SHAPES, Scene

_KINDS = tuple((colour, shape) for colour in COLOURS for shape in SHAPES)
_ATTRIBUTES = (*COLOURS, *SHAPES)
# Brings four objects of one kind near the size of the other targets.
_COUNT_UNIT = 2.0


class SceneHead(nn.Module):
    """Reads a scene from unit features.

    Args:
        dim: length of a feature.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale = math.sqrt(dim)
        self.linear = nn.Linear(dim, len(_KINDS) + len(RELATIONS) * len(_ATTRIBUTES))
        # From random weights the quickest way to a smaller error is to make all features equal.
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        """`(batch, targets)` in the order of `scene_targets`, from `(batch, dim)`."""
        out: Tensor = self.linear(features * self.scale)
        return out


def scene_targets(scenes: list[Scene]) -> Tensor:
    """What the head should read: `(batch, targets)` float32, NaN where nothing is to be said.

    First, for every pair of a colour and a shape, half its count. Then for "left of" and for
    "above", for every colour and every shape, the place of the group that has it in the scene's
    order: -1 for the first, 1 for the last. It is unknown for the other relation, for attributes
    that are absent, and for those of several groups.
    """
    counts = torch.zeros(len(scenes), len(_KINDS))
    places = torch.full((len(scenes), len(RELATIONS), len(_ATTRIBUTES)), math.nan)
    for row, scene in enumerate(scenes):
        for group in scene.groups:
            counts[row, _KINDS.index((group.colour, group.shape))] = group.count / _COUNT_UNIT
        if scene.relation is None:
            continue
        for column, name in enumerate(_ATTRIBUTES):
            having = [i for i, g in enumerate(scene.groups) if name in (g.colour, g.shape)]
            if len(having) == 1:
                place = 2 * having[0] / (len(scene.groups) - 1) - 1
                places[row, RELATIONS.index(scene.relation), column] = place
    return torch.cat([counts, places.flatten(1)], dim=1)


def scene_loss(predicted: Tensor, targets: Tensor) -> Tensor:
    """Squared errors: of the counts, summed over a scene's kinds, and of the known places, mean.

    Args:
        predicted: `(batch, targets)` from `SceneHead`.
        targets: `(batch, targets)` from `scene_targets`.

    Returns:
        Scalar, about 2 for features that say nothing.
    """
    known = ~targets.isnan()
    squares = torch.where(known, predicted - targets.nan_to_num(), 0.0) ** 2
    counts, places = squares.split([len(_KINDS), squares.shape[1] - len(_KINDS)], dim=1)
    return counts.sum(1).mean() + places.sum() / known[:, len(_KINDS) :].sum().clamp(min=1)
