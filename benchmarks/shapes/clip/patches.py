"""A second task for training: what each patch shows is read from its token."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..world.objects import Objects
from ..world.scenes import COLOURS, SHAPES

_ATTRIBUTES = len(COLOURS) + len(SHAPES)


class PatchHead(nn.Module):
    """Reads from each patch's token what is there, and where.

    Args:
        width: length of a token.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.kinds = nn.Linear(width, len(COLOURS) + 1 + len(SHAPES) + 1)
        self.places = nn.Linear(width, 3 * _ATTRIBUTES)
        # From random weights the quickest way to a smaller error is to make all tokens equal.
        nn.init.zeros_(self.places.weight)
        nn.init.zeros_(self.places.bias)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """What `kind_loss` and `place_loss` take, from tokens `(batch, patches, width)`.

        Returns:
            Logits `(batch, patches, colours + 1 + shapes + 1)`, and numbers
            `(batch, patches, 3 * (colours + shapes))`.
        """
        return self.kinds(tokens), self.places(tokens)


def patch_kinds(objects: Objects, grid: int) -> Tensor:
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


def patch_places(objects: Objects, kinds: Tensor) -> Tensor:
    """Where each patch's colour and shape are: `(batch, patches, 3 * (colours + shapes))`.

    For every colour and shape three numbers: 1 in the patch with the centre of an object that has
    it; and, in all patches of such an object, the place of the patch across and downwards, from -1
    to 1. 0 everywhere else. Their sums over the patches give number and places of each kind, which
    sums of kinds alone and of places alone do not.

    Args:
        objects: what stands where.
        kinds: `(batch, patches, 2)` from `patch_kinds`.
    """
    grid = math.isqrt(kinds.shape[1])
    shown = torch.cat(
        [
            functional.one_hot(kinds[..., 0], len(COLOURS) + 1)[..., 1:],
            functional.one_hot(kinds[..., 1], len(SHAPES) + 1)[..., 1:],
        ],
        dim=2,
    ).float()
    axis = (torch.arange(grid, device=shown.device) + 0.5) / grid
    down, across = (part.flatten() for part in torch.meshgrid(axis, axis, indexing="ij"))
    column, row = (objects.places[..., :2] * grid).floor().unbind(dim=2)
    own = (row * grid + column).nan_to_num(nan=-1)  # the patch of each centre
    inside = (column >= 0) & (column < grid) & (row >= 0) & (row < grid)
    patches = torch.arange(grid * grid, device=shown.device)
    centre = ((own[:, None] == patches[:, None]) & inside[:, None]).any(dim=2).float()
    parts = [centre, *((2 * place - 1).expand_as(centre) for place in (across, down))]
    return torch.cat([shown * part[..., None] for part in parts], dim=2)


def kind_loss(predicted: Tensor, kinds: Tensor) -> Tensor:
    """Cross-entropy of the patches' colours and shapes.

    Args:
        predicted: the first of `PatchHead`.
        kinds: `(batch, patches, 2)` from `patch_kinds`.

    Returns:
        Scalar: mean over the patches with an object plus mean over those without.
    """
    colours, shapes = predicted.float().split([len(COLOURS) + 1, len(SHAPES) + 1], dim=2)
    errors = torch.stack(
        [
            functional.cross_entropy(colours.mT, kinds[..., 0], reduction="none"),
            functional.cross_entropy(shapes.mT, kinds[..., 1], reduction="none"),
        ]
    ).sum(dim=0)
    return _balanced(errors, kinds)


def place_loss(predicted: Tensor, places: Tensor, kinds: Tensor) -> Tensor:
    """Squared errors of the patches' places, summed over each patch's numbers.

    Args:
        predicted: the second of `PatchHead`.
        places: of the same shape, from `patch_places`.
        kinds: `(batch, patches, 2)` from `patch_kinds`.

    Returns:
        Scalar: mean over the patches with an object plus mean over those without.
    """
    return _balanced((predicted.float() - places).square().sum(dim=2), kinds)


def _balanced(errors: Tensor, kinds: Tensor) -> Tensor:
    """The mean of errors `(batch, patches)` over patches with an object plus that over others."""
    here = (kinds[..., 0] > 0).to(errors.dtype)
    objects, background = (
        (errors * part).sum() / part.sum().clamp(min=1) for part in (here, 1 - here)
    )
    return objects + background
