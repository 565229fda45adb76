"""A vector for every scene, to which both towers are drawn while they learn by contrast.

Contrast alone learns colours and shapes, but stays blind to places for very long: as long as one
tower ignores the order of the objects, the other gains nothing by heeding it. The code of a scene
holds all that its prompt says, and its cosines separate right pictures from wrong ones, places
included.
"""

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from ..world.objects import Objects
from ..world.scenes import BACKGROUNDS, COLOURS, MAX_COUNT, RELATIONS, SHAPES, SIZES, Scene

_KINDS = tuple((colour, shape) for colour in COLOURS for shape in SHAPES)
_ATTRIBUTES = (*COLOURS, *SHAPES)
PLACES = len(RELATIONS) * len(_ATTRIBUTES)
"""The last numbers of a description: the place of every attribute across, then downwards."""

# Chosen so that each single error lowers the cosine by 0.2 or more on average.
_COUNT, _SIZE, _BACKGROUND, _PLACE = 0.6, 0.8, 1.0, 0.6
# Two objects half a picture apart are at -1 and 1 then, as the first and last of a relation are.
_PLACE_UNIT = 0.25


def describe_scenes(scenes: list[Scene]) -> Tensor:
    """What prompts say, as numbers: `(scenes, numbers)` float32.

    Which pairs of a colour and a shape there are; the count and the size of each colour's and
    each shape's groups; the background; and the place, from -1 for the first to 1 for the last,
    of the group that has a colour or shape in the scene's order: 0 along the other axis, for what
    is absent, and for what several groups have. Each kind of statement has a weight of its own.
    """
    kinds = torch.zeros(len(scenes), len(COLOURS), len(SHAPES))
    counts = torch.zeros(len(scenes), len(_ATTRIBUTES), MAX_COUNT)
    sizes = torch.zeros(len(scenes), len(_ATTRIBUTES), len(SIZES))
    backgrounds = torch.zeros(len(scenes), len(BACKGROUNDS))
    places = torch.zeros(len(scenes), len(RELATIONS), len(_ATTRIBUTES))
    for row, scene in enumerate(scenes):
        for group in scene.groups:
            kinds[row, COLOURS.index(group.colour), SHAPES.index(group.shape)] = 1
            for name in (group.colour, group.shape):
                attribute = _ATTRIBUTES.index(name)
                counts[row, attribute, group.count - 1] = _COUNT
                if group.size:
                    sizes[row, attribute, SIZES.index(group.size)] = _SIZE
        if scene.background is not None:
            backgrounds[row, BACKGROUNDS.index(scene.background)] = _BACKGROUND
        if scene.relation is not None:
            for attribute, name in enumerate(_ATTRIBUTES):
                having = [i for i, g in enumerate(scene.groups) if name in (g.colour, g.shape)]
                if len(having) == 1:
                    place = 2 * having[0] / (len(scene.groups) - 1) - 1
                    places[row, RELATIONS.index(scene.relation), attribute] = place * _PLACE
    parts = [kinds, counts, sizes, backgrounds, places]
    return torch.cat([part.flatten(1) for part in parts], dim=1)


def describe_pictures(descriptions: Tensor, objects: Objects) -> Tensor:
    """`describe_scenes` for pictures, where every object has a place.

    Across and downwards, for every colour and every shape: the mean place of its objects, less
    the mean place of all objects, in quarters of the picture's side. 0 for absent ones.
    """
    device = descriptions.device
    having = torch.cat(
        [
            objects.colours[:, None] == torch.arange(len(COLOURS), device=device)[:, None],
            objects.shapes[:, None] == torch.arange(len(SHAPES), device=device)[:, None],
        ],
        dim=1,
    ).float()  # (batch, attributes, objects)
    centres = objects.places[..., :2]
    relative = (centres - centres.nanmean(dim=1, keepdim=True)).nan_to_num() / _PLACE_UNIT
    places = having @ relative / having.sum(dim=2, keepdim=True).clamp(min=1)
    places = _PLACE * places.transpose(1, 2).flatten(1)
    return torch.cat([descriptions[:, :-PLACES], places], dim=1)


def scene_codes(descriptions: Tensor, dim: int) -> Tensor:
    """Unit vectors `(batch, dim)` whose cosines are about those of the descriptions.

    The descriptions are turned by a fixed random rotation and cut to `dim` numbers (Johnson and
    Lindenstrauss 1984). A description of zeros, which says nothing, gives zeros.
    """
    turn = _rotation(descriptions.shape[1], dim).to(descriptions.device)
    return functional.normalize(descriptions @ turn, dim=1)


@cache
def _rotation(numbers: int, dim: int) -> Tensor:
    size = max(numbers, dim)
    square = torch.randn(size, size, generator=torch.Generator().manual_seed(0))
    return torch.linalg.qr(square)[0][:numbers, :dim]


def code_loss(features: Tensor, codes: Tensor) -> Tensor:
    """1 less the cosine of features and codes: scalar, mean over the codes that say something.

    Args:
        features: `(batch, dim)`, of any length.
        codes: `(batch, dim)` from `scene_codes`.
    """
    known = (codes != 0).any(dim=1).to(features.dtype)
    cosines = functional.cosine_similarity(features, codes, dim=1)
    return ((1 - cosines) * known).sum() / known.sum().clamp(min=1)
