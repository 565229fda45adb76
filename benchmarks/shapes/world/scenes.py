"""The world of the shapes laboratory: what a scene is, and how scenes are drawn at random."""

import hashlib
import random
from dataclasses import dataclass
from typing import Literal

SHAPES = ("circle", "square", "triangle", "diamond", "star", "cross", "ring", "heart")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "black", "white")
SIZES = ("small", "large")
BACKGROUNDS = ("grey", "beige", "pink", "brown", "teal")
RELATIONS = ("left of", "above")

MAX_GROUPS = 3
MAX_COUNT = 4
MAX_OBJECTS = 6
MAX_SIZED_OBJECTS = 2

_TEST_PERCENT = 5
_VALIDATION_PERCENT = 5

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True, order=True)
class Group:
    """`count` equal objects, such as "three small green triangles".

    Attributes:
        count: number of objects, 1 to 4.
        colour: one of `COLOURS`.
        shape: one of `SHAPES`.
        size: "small", "large", or "" when the prompt says nothing (then medium is drawn).
    """

    count: int
    colour: str
    shape: str
    size: str = ""

    def __post_init__(self) -> None:
        """Refuse attributes outside the world."""
        if not 1 <= self.count <= MAX_COUNT:
            raise ValueError(f"a group has 1 to {MAX_COUNT} objects, not {self.count}")
        for value, allowed in (
            (self.colour, COLOURS),
            (self.shape, SHAPES),
            (self.size, ("", *SIZES)),
        ):
            if value not in allowed:
                raise ValueError(f"{value!r} is not one of {', '.join(map(repr, allowed))}")


@dataclass(frozen=True)
class Scene:
    """What a picture shows, in one canonical form per meaning.

    "A left of B" and "B right of A" are the same scene, and so are "A and B" and "B and A":
    equal meanings compare and hash equal, whatever words described them.

    Attributes:
        groups: 1 to 3 groups, no two with the same colour and shape. With a relation they are
            in its order (leftmost or topmost first); without one they are sorted on creation.
        relation: "left of" or "above" between each group and the next, or None for any places.
        background: one of `BACKGROUNDS`, or None when the prompt says nothing (then any of many
            backgrounds is drawn).
    """

    groups: tuple[Group, ...]
    relation: str | None = None
    background: str | None = None

    def __post_init__(self) -> None:
        """Sort unrelated groups and refuse scenes outside the world."""
        if not 1 <= len(self.groups) <= MAX_GROUPS:
            raise ValueError(f"a scene has 1 to {MAX_GROUPS} groups, not {len(self.groups)}")
        if len({(group.colour, group.shape) for group in self.groups}) < len(self.groups):
            raise ValueError("two groups of a scene have the same colour and shape")
        if self.objects > MAX_OBJECTS:
            raise ValueError(f"a scene has at most {MAX_OBJECTS} objects, not {self.objects}")
        if any(group.size for group in self.groups) and self.objects > MAX_SIZED_OBJECTS:
            raise ValueError(f"sizes need a scene of at most {MAX_SIZED_OBJECTS} objects")
        if self.background is not None and self.background not in BACKGROUNDS:
            raise ValueError(f"{self.background!r} is not one of {', '.join(BACKGROUNDS)}")
        if self.relation is None:
            object.__setattr__(self, "groups", tuple(sorted(self.groups)))
            return
        if self.relation not in RELATIONS:
            raise ValueError(f"{self.relation!r} is not one of {', '.join(RELATIONS)}")
        if len(self.groups) == 1:
            raise ValueError(f"the relation {self.relation!r} needs at least two groups")
        if len(self.groups) == MAX_GROUPS and self.objects > MAX_GROUPS:
            raise ValueError("a row or column of three groups has one object in each")

    @property
    def objects(self) -> int:
        """Number of objects in the picture."""
        return sum(group.count for group in self.groups)


def split_of(scene: Scene) -> Split:
    """The split a scene belongs to: 90 % train, 5 % validation, 5 % test, by its hash.

    A prompt describes exactly one scene, so splits that share no scene share no prompt.
    """
    bucket = int.from_bytes(hashlib.sha256(repr(scene).encode()).digest()[:4], "big") % 100
    if bucket < _TEST_PERCENT:
        return "test"
    return "validation" if bucket < _TEST_PERCENT + _VALIDATION_PERCENT else "train"


def sample_scene(rng: random.Random, split: Split | None = None) -> Scene:
    """Draw a random scene, from one split if that is named.

    A third of the scenes have one group, most of the rest two. Two groups are related two times
    in three, and three groups every other time. A background is named in a third of all scenes.
    """
    while True:
        scene = _draw_scene(rng)
        if split is None or split_of(scene) == split:
            return scene


def _draw_scene(rng: random.Random) -> Scene:
    number = rng.choices((1, 2, 3), weights=(6, 9, 4))[0]
    related = rng.random() < (0, 0, 2 / 3, 1 / 2)[number]
    one_each = (number == MAX_GROUPS and related) or rng.random() < (0.4 if number == 1 else 0.6)
    kinds: list[tuple[str, str]] = []
    while len(kinds) < number:
        kind = (rng.choice(COLOURS), rng.choice(SHAPES))
        if kind not in kinds:
            kinds.append(kind)
    counts = [1] * number
    while not one_each:
        counts = [rng.randint(1, MAX_COUNT) for _ in kinds]
        if sum(counts) <= MAX_OBJECTS and max(counts) > 1:
            break
    sized = sum(counts) <= MAX_SIZED_OBJECTS and rng.random() < 1 / 2
    return Scene(
        groups=tuple(
            Group(count, colour, shape, rng.choice(("", *SIZES)) if sized else "")
            for count, (colour, shape) in zip(counts, kinds, strict=True)
        ),
        relation=rng.choice(RELATIONS) if related else None,
        background=rng.choice(BACKGROUNDS) if rng.random() < 1 / 3 else None,
    )
