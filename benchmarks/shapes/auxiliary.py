"""Second tasks for training: features must say what stands where, and patches what they show.

Contrast alone learns colours and shapes, but stays blind to places for very long: as long as one
tower ignores the order of the objects, the other gains nothing by heeding it. So two linear heads,
thrown away after training, read the truth from the model: one, the same for both towers, from each
unit feature, and one from each patch of a picture.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layout import Placed
from .scenes import COLOURS, MAX_OBJECTS, RELATIONS, SHAPES, Scene

_KINDS = tuple((colour, shape) for colour in COLOURS for shape in SHAPES)
_ATTRIBUTES = (*COLOURS, *SHAPES)
# Brings four objects of one kind near the size of the other targets.
_COUNT_UNIT = 2.0
# Two objects half a picture apart are at -1 and 1 then, as the first and last of a relation are.
_PLACE_UNIT = 0.25


class SceneHead(nn.Module):
    """Reads a scene from unit features: how many objects of each kind, and where they are.

    Args:
        dim: length of a feature.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, len(_KINDS) + len(RELATIONS) * len(_ATTRIBUTES))
        # From random weights the quickest way to a smaller error is to make all features equal.
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        """`(batch, targets)` in the order of `scene_targets`, from `(batch, dim)`.

        Unit features of one tower differ little beside their mean, so each dimension is first
        brought to mean 0 and variance 1 over the batch.
        """
        out: Tensor = self.linear(functional.batch_norm(features, None, None, training=True))
        return out


class PatchHead(nn.Module):
    """Reads from each patch's token which colour and which shape is there, or nothing.

    Args:
        width: length of a token.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, len(COLOURS) + 1 + len(SHAPES) + 1)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits `(batch, patches, colours + 1 + shapes + 1)` from `(batch, patches, width)`."""
        out: Tensor = self.linear(tokens)
        return out


class Objects(NamedTuple):
    """All objects of a batch of pictures, padded to the most that a picture can have.

    Attributes:
        places: `(batch, MAX_OBJECTS, 3)` float32: centre x, centre y and radius as shares of the
            picture's side, NaN where there is no object.
        colours: `(batch, MAX_OBJECTS)` int64, places in `COLOURS`; -1 where there is no object.
        shapes: likewise in `SHAPES`.
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


def scene_targets(scenes: list[Scene]) -> Tensor:
    """What the head should read from prompts: `(batch, targets)` float32, NaN where unknown.

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


def picture_targets(targets: Tensor, objects: Objects) -> Tensor:
    """`scene_targets` for pictures, where every object has a place.

    Across and downwards, for every colour and every shape: the mean place of its objects, less
    the mean place of all objects, in quarters of the picture's side. Unknown for absent ones.
    """
    having = torch.cat(
        [
            objects.colours[:, None] == torch.arange(len(COLOURS), device=targets.device)[:, None],
            objects.shapes[:, None] == torch.arange(len(SHAPES), device=targets.device)[:, None],
        ],
        dim=1,
    ).float()  # (batch, attributes, objects)
    centres = objects.places[..., :2]
    relative = (centres - centres.nanmean(dim=1, keepdim=True)).nan_to_num() / _PLACE_UNIT
    places = having @ relative / having.sum(dim=2, keepdim=True)  # NaN where there are none
    return torch.cat([targets[:, : len(_KINDS)], places.transpose(1, 2).flatten(1)], dim=1)


def patch_targets(objects: Objects, grid: int) -> Tensor:
    """Colour and shape at the centre of each patch: `(batch, grid * grid, 2)` int64, 0 for none.

    A patch belongs to the object whose centre is nearest in radii, if it lies within the radius.
    """
    axis = (torch.arange(grid, device=objects.places.device) + 0.5) / grid
    y, x = (part.flatten()[None, :, None] for part in torch.meshgrid(axis, axis, indexing="ij"))
    across, down, radius = (part[:, None] for part in objects.places.unbind(dim=2))
    distance = (torch.hypot(x - across, y - down) / radius).nan_to_num(nan=math.inf)
    nearest, which = distance.min(dim=2)
    kinds = torch.stack([objects.colours.gather(1, which), objects.shapes.gather(1, which)], dim=2)
    return torch.where(nearest[..., None] <= 1, kinds + 1, 0)


def scene_loss(predicted: Tensor, targets: Tensor) -> Tensor:
    """Squared errors of what is known, summed over each scene, mean over the scenes.

    Args:
        predicted: `(batch, targets)` from `SceneHead`.
        targets: `(batch, targets)` from `scene_targets` or `picture_targets`.

    Returns:
        Scalar.
    """
    errors = torch.where(targets.isnan(), 0.0, predicted - targets.nan_to_num())
    return (errors**2).sum(dim=1).mean()


def patch_loss(predicted: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of the patches' colours and shapes, objects and background counting equally.

    Args:
        predicted: `(batch, patches, classes)` from `PatchHead`.
        targets: `(batch, patches, 2)` from `patch_targets`.

    Returns:
        Scalar: mean over the patches with an object plus mean over those without.
    """
    colours, shapes = predicted.float().split([len(COLOURS) + 1, len(SHAPES) + 1], dim=2)
    errors = torch.stack(
        [
            functional.cross_entropy(colours.mT, targets[..., 0], reduction="none"),
            functional.cross_entropy(shapes.mT, targets[..., 1], reduction="none"),
        ]
    ).sum(dim=0)
    here = (targets[..., 0] > 0).to(errors.dtype)
    objects, background = (
        (errors * part).sum() / part.sum().clamp(min=1) for part in (here, 1 - here)
    )
    return objects + background
