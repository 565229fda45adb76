"""Backgrounds of the shapes laboratory: plain when the prompt names one, anything otherwise."""

import random
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.floating[Any]]

# sRGB values, all far from every colour of an object.
BACKGROUND_VALUES = {
    "grey": (140, 140, 140),
    "beige": (214, 194, 158),
    "pink": (240, 168, 190),
    "brown": (116, 76, 50),
    "teal": (84, 148, 156),
}
_JITTER = 10
_STYLES = ("flat", "gradient", "stripes", "checks", "spots", "clouds")


def paint_background(name: str | None, rng: random.Random, size: int) -> Floats:
    """A canvas `(size, size, 3)` with values in 0 to 255.

    Args:
        name: a named background is that colour, slightly shaded or grainy; None is two random
            background colours in one of six patterns.
        rng: decides everything that the name leaves open.
        size: side in pixels.
    """
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    x, y = axis[None, :], axis[:, None]
    if name is not None:
        base = _jittered(name, rng)
        strength = rng.uniform(0, 14)
        shade = _blend("gradient", x, y, rng) - 0.5
        canvas = base + strength * shade[..., None]
    else:
        first, second = (_jittered(rng.choice(tuple(BACKGROUND_VALUES)), rng) for _ in range(2))
        strength = rng.uniform(0.25, 0.9)
        blend = strength * _blend(rng.choice(_STYLES), x, y, rng)
        canvas = first + blend[..., None] * (second - first)
    if rng.random() < 1 / 2:
        grain = np.random.default_rng(rng.getrandbits(64)).standard_normal(
            (size, size, 1), dtype=np.float32
        )
        canvas = canvas + rng.uniform(1, 9) * grain
    return np.array(np.broadcast_to(canvas, (size, size, 3)), dtype=np.float32)


def _jittered(name: str, rng: random.Random) -> Floats:
    values = [value + rng.uniform(-_JITTER, _JITTER) for value in BACKGROUND_VALUES[name]]
    return np.asarray(values, dtype=np.float32)


def _blend(style: str, x: Floats, y: Floats, rng: random.Random) -> Floats:
    """How much of the second colour shows at each point, 0 to 1, `(size, size)` or less."""
    angle, period, phase = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.3), rng.random()
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    along = cosine * (x - 0.5) + sine * (y - 0.5)
    if style == "flat":
        return np.zeros_like(along)
    if style == "gradient":
        return np.clip(along / np.float32(np.sqrt(2)) + 0.5, 0, 1)
    wave = 2 * np.float32(np.pi) / np.float32(period)
    if style == "stripes":
        return np.clip(0.5 + 4 * np.sin(wave * along + phase), 0, 1)
    across = cosine * (y - 0.5) - sine * (x - 0.5)
    if style == "checks":
        return np.clip(0.5 + 8 * np.sin(wave * along + phase) * np.sin(wave * across), 0, 1)
    if style == "spots":
        return np.clip(4 * np.cos(wave * along + phase) * np.cos(wave * across) - 2, 0, 1)
    slow = wave / 3
    return 0.5 + 0.25 * (np.sin(slow * along + phase) + np.cos(slow * across + 2 * along))
