"""The mistakes in a picture that was read, counted as those of a picture whose scene is known."""

from collections import Counter

from ..people.alignment import MISTAKE_COSTS
from ..world.scenes import Group, Scene
from .grading import pair_objects, relation_holds
from .reading import Seen, SeenObject


def seen_mistakes(seen: Seen, wanted: Scene) -> dict[str, int]:
    """Count mistakes by the rules of `people.alignment.find_mistakes`, from pixels alone.

    What was read has objects and no groups, so that groups are put together here: the objects that
    are paired with one wanted group are its group, and a blob without a colour or shape has a
    wrong one. Exchanged colours may be read as exchanged shapes, which cost the same. Then:

    - ``colour``, ``shape``, ``size``: groups of which an object has another.
    - ``count``: objects too few in a group, and objects too many that look like one of its.
    - ``missing``: groups without any object; ``extra``: further kinds of objects.
    - ``relation``: 1 unless the groups stand in the prompt's order, in its row or column.
    - ``background``: 1 if the prompt names another.

    Args:
        seen: What `read_picture` found.
        wanted: The scene of the prompt.

    Returns:
        A number for each kind, 0 or more, in the order of `MISTAKE_COSTS`.
    """
    found = dict.fromkeys(MISTAKE_COSTS, 0)
    pairs = pair_objects(seen, wanted)
    members: dict[Group, list[SeenObject]] = {group: [] for group in wanted.groups}
    for group, place in pairs:
        members[group].append(seen.objects[place])
    for group, objects in members.items():
        if not objects:
            found["missing"] += 1
            continue
        found["colour"] += any(each.colour != group.colour for each in objects)
        found["shape"] += any(each.shape != group.shape for each in objects)
        found["size"] += any(group.size not in ("", each.size) for each in objects)
        found["count"] += group.count - len(objects)
    taken = {place for _, place in pairs}
    left = Counter(
        (each.colour, each.shape) for place, each in enumerate(seen.objects) if place not in taken
    )
    shown = {(each.colour, each.shape) for objects in members.values() for each in objects}
    for kind, number in left.items():
        if kind in shown:
            found["count"] += number
        else:
            found["extra"] += 1
    present = [group for group in wanted.groups if members[group]]
    if wanted.relation is not None and len(present) > 1:
        placed = [(group, seen.objects[place]) for group, place in pairs]
        found["relation"] = int(not relation_holds(wanted, placed, groups=present))
    found["background"] = int(wanted.background not in (None, seen.background))
    return found
