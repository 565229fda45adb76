"""Slight changes of a picture by name, to measure how stable a scorer's choices are.

Each takes an 8-bit RGB PIL image and returns one, so that any scorer, official code included, can
be evaluated under them, and each is deterministic. ``hflip+crop-0.97`` to ``hflip+crop-0.9`` are
those of Table 1 of *Stable Preference*: mirrored, then cut to a central box whose sides have that
ratio to the picture's. The others are perturbations that training never saw.

A package adds its own through the entry points ``stablepref.perturbations``, each a `Perturbation`
under its own name, and a program by `register_perturbation`.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, final

from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from stablepref.runtime.registry import Registry

_BLUR_REFERENCE_SIDE = 512


@final
@dataclass(frozen=True)
class Perturbation:
    """One perturbation; calling it changes a picture.

    Attributes:
        name: In options, tables and files.
        function: Takes an 8-bit RGB PIL image and returns one, of any size; the same for the same
            picture. It is called by several threads at once.
        words: What it does to a picture, such as "10 % darker".
        mirrors: Whether left becomes right, so that a prompt that names a side may no longer fit.
    """

    name: str
    function: Callable[[Image.Image], Image.Image]
    words: str = ""
    mirrors: bool = False

    def __call__(self, image: Image.Image) -> Image.Image:
        """The changed picture.

        Raises:
            ValueError: The picture is not RGB.
            TypeError: `function` returned something else than an RGB PIL image.
        """
        changed = self.function(image)
        if not isinstance(changed, Image.Image) or changed.mode != "RGB":
            kind = getattr(changed, "mode", type(changed).__name__)
            raise TypeError(
                f"the perturbation {self.name!r} returned {kind}; expected an RGB PIL image"
            )
        return changed


def hflip(image: Image.Image) -> Image.Image:
    """Mirror left to right."""
    return ImageOps.mirror(_require_rgb(image))


def centre_crop(image: Image.Image, *, side_ratio: float) -> Image.Image:
    """Cut to a central box with sides of ``side_ratio`` times the picture's, in whole pixels."""
    old = _require_rgb(image).size
    width, height = (max(1, round(side * side_ratio)) for side in old)
    left, top = round((old[0] - width) / 2), round((old[1] - height) / 2)
    return image.crop((left, top, left + width, top + height))


def hflip_and_centre_crop(image: Image.Image, *, side_ratio: float) -> Image.Image:
    """Mirror left to right, then `centre_crop`."""
    return centre_crop(hflip(image), side_ratio=side_ratio)


def jpeg(image: Image.Image, *, quality: int) -> Image.Image:
    """Compress as JPEG of that quality, with halved colour resolution (4:2:0), and decode."""
    buffer = io.BytesIO()
    _require_rgb(image).save(buffer, format="JPEG", quality=quality, subsampling="4:2:0")
    with Image.open(buffer) as decoded:
        return decoded.convert("RGB")


def blur(image: Image.Image, *, radius: float) -> Image.Image:
    """Gaussian blur whose standard deviation is ``radius`` pixels per 512 of the short side."""
    scale = min(_require_rgb(image).size) / _BLUR_REFERENCE_SIDE
    return image.filter(ImageFilter.GaussianBlur(radius * scale))


def brightness(image: Image.Image, *, factor: float) -> Image.Image:
    """Multiply every value by ``factor``, cut off at white."""
    return ImageEnhance.Brightness(_require_rgb(image)).enhance(factor)


def resize_round_trip(image: Image.Image, *, ratio: float) -> Image.Image:
    """Bicubic to ``ratio`` times both sides, and back."""
    width, height = _require_rgb(image).size
    smaller = max(1, round(width * ratio)), max(1, round(height * ratio))
    bicubic = Image.Resampling.BICUBIC
    return image.resize(smaller, bicubic).resize((width, height), bicubic)


def _require_rgb(image: Image.Image) -> Image.Image:
    if not isinstance(image, Image.Image):
        raise TypeError(f"got {type(image).__name__}; expected a PIL image")
    if image.mode != "RGB":
        raise ValueError(f"got a PIL image of mode {image.mode}; convert it to RGB first")
    return image


_SIDE_RATIOS = (0.97, 0.95, 0.93, 0.9)

_ROWS = (
    *(
        Perturbation(
            f"hflip+crop-{ratio:g}",
            partial(hflip_and_centre_crop, side_ratio=ratio),
            f"mirrored, and {ratio:.0%} of each side".replace("%", " %"),
            mirrors=True,
        )
        for ratio in _SIDE_RATIOS
    ),
    *(
        Perturbation(
            f"crop-{ratio:g}",
            partial(centre_crop, side_ratio=ratio),
            f"the middle {ratio:.0%} of each side".replace("%", " %"),
        )
        for ratio in _SIDE_RATIOS
    ),
    Perturbation("hflip", hflip, "mirrored", mirrors=True),
    Perturbation("jpeg-75", partial(jpeg, quality=75), "JPEG of quality 75"),
    Perturbation("jpeg-50", partial(jpeg, quality=50), "JPEG of quality 50"),
    Perturbation("blur-1", partial(blur, radius=1.0), "slightly blurred"),
    Perturbation("brightness-0.9", partial(brightness, factor=0.9), "10 % darker"),
    Perturbation("brightness-1.1", partial(brightness, factor=1.1), "10 % brighter"),
    Perturbation(
        "resize-0.5", partial(resize_round_trip, ratio=0.5), "shrunk to half and enlarged"
    ),
)

PERTURBATIONS: Final = Registry[Perturbation](
    "perturbation", "stablepref.perturbations", {row.name: row for row in _ROWS}
)
"""All perturbations by name: those above, then those that others add."""

TABLE_1: Final = tuple(f"hflip+crop-{ratio:g}" for ratio in _SIDE_RATIOS)
"""The rows of Table 1, in its order."""

UNSEEN: Final = ("jpeg-75", "jpeg-50", "blur-1", "brightness-0.9", "brightness-1.1", "resize-0.5")
"""Perturbations that training with weak views, which mirror and crop, never saw."""

MIRRORING: Final = frozenset(row.name for row in _ROWS if row.mirrors)
"""Those above that mirror; of others `Perturbation.mirrors` says so."""


def find_perturbation(name: str) -> Perturbation:
    """The perturbation of this name.

    Raises:
        ValueError: There is none; the message lists the known ones.
        ImportError: It belongs to an installed package and cannot be loaded.
        TypeError: An installed package gives something else under this name.
    """
    if name not in PERTURBATIONS:
        known = ", ".join(PERTURBATIONS)
        raise ValueError(f"unknown perturbation {name!r}; expected one of: {known}")
    found: object = PERTURBATIONS[name]
    if not isinstance(found, Perturbation) or found.name != name:
        given = f"one named {found.name!r}" if isinstance(found, Perturbation) else repr(found)
        raise TypeError(
            f"the entry point {name!r} of {PERTURBATIONS.group} is {given}; expected a "
            f"stablepref.augment.Perturbation named {name!r}"
        )
    return found


def register_perturbation(perturbation: Perturbation) -> None:
    """Make a perturbation known by its name in this process, as for `stablepref.evaluate`.

    Raises:
        TypeError: It is not a `Perturbation`.
        ValueError: Its name is empty or belongs to another one.
    """
    if not isinstance(perturbation, Perturbation):
        raise TypeError(
            f"got {perturbation!r}; expected a stablepref.augment.Perturbation(name, function)"
        )
    PERTURBATIONS.register(perturbation.name, perturbation)
