"""Reads a picture of the shapes laboratory: which objects stand where, on which background."""

from dataclasses import dataclass
from itertools import combinations
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..world.backgrounds import BACKGROUND_VALUES, Floats
from ..world.drawing import COLOUR_VALUES, IMAGE_SIZE, Pixels
from ..world.scenes import BACKGROUNDS, COLOURS
from .shapes import Fit, fit_shape

Mask: TypeAlias = NDArray[np.bool_]

_PALETTE = np.array([COLOUR_VALUES[name] for name in COLOURS], dtype=np.float32)
_BACKDROPS = np.array([BACKGROUND_VALUES[name] for name in BACKGROUNDS], dtype=np.float32)
_NEIGHBOURS = np.ones((3, 3), dtype=bool)

# A pixel this near to a colour of the palette has it. Shades differ from their colour by 24 at
# most; the nearest background (pink, from white) is 96 away.
_CORE_DISTANCE = 52.0
# Further than this from every mixture of two backgrounds a pixel belongs to something: shading and
# grain bring it to 30 at most, but for single pixels.
_STRANGE_DISTANCE = 45.0
# More blobs than this are not a scene, which has 6 objects at most, and their shapes do not matter.
_MAX_FITTED = 12
# Fewer pixels of an object's colour, or fewer covered pixels, are dirt. The smallest object, a
# small star, covers about 25.
_MIN_CORE = 4
_MIN_AREA = 12.0
# A blob whose misfit with every outline is larger has no shape.
_MAX_MISFIT = 0.2
# Radii between those that the renderer draws for small and medium, and for medium and large, as
# shares of the side (`layout.py`).
_SMALL_BELOW = 0.1075
_LARGE_FROM = 0.165
# A background has a name if this share of its pixels is this near to the named value.
_NAMED_SHARE = 0.8
_NAMED_DISTANCE = 44.0


@dataclass(frozen=True)
class SeenObject:
    """One object.

    Attributes:
        colour: one of `COLOURS`, or None for a blob of another colour that is not background.
        shape: one of `SHAPES`, or None for a blob of another shape.
        x: centre from the left edge, as a share of the picture's side.
        y: centre from the top edge, as a share of the side.
        radius: radius of the circle around it, as a share of the side.
    """

    colour: str | None
    shape: str | None
    x: float
    y: float
    radius: float

    @property
    def size(self) -> str:
        """The size as in `Group`: "small", "large", or "" for sizes between them."""
        if self.radius < _SMALL_BELOW:
            return "small"
        return "large" if self.radius >= _LARGE_FROM else ""


@dataclass(frozen=True)
class Seen:
    """What a picture shows.

    Attributes:
        objects: all objects, from top to bottom.
        background: one of `BACKGROUNDS` if it is plain and near that colour, else None.
    """

    objects: tuple[SeenObject, ...]
    background: str | None


def read_picture(picture: Pixels) -> Seen:
    """Find the objects and the background of a picture.

    Args:
        picture: RGB, `(64, 64, 3)` uint8.

    Raises:
        ValueError: the array has another shape or number type.
    """
    if picture.shape != (IMAGE_SIZE, IMAGE_SIZE, 3) or picture.dtype != np.uint8:
        raise ValueError(
            f"a picture is (64, 64, 3) uint8, got {picture.shape} {picture.dtype}; "
            "resize larger pictures with Image.resize((64, 64), Image.Resampling.BOX)"
        )
    pixels = picture.astype(np.float32)
    distance = np.linalg.norm(pixels[:, :, None] - _PALETTE, axis=-1)
    colours = np.where(distance.min(axis=-1) < _CORE_DISTANCE, distance.argmin(axis=-1), -1)
    # The edge of an object is of strange colours too, but thin.
    strange = (colours < 0) & (_distance_to_backgrounds(pixels) > _STRANGE_DISTANCE)
    strange = ndimage.binary_opening(strange, _NEIGHBOURS)
    colours[strange] = len(COLOURS)
    free = ~ndimage.binary_dilation(colours >= 0, _NEIGHBOURS, iterations=2)
    if not free.any():
        return Seen((), None)
    nearest = ndimage.distance_transform_edt(~free, return_distances=False, return_indices=True)
    backdrop = pixels[tuple(nearest)]
    blobs = []
    for colour in range(len(COLOURS) + 1):
        # Joined along sides only: corners of two squares may touch.
        labels, _ = ndimage.label(colours == colour)
        for number, core in enumerate(ndimage.find_objects(labels), 1):
            top, left = (max(0, part.start - 3) for part in core)
            window = tuple(slice(max(0, part.start - 3), part.stop + 3) for part in core)
            cover = _cover(
                pixels[window], backdrop[window], labels[window] == number, colours[window] < 0
            )
            if cover is not None:
                blobs.append((COLOURS[colour] if colour < len(COLOURS) else None, cover, left, top))
    fit = fit_shape if len(blobs) <= _MAX_FITTED else _no_fit
    objects = []
    for name, cover, left, top in blobs:
        found = fit(cover)
        shape = found.shape if found.misfit < _MAX_MISFIT else None
        x, y, radius = found.x + left, found.y + top, found.radius
        objects.append(SeenObject(name, shape, x / IMAGE_SIZE, y / IMAGE_SIZE, radius / IMAGE_SIZE))
    objects.sort(key=lambda found: (found.y, found.x))
    return Seen(tuple(objects), _name_background(pixels[free]))


def _cover(pixels: Floats, backdrop: Floats, core: Mask, open_to_edge: Mask) -> Floats | None:
    """How much of each pixel an object covers, or None for dirt.

    Args:
        pixels: `(height, width, 3)`, a part of the picture.
        backdrop: the same without objects.
        core: `(height, width)`, pixels of the object's colour.
        open_to_edge: where, besides, the object's edge may be.
    """
    if core.sum() < _MIN_CORE:
        return None
    # The half of a soft core that differs most from the background is least mixed with it.
    contrast = np.linalg.norm(pixels[core] - backdrop[core], axis=-1)
    fill = np.median(pixels[core][contrast >= np.median(contrast)], axis=0)
    towards = fill - backdrop
    cover = ((pixels - backdrop) * towards).sum(axis=-1) / (towards**2).sum(axis=-1).clip(min=1)
    cover = np.where(core, np.maximum(cover, 0.5), cover).clip(0, 1)
    cover *= ndimage.binary_dilation(core, _NEIGHBOURS, iterations=2) & (core | open_to_edge)
    return cover if cover.sum() >= _MIN_AREA else None


def _no_fit(cover: Floats) -> Fit:
    """Place and size of a blob, without its shape."""
    area = float(cover.sum())
    y, x = ndimage.center_of_mass(cover)
    return Fit("", x + 0.5, y + 0.5, (area / np.pi) ** 0.5, np.inf, 0.0)


def _distance_to_backgrounds(pixels: Floats) -> Floats:
    """From each pixel to the nearest mixture of two backgrounds: `(height, width)`."""
    nearest = np.full(pixels.shape[:2], np.inf, dtype=np.float32)
    for one, other in combinations(_BACKDROPS, 2):
        along = other - one
        share = ((pixels - one) @ along / (along @ along)).clip(0, 1)
        nearest = np.minimum(
            nearest, np.linalg.norm(pixels - one - share[..., None] * along, axis=-1)
        )
    return nearest


def _name_background(pixels: Floats) -> str | None:
    """The name for pixels `(n, 3)` of the background."""
    best = int(np.linalg.norm(pixels.mean(axis=0) - _BACKDROPS, axis=-1).argmin())
    near = np.linalg.norm(pixels - _BACKDROPS[best], axis=-1) < _NAMED_DISTANCE
    return BACKGROUNDS[best] if near.mean() >= _NAMED_SHARE else None
