"""How far a picture is from its prompt: the mistakes in what it shows, and what each one costs."""

from collections.abc import Mapping
from itertools import pairwise, permutations
from types import MappingProxyType

from ..world.scenes import Group, Scene

MISTAKE_COSTS: Mapping[str, float] = MappingProxyType(
    {
        "colour": 1.0,
        "shape": 1.0,
        "size": 0.6,
        "count": 0.8,
        "missing": 1.6,
        "extra": 0.8,
        "relation": 1.0,
        "background": 0.6,
    }
)
"""Loss of utility for one mistake of each kind. The unit is one wrong colour."""


def find_mistakes(wanted: Scene, shown: Scene) -> dict[str, int]:
    """Count the mistakes in a picture of ``shown`` under a prompt that describes ``wanted``.

    The groups of both scenes are matched in the way that costs least (`MISTAKE_COSTS`), as many of
    them as there are in the smaller scene. Then:

    - ``colour``, ``shape``: matched groups that differ in it. Two groups that have exchanged their
      colours are two wrong colours.
    - ``size``: matched groups that are not of the size that the prompt names.
    - ``count``: objects too many or too few, over all matched groups.
    - ``missing``, ``extra``: groups of either scene that are left over.
    - ``relation``: 1 unless the matched groups stand in the prompt's order, in its row or column.
    - ``background``: 1 if the prompt names another.

    Args:
        wanted: The scene of the prompt.
        shown: The scene of the picture.

    Returns:
        A number for each kind, 0 or more, in the order of `MISTAKE_COSTS`.
    """
    longer = max(len(wanted.groups), len(shown.groups))
    places: list[int | None] = [*range(len(shown.groups))]
    places += [None] * (longer - len(places))
    matches = (_matched(wanted, shown, order) for order in permutations(places))
    # Exchanged colours cost as much as exchanged shapes: they are called colours.
    return min(matches, key=lambda found: (round(mistakes_cost(found), 6), found["shape"]))


def mistakes_cost(mistakes: Mapping[str, int]) -> float:
    """What mistakes cost together, 0 or more: each kind's number times its cost, summed."""
    return sum(MISTAKE_COSTS[kind] * number for kind, number in mistakes.items())


def _matched(wanted: Scene, shown: Scene, order: tuple[int | None, ...]) -> dict[str, int]:
    """The mistakes if group i of ``wanted`` is group ``order[i]`` of ``shown``; the rest is extra.

    None stands for a group that is missing.
    """
    found = dict.fromkeys(MISTAKE_COSTS, 0)
    matched = []
    for group, place in zip(wanted.groups, order, strict=False):
        if place is None:
            found["missing"] += 1
        else:
            matched.append(place)
            _compare(group, shown.groups[place], found)
    found["extra"] = len(shown.groups) - len(matched)
    found["background"] = int(wanted.background not in (None, shown.background))
    if wanted.relation is not None and len(matched) > 1:
        in_order = all(first < second for first, second in pairwise(matched))
        found["relation"] = int(shown.relation != wanted.relation or not in_order)
    return found


def _compare(wanted: Group, shown: Group, found: dict[str, int]) -> None:
    found["colour"] += wanted.colour != shown.colour
    found["shape"] += wanted.shape != shown.shape
    found["size"] += wanted.size not in ("", shown.size)
    found["count"] += abs(wanted.count - shown.count)
