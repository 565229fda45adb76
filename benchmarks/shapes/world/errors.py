"""Scenes with exactly one mistake: what a model that reads the whole prompt must distinguish."""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from .scenes import (
    BACKGROUNDS,
    COLOURS,
    MAX_COUNT,
    MAX_GROUPS,
    MAX_OBJECTS,
    MAX_SIZED_OBJECTS,
    SHAPES,
    SIZES,
    Group,
    Scene,
)


def single_error(scene: Scene, kind: str, rng: random.Random) -> Scene:
    """The scene with one mistake of the named kind, chosen at random.

    Args:
        scene: the correct scene.
        kind: one of `GENERATOR_ERRORS`.
        rng: chooses among the mistakes of that kind.

    Raises:
        ValueError: the kind is unknown, or this scene cannot have such a mistake
            (`error_kinds` lists those that it can have).
    """
    if kind not in GENERATOR_ERRORS:
        raise ValueError(f"{kind!r} is not one of the errors {', '.join(GENERATOR_ERRORS)}")
    candidates = _CANDIDATES[kind](scene)
    if not candidates:
        raise ValueError(f"the error {kind!r} does not apply to {scene}")
    return rng.choice(candidates)


def error_kinds(scene: Scene, kinds: tuple[str, ...] | None = None) -> tuple[str, ...]:
    """The kinds of mistake, out of ``kinds`` or `ERROR_KINDS`, that this scene can have.

    Raises:
        ValueError: A kind is unknown.
    """
    among = ERROR_KINDS if kinds is None else kinds
    for kind in among:
        if kind not in _CANDIDATES:
            raise ValueError(f"{kind!r} is not a kind of error; expected {', '.join(_CANDIDATES)}")
    return tuple(kind for kind in among if _CANDIDATES[kind](scene))


def _changed(scene: Scene, position: int, group: Group | None) -> Scene | None:
    """The scene with one group replaced, or without it; None where that is not a scene."""
    groups = [other for index, other in enumerate(scene.groups) if index != position]
    if group is not None:
        if any((group.colour, group.shape) == (other.colour, other.shape) for other in groups):
            return None
        groups.insert(position, group)
    relation = scene.relation if len(groups) > 1 else None
    return replace(scene, groups=tuple(groups), relation=relation)


def _sized(scene: Scene) -> bool:
    return any(group.size for group in scene.groups)


def _replaced(scene: Scene, attribute: str, values: tuple[str, ...]) -> list[Scene]:
    candidates = []
    for position, group in enumerate(scene.groups):
        present = getattr(group, attribute)
        for value in values:
            if present and value != present:
                change: dict[str, Any] = {attribute: value}
                changed = _changed(scene, position, replace(group, **change))
                if changed is not None:
                    candidates.append(changed)
    return candidates


def _colour(scene: Scene) -> list[Scene]:
    return _replaced(scene, "colour", COLOURS)


def _shape(scene: Scene) -> list[Scene]:
    return _replaced(scene, "shape", SHAPES)


def _size(scene: Scene) -> list[Scene]:
    return _replaced(scene, "size", SIZES)


def _count(scene: Scene) -> list[Scene]:
    """One object too many or too few of a group of several, so that the group stays."""
    candidates = []
    for position, group in enumerate(scene.groups):
        for count in (group.count - 1, group.count + 1):
            within = 1 <= count <= MAX_COUNT and scene.objects - group.count + count <= MAX_OBJECTS
            if group.count > 1 and within and not (group.size and count > group.count):
                changed = _changed(scene, position, replace(group, count=count))
                if changed is not None:
                    candidates.append(changed)
    return candidates


def _repeated(scene: Scene) -> list[Scene]:
    """An object that the prompt names once, drawn twice."""
    fits = scene.objects < (MAX_SIZED_OBJECTS if _sized(scene) else MAX_OBJECTS)
    if not fits or (scene.relation is not None and len(scene.groups) == MAX_GROUPS):
        return []
    changed = (
        _changed(scene, position, replace(group, count=2))
        for position, group in enumerate(scene.groups)
        if group.count == 1
    )
    return [candidate for candidate in changed if candidate is not None]


def _missing(scene: Scene) -> list[Scene]:
    """A group that is not there at all."""
    if len(scene.groups) == 1:
        return []
    changed = (_changed(scene, position, None) for position in range(len(scene.groups)))
    return [candidate for candidate in changed if candidate is not None]


def _extra(scene: Scene) -> list[Scene]:
    """One object that the prompt does not name, of another colour and shape than all others."""
    row = scene.relation is not None and scene.objects > len(scene.groups)
    if len(scene.groups) == MAX_GROUPS or scene.objects == MAX_OBJECTS or row:
        return []
    if _sized(scene) and scene.objects > 1:
        return []
    return [
        replace(scene, groups=(*scene.groups, Group(1, colour, shape)))
        for colour in COLOURS
        for shape in SHAPES
        if all(colour != group.colour and shape != group.shape for group in scene.groups)
    ]


def _binding(scene: Scene) -> list[Scene]:
    """The colours of two groups exchanged: every word of the prompt is still in the picture."""
    candidates = []
    for first, one in enumerate(scene.groups):
        for second, other in enumerate(scene.groups[:first]):
            if one.colour == other.colour or one.shape == other.shape:
                continue
            groups = list(scene.groups)
            groups[first] = replace(one, colour=other.colour)
            groups[second] = replace(other, colour=one.colour)
            if len({(group.colour, group.shape) for group in groups}) == len(groups):
                candidates.append(replace(scene, groups=tuple(groups)))
    return candidates


def _left_right(scene: Scene) -> list[Scene]:
    return [replace(scene, groups=scene.groups[::-1])] if scene.relation == "left of" else []


def _above_below(scene: Scene) -> list[Scene]:
    return [replace(scene, groups=scene.groups[::-1])] if scene.relation == "above" else []


def _axis(scene: Scene) -> list[Scene]:
    """Side by side instead of one above the other, or the reverse."""
    other = {"left of": "above", "above": "left of"}
    return [replace(scene, relation=other[scene.relation])] if scene.relation else []


def _background(scene: Scene) -> list[Scene]:
    return [
        replace(scene, background=name)
        for name in BACKGROUNDS
        if scene.background is not None and name != scene.background
    ]


_CANDIDATES: dict[str, Callable[[Scene], list[Scene]]] = {
    "colour": _colour,
    "shape": _shape,
    "size": _size,
    "count": _count,
    "missing": _missing,
    "extra": _extra,
    "binding": _binding,
    "left-right": _left_right,
    "above-below": _above_below,
    "axis": _axis,
    "background": _background,
    "repeated": _repeated,
}
GENERATOR_ERRORS = tuple(_CANDIDATES)
"""Mistakes that the laboratory's generators make."""

ERROR_KINDS = tuple(kind for kind in GENERATOR_ERRORS if kind != "repeated")
"""Those that `shapes-clip` learns from and is tested on. "A red circle" is not plainly wrong of
a picture of two; people whose prompt names one like it less."""
