"""Compares what a picture shows with what its prompt describes, attribute by attribute."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.optimize import linear_sum_assignment

from ..world.drawing import Pixels
from ..world.scenes import Group, Scene
from .reading import Seen, SeenObject, read_picture

# Costs of pairing what is wanted with what is seen: as many exact pairs as can be, then equal
# colours and equal shapes alike.
_COLOUR_COST, _SHAPE_COST, _SIZE_COST, _BOTH_COST = 1.0, 1.0, 0.5, 1.0


@dataclass(frozen=True)
class Grade:
    """What is right in a picture; None for what the prompt does not name.

    Attributes:
        count: the number of objects, over all groups.
        colour: the colours of all wanted objects that are there.
        shape: their shapes.
        size: their sizes, if the prompt names one.
        relation: the groups lie in the prompt's order, in its row or column.
        background: it is plain and of the colour that the prompt names.
    """

    count: bool
    colour: bool
    shape: bool
    size: bool | None = None
    relation: bool | None = None
    background: bool | None = None

    @property
    def correct(self) -> bool:
        """Whether everything that the prompt names is right."""
        parts = (self.count, self.colour, self.shape, self.size, self.relation, self.background)
        return all(part is not False for part in parts)


ATTRIBUTES = ("count", "colour", "shape", "size", "relation", "background")


def grade(picture: Pixels, scene: Scene) -> Grade:
    """Compare a picture with what it should show.

    Args:
        picture: RGB, `(64, 64, 3)` uint8.
        scene: what its prompt describes.

    Raises:
        ValueError: the array has another shape or number type.
    """
    return grade_seen(read_picture(picture), scene)


def grade_seen(seen: Seen, scene: Scene) -> Grade:
    """Compare what was read from a picture with what it should show.

    Each wanted object is paired with one that is there so that as few colours, shapes and sizes
    as possible differ. A blob of no shape counts as an object of a wrong shape.
    """
    pairs = [(group, seen.objects[place]) for group, place in pair_objects(seen, scene)]
    sized = any(group.size for group in scene.groups)
    return Grade(
        count=scene.objects == len(seen.objects),
        # Where no object is there, no colour and no shape is right.
        colour=bool(pairs) and all(group.colour == found.colour for group, found in pairs),
        shape=bool(pairs) and all(group.shape == found.shape for group, found in pairs),
        size=bool(pairs) and all(g.size in ("", found.size) for g, found in pairs)
        if sized
        else None,
        relation=relation_holds(scene, pairs) if scene.relation else None,
        background=seen.background == scene.background if scene.background else None,
    )


def pair_objects(seen: Seen, scene: Scene) -> list[tuple[Group, int]]:
    """Pair wanted objects with seen ones so that colours, shapes and sizes differ least.

    Returns:
        A wanted object's group, and the place of its partner in `seen.objects`, for as many objects
        as there are in the smaller of both.
    """
    wanted = [group for group in scene.groups for _ in range(group.count)]
    costs = [[_cost(group, found) for found in seen.objects] for group in wanted]
    rows, columns = linear_sum_assignment(np.array(costs).reshape(len(wanted), -1))
    return [(wanted[row], int(column)) for row, column in zip(rows, columns, strict=True)]


def _cost(wanted: Group, found: SeenObject) -> float:
    colour, shape = wanted.colour != found.colour, wanted.shape != found.shape
    size = wanted.size not in ("", found.size)
    return (
        _COLOUR_COST * colour
        + _SHAPE_COST * shape
        + _BOTH_COST * (colour and shape)
        + _SIZE_COST * size
    )


def relation_holds(
    scene: Scene,
    pairs: Sequence[tuple[Group, SeenObject]],
    groups: Sequence[Group] | None = None,
) -> bool:
    """Whether each group's objects stand before the next one's along the relation's axis.

    Of the scene's groups, or of those named; False where one has no object. The groups' mean places
    must also lie further apart along it than across.
    """
    rows = []
    for group in scene.groups if groups is None else groups:
        places = [(found.x, found.y) for wanted, found in pairs if wanted == group]
        if not places:
            return False
        along = np.array(places)[:, :: 1 if scene.relation == "left of" else -1]
        rows.append(along)
    return all(
        bool(one[:, 0].max() < other[:, 0].min())
        and bool(np.greater(*np.abs(other.mean(axis=0) - one.mean(axis=0))))
        for one, other in pairwise(rows)
    )
