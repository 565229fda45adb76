"""Where the objects of a scene stand: places that make its relation plainly true."""

import random
from dataclasses import dataclass
from itertools import pairwise

from .scenes import Scene

# Radius of the circle around an object, as a share of the picture's side.
_RADII = {"small": (0.078, 0.095), "": (0.12, 0.145), "large": (0.185, 0.215)}
_CROWDED_RADII = (0.095, 0.12)
_CROWDED = 4
_MARGIN = 0.04
_GAP = 0.025
# Related groups are separated along their axis at least this many times more than across it.
_DOMINANCE = 1.8


@dataclass(frozen=True)
class Placed:
    """One object of a picture.

    Attributes:
        group: position of its group in `Scene.groups`.
        x: centre from the left edge, as a share of the picture's side.
        y: centre from the top edge, as a share of the side.
        radius: radius of the circle around it, as a share of the side.
    """

    group: int
    x: float
    y: float
    radius: float


def place(scene: Scene, rng: random.Random) -> tuple[Placed, ...]:
    """Random places for all objects of a scene, in the order of its groups.

    Objects do not touch each other or the edge. With a relation, every object of a group stands
    wholly before every object of the next one, and the centres of the two groups are at least
    1.8 times as far apart along the axis of the relation as across it.
    """
    attempt = 0
    while True:
        # Crowded draws that fail often are tried again with slightly smaller objects.
        placed = _attempt(scene, rng, shrink=0.97 ** (attempt // 25))
        if placed is not None:
            return placed
        attempt += 1


def _attempt(scene: Scene, rng: random.Random, shrink: float) -> tuple[Placed, ...] | None:
    crowded = scene.objects >= _CROWDED
    radii = [
        rng.uniform(*(_CROWDED_RADII if crowded else _RADII[group.size])) * shrink
        for group in scene.groups
    ]
    spans = _spans(scene, radii, rng)
    objects: list[Placed] = []
    for index, group in enumerate(scene.groups):
        for _ in range(group.count):
            radius = radii[index] * rng.uniform(0.95, 1)
            placed = _find_room(objects, index, radius, spans[index], scene.relation, rng)
            if placed is None:
                return None
            objects.append(placed)
    return tuple(objects) if _relation_is_plain(scene, objects) else None


def _spans(scene: Scene, radii: list[float], rng: random.Random) -> list[tuple[float, float]]:
    """The part of the relation's axis that each group may use: from edge to edge without one."""
    if scene.relation is None:
        return [(_MARGIN, 1 - _MARGIN)] * len(radii)
    needed = [2 * radius for radius in radii]
    spare = 1 - 2 * _MARGIN - _GAP * (len(radii) - 1) - sum(needed)
    shares = [rng.uniform(0.5, 1.5) for _ in radii]
    spans, start = [], _MARGIN
    for need, share in zip(needed, shares, strict=True):
        end = start + need + max(spare, 0) * share / sum(shares)
        spans.append((start, end))
        start = end + _GAP
    return spans


def _find_room(
    objects: list[Placed],
    group: int,
    radius: float,
    span: tuple[float, float],
    relation: str | None,
    rng: random.Random,
) -> Placed | None:
    whole = (_MARGIN, 1 - _MARGIN)
    spans = (whole, span) if relation == "above" else (span, whole)
    if any(end - start < 2 * radius for start, end in spans):
        return None
    for _ in range(12):
        x, y = (rng.uniform(start + radius, end - radius) for start, end in spans)
        if all(
            (x - other.x) ** 2 + (y - other.y) ** 2 > (radius + other.radius + _GAP) ** 2
            for other in objects
        ):
            return Placed(group, x, y, radius)
    return None


def _relation_is_plain(scene: Scene, objects: list[Placed]) -> bool:
    if scene.relation is None:
        return True
    centres = []
    for index, group in enumerate(scene.groups):
        members = [placed for placed in objects if placed.group == index]
        x = sum(placed.x for placed in members) / group.count
        y = sum(placed.y for placed in members) / group.count
        centres.append((x, y) if scene.relation == "left of" else (y, x))
    return all(
        after[0] - before[0] > _DOMINANCE * abs(after[1] - before[1])
        for before, after in pairwise(centres)
    )
