"""Draws scenes: antialiased vector shapes over many backgrounds, the same for the same seed."""

import random
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from .backgrounds import Floats, paint_background
from .layout import Placed, place
from .scenes import Scene

Pixels: TypeAlias = NDArray[np.uint8]
"""RGB, `(size, size, 3)`."""

IMAGE_SIZE = 64

# sRGB values at the centre of each colour's range.
COLOUR_VALUES = {
    "red": (215, 40, 40),
    "orange": (245, 135, 25),
    "yellow": (245, 222, 45),
    "green": (40, 165, 60),
    "blue": (40, 80, 215),
    "purple": (130, 45, 175),
    "black": (22, 22, 22),
    "white": (246, 246, 246),
}
_COLOUR_JITTER = 14
_MAX_TILT = 0.14


def layout(scene: Scene, seed: int) -> tuple[Placed, ...]:
    """The places of the objects in `render(scene, seed=seed)`."""
    return place(scene, random.Random(f"layout {seed}"))


def render(
    scene: Scene, *, seed: int, size: int = IMAGE_SIZE, places: Sequence[Placed] | None = None
) -> Pixels:
    """Draw a scene.

    Args:
        scene: what to draw.
        seed: decides places, shades, tilt and background; equal seeds give equal pictures.
        size: side of the picture in pixels. Other sizes show the same picture, up to the grain
            of the background.
        places: where the objects stand, if not where `layout` puts them; their centres lie in the
            picture.

    Returns:
        RGB picture, `(size, size, 3)` uint8.
    """
    rng = random.Random(f"drawing {seed}")
    canvas = paint_background(scene.background, rng, size)
    fills = [
        tuple(value + rng.uniform(-_COLOUR_JITTER, _COLOUR_JITTER) for value in base)
        for base in (COLOUR_VALUES[group.colour] for group in scene.groups)
    ]
    for placed in layout(scene, seed) if places is None else places:
        shape = scene.groups[placed.group].shape
        fill = np.asarray(fills[placed.group], dtype=np.float32)
        _draw(canvas, placed, shape, fill, rng.uniform(-_MAX_TILT, _MAX_TILT))
    return np.clip(canvas + 0.5, 0, 255).astype(np.uint8)


def _draw(canvas: Floats, placed: Placed, shape: str, fill: Floats, tilt: float) -> None:
    """Blend one object into the canvas, pixels covered in part in proportion."""
    size = canvas.shape[0]
    reach = placed.radius * size + 1
    left, top = (max(0, int(centre * size - reach)) for centre in (placed.x, placed.y))
    right, bottom = (min(size, int(c * size + reach) + 1) for c in (placed.x, placed.y))
    across = (np.arange(left, right, dtype=np.float32) + 0.5) / size - placed.x
    down = (np.arange(top, bottom, dtype=np.float32)[:, None] + 0.5) / size - placed.y
    cosine, sine = np.float32(np.cos(tilt)), np.float32(np.sin(tilt))
    x = (cosine * across + sine * down) / placed.radius
    y = (cosine * down - sine * across) / placed.radius
    distance = DISTANCES[shape](x, y) * (placed.radius * size)
    cover = np.clip(0.5 - distance, 0, 1)[..., None]
    patch = canvas[top:bottom, left:right]
    patch += cover * (fill - patch)


# Signed distances to each shape's outline, negative inside, for a shape within the unit circle.
# x grows to the right and y downwards.


def _circle(x: Floats, y: Floats) -> Floats:
    return np.hypot(x, y) - 0.9


def _square(x: Floats, y: Floats) -> Floats:
    return np.maximum(np.abs(x), np.abs(y)) - 0.78


def _triangle(x: Floats, y: Floats) -> Floats:
    # Equilateral, upright: the base at y = 0.6 and two sides whose normals point up at 30 degrees.
    sides = np.abs(x) * np.float32(np.sqrt(3) / 2) - y * 0.5
    return np.maximum(sides, y) - 0.55


def _diamond(x: Floats, y: Floats) -> Floats:
    # A rhombus taller than wide, so that no tilt makes it a square.
    return (np.abs(x) / 0.66 + np.abs(y)) * 0.55 - 0.55


def _star(x: Floats, y: Floats) -> Floats:
    # One of ten mirror-image wedges: the line from a tip (1, 0) to the notch beside it.
    fifth = np.float32(2 * np.pi / 5)
    angle = np.abs((np.arctan2(x, -y) + fifth / 2) % fifth - fifth / 2)
    radius = np.hypot(x, y)
    edge = 0.45 * np.exp(1j * np.pi / 5) - 1
    outward = -1j * edge / abs(edge)
    along, across = radius * np.cos(angle), radius * np.sin(angle)
    return (along - 1) * np.float32(outward.real) + across * np.float32(outward.imag)


def _cross(x: Floats, y: Floats) -> Floats:
    x, y = np.abs(x), np.abs(y)
    upright = np.maximum(x - 0.3, y - 0.92)
    level = np.maximum(x - 0.92, y - 0.3)
    return np.minimum(upright, level)


def _ring(x: Floats, y: Floats) -> Floats:
    return np.abs(np.hypot(x, y) - 0.7) - 0.24


def _heart(x: Floats, y: Floats) -> Floats:
    # A square on its corner and a half circle on each of its upper sides.
    x, half = np.abs(x), 0.5
    turned = np.float32(np.sqrt(0.5))
    centre = (y - 0.12) * turned
    square = np.maximum(np.abs(x * turned + centre), np.abs(x * turned - centre)) - half
    middle = half * float(turned)
    lobe = np.hypot(x - middle, y - 0.12 + middle) - half
    return np.minimum(square, lobe)


DISTANCES: dict[str, Callable[[Floats, Floats], Floats]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "diamond": _diamond,
    "star": _star,
    "cross": _cross,
    "ring": _ring,
    "heart": _heart,
}
