"""A second task for training: patches must say what they show."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from .objects import Objects
from .scenes import COLOURS, SHAPES


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
