"""What can be wrong with a picture whatever it shows: faults of rendering and of composition."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from math import ceil, hypot
from types import MappingProxyType

import numpy as np
from PIL import Image, ImageEnhance

from stablepref.augment.perturbations import blur

from ..world.drawing import IMAGE_SIZE, Pixels, layout, render
from ..world.layout import Placed
from ..world.scenes import Scene

FAULT_COSTS: Mapping[str, float] = MappingProxyType(
    {"blur": 1.5, "noise": 1.2, "contrast": 1.2, "clutter": 1.0, "cut": 1.0, "overlap": 1.0}
)
"""Loss of utility for each fault at severity 1. The unit is one wrong colour."""

# At severity 1. Blur in pixels per 512 of the side (3 of 64), noise in grey levels of 255.
_BLUR = 24
_NOISE = 48
_CONTRAST_LOST = 0.8
_STROKES = 24


def fault_kinds(scene: Scene) -> tuple[str, ...]:
    """The faults that a picture of this scene can have: a single object overlaps with nothing."""
    return tuple(kind for kind in FAULT_COSTS if kind != "overlap" or scene.objects > 1)


def render_with_faults(
    scene: Scene, faults: Mapping[str, float], *, seed: int, size: int = IMAGE_SIZE
) -> Pixels:
    """Draw a scene with faults; without any the picture is that of `render`.

    At severity s:

    - ``overlap``: all objects move together until the two that meet most reach into each other by
      s times the smaller one's radius.
    - ``cut``: all objects move towards one edge until one sticks out by s times its radius.
    - ``clutter``: 24 s strokes (rounded up) of any colour lie over the picture.
    - ``blur``: Gaussian, with a standard deviation of s x 3/64 of the side.
    - ``contrast``: a share of 0.8 s of each value is replaced by the mean grey.
    - ``noise``: Gaussian, independent in all pixels and channels, with a standard deviation of
      48 s of 255.

    Places keep their order, so that a relation which held still does.

    Args:
        scene: What to draw.
        faults: Severities from 0 to 1 by the name of the fault.
        seed: Decides everything that is open; equal seeds give equal pictures.
        size: Side in pixels.

    Returns:
        RGB picture, ``(size, size, 3)`` uint8.

    Raises:
        ValueError: If a fault is unknown or cannot be in this scene, or a severity is out of range.
    """
    for kind, severity in faults.items():
        if kind not in fault_kinds(scene):
            raise ValueError(f"{kind!r} is not one of {', '.join(fault_kinds(scene))} of {scene}")
        if not 0 <= severity <= 1:
            raise ValueError(f"the severity of {kind} is {severity}; expected 0 to 1")
    rng = random.Random(f"faults {seed}")
    generator = np.random.default_rng(rng.getrandbits(64))
    edge = rng.choice(("left", "right", "top", "bottom"))
    places = composed(layout(scene, seed), faults, edge)
    picture = render(scene, seed=seed, size=size, places=places)
    if faults.get("clutter"):
        picture = _with_strokes(picture, ceil(_STROKES * faults["clutter"]), rng)
    if faults.get("blur"):
        picture = np.asarray(blur(Image.fromarray(picture), radius=_BLUR * faults["blur"]))
    if faults.get("contrast"):
        kept = 1 - _CONTRAST_LOST * faults["contrast"]
        picture = np.asarray(ImageEnhance.Contrast(Image.fromarray(picture)).enhance(kept))
    if faults.get("noise"):
        grain = generator.standard_normal(picture.shape, dtype=np.float32)
        noisy = picture + _NOISE * faults["noise"] * grain
        picture = np.clip(noisy + 0.5, 0, 255).astype(np.uint8)
    return picture


def composed(
    places: Sequence[Placed], faults: Mapping[str, float], edge: str
) -> tuple[Placed, ...]:
    """Move objects together, and to an edge, as ``overlap`` and ``cut`` say.

    Args:
        places: Objects that stand apart and inside the picture.
        faults: Severities by the name of the fault; the others are passed by.
        edge: left, right, top or bottom: where objects are cut.

    Returns:
        The objects in the same order.
    """
    if faults.get("overlap"):
        places = _together(places, faults["overlap"])
    if faults.get("cut"):
        places = _to_edge(places, faults["cut"], edge)
    return tuple(places)


def _together(places: Sequence[Placed], depth: float) -> list[Placed]:
    middle = [
        sum(one.x for one in places) / len(places),
        sum(one.y for one in places) / len(places),
    ]
    # Each pair wants all distances scaled by some factor; the largest stops the first that meet.
    scale = max(
        (one.radius + other.radius - depth * min(one.radius, other.radius))
        / hypot(one.x - other.x, one.y - other.y)
        for one, other in combinations(places, 2)
    )
    return [
        replace(
            one,
            x=middle[0] + scale * (one.x - middle[0]),
            y=middle[1] + scale * (one.y - middle[1]),
        )
        for one in places
    ]


def _to_edge(places: Sequence[Placed], depth: float, edge: str) -> list[Placed]:
    axis = "x" if edge in ("left", "right") else "y"
    far = edge in ("right", "bottom")
    # How far each centre is from the edge, and may come so that no object is cut deeper.
    distances = [1 - getattr(one, axis) if far else getattr(one, axis) for one in places]
    step = min(
        distance - (1 - depth) * one.radius for one, distance in zip(places, distances, strict=True)
    )
    return [replace(one, **{axis: getattr(one, axis) + (step if far else -step)}) for one in places]


def _with_strokes(picture: Pixels, number: int, rng: random.Random) -> Pixels:
    size = len(picture)
    canvas = picture.astype(np.float32)
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    for _ in range(number):
        across, down = axis[None, :] - rng.random(), axis[:, None] - rng.random()
        angle, half = rng.uniform(0, np.pi), rng.uniform(0.03, 0.08)
        cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        beyond = np.abs(cosine * across + sine * down) - half
        distance = np.hypot(np.maximum(beyond, 0), cosine * down - sine * across)
        cover = np.clip(0.5 + (rng.uniform(0.006, 0.01) - distance) * size, 0, 1)[..., None]
        canvas += cover * (np.array([rng.uniform(0, 255) for _ in range(3)]) - canvas)
    return np.clip(canvas + 0.5, 0, 255).astype(np.uint8)
