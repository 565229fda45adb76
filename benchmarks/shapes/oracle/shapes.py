"""Finds a shape from how much of each pixel it covers: the best fit of the eight outlines."""

from functools import cache
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from ..world.backgrounds import Floats
from ..world.drawing import DISTANCES
from ..world.scenes import SHAPES

# The renderer tilts objects by up to 0.14 radians.
_TILTS = np.linspace(-0.14, 0.14, 5, dtype=np.float32)
# Tried around the radius that follows from the area, and the centre that follows from the centroid.
_RADIUS_FACTORS = (0.94, 1.0, 1.06)
_SHIFTS = (-0.4, 0.0, 0.4)
# Number of shapes that are refined: those that fit best at first.
_REFINED = 3
# Standard deviation in pixels of the blur that a decoder leaves.
_SOFTNESS = 0.8


class Fit(NamedTuple):
    """The outline that fits best.

    Attributes:
        shape: one of `SHAPES`.
        x: centre in pixels from the left edge of the window.
        y: centre from its top edge.
        radius: radius in pixels of the circle around the shape.
        misfit: sum of squared differences in cover as a share of the covered area, 0 for a perfect
            fit.
        margin: how much larger the misfit of the next best shape is.
    """

    shape: str
    x: float
    y: float
    radius: float
    misfit: float
    margin: float


def fit_shape(cover: Floats) -> Fit:
    """Fit all shapes to an object.

    Args:
        cover: `(height, width)`, the share of each pixel that the object covers, 0 to 1; not 0
            everywhere.
    """
    area = float(cover.sum())
    rows, columns = (np.arange(side, dtype=np.float32) + 0.5 for side in cover.shape)
    centroid = np.array([columns @ cover.sum(axis=0), rows @ cover.sum(axis=1)]) / area
    guesses = []
    for shape in SHAPES:
        share, offset = _proportions(shape)
        radius = (area / share) ** 0.5
        place = (float(centroid[0]), float(centroid[1]) - offset * radius, radius)
        guesses.append((_misfit(cover, shape, place), place, shape))
    fits = [
        (*_refine(cover, shape, place), shape) for _, place, shape in sorted(guesses)[:_REFINED]
    ]
    (misfit, (x, y, radius), shape), (second, *_) = sorted(fits)[:2]
    return Fit(shape, x, y, radius, misfit / area, (second - misfit) / area)


def _refine(
    cover: Floats, shape: str, guess: tuple[float, float, float]
) -> tuple[float, tuple[float, float, float]]:
    """The smallest sum of squared differences near a guess of centre and radius, and where."""
    x, y, radius = guess
    sizes = [(_misfit(cover, shape, (x, y, factor * radius)), factor) for factor in _RADIUS_FACTORS]
    radius *= min(sizes)[1]
    places = [
        (_misfit(cover, shape, (x + right, y + down, radius)), (x + right, y + down, radius))
        for right in _SHIFTS
        for down in _SHIFTS
    ]
    return min(places)


def _misfit(cover: Floats, shape: str, place: tuple[float, float, float]) -> float:
    """Sum of squared differences between a cover and a shape, sharp or soft, at its best tilt."""
    x, y, radius = place
    across = (np.arange(cover.shape[1], dtype=np.float32) + 0.5 - x) / radius
    down = ((np.arange(cover.shape[0], dtype=np.float32) + 0.5 - y) / radius)[:, None]
    cosine, sine = np.cos(_TILTS)[:, None, None], np.sin(_TILTS)[:, None, None]
    distance = DISTANCES[shape](cosine * across + sine * down, cosine * down - sine * across)
    sharp = np.clip(0.5 - distance * radius, 0, 1)
    soft = ndimage.gaussian_filter(sharp, (0, _SOFTNESS, _SOFTNESS), mode="nearest")
    return min(float(((drawn - cover) ** 2).sum(axis=(1, 2)).min()) for drawn in (sharp, soft))


@cache
def _proportions(shape: str) -> tuple[float, float]:
    """Area at radius 1, and how far the centroid lies below the centre."""
    axis = (np.arange(800, dtype=np.float32) + 0.5) / 400 - 1
    inside = DISTANCES[shape](axis[None, :], axis[:, None]) < 0
    area = float(inside.sum()) / 400**2
    return area, float(inside.sum(axis=1) @ axis) / float(inside.sum())
