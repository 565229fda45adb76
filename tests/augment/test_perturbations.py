"""Perturbations by name: geometry by hand, the rest by what it must and must not change."""

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms.functional import center_crop, hflip

from stablepref.augment.perturbations import MIRRORING, PERTURBATIONS, TABLE_1


def picture(width: int = 96, height: int = 64) -> Image.Image:
    """Smooth colours with fine texture and one bright corner."""
    y, x = np.mgrid[0:height, 0:width]
    texture = np.random.default_rng(0).normal(0, 15, (height, width, 3))
    values = np.stack([2 * x, 3 * y, x + y], -1) * 200 / (width + 2 * height) + 30 + texture
    values[:8, :8] = 255
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def grey_levels(a: Image.Image, b: Image.Image) -> float:
    """Mean absolute difference in levels of 255."""
    return float(np.abs(np.asarray(a, dtype=float) - np.asarray(b, dtype=float)).mean())


def test_table_1_rows_are_the_papers() -> None:
    assert tuple(f"hflip+crop-{r}" for r in ("0.97", "0.95", "0.93", "0.9")) == TABLE_1
    assert set(TABLE_1) < set(PERTURBATIONS)


@pytest.mark.parametrize(
    ("ratio", "side"), [("0.97", 497), ("0.95", 486), ("0.93", 476), ("0.9", 461)]
)
def test_table_1_mirrors_and_crops_the_centre(ratio: str, side: int) -> None:
    image = picture(512, 512)
    cropped = center_crop(image, [side, side])
    assert PERTURBATIONS[f"crop-{ratio}"](image).tobytes() == cropped.tobytes()
    both = PERTURBATIONS[f"hflip+crop-{ratio}"](image)
    assert both.size == (side, side)
    assert both.tobytes() == center_crop(hflip(image), [side, side]).tobytes()


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_slight_deterministic_and_pure(name: str) -> None:
    image = picture()
    before = image.tobytes()
    first, again = PERTURBATIONS[name](image), PERTURBATIONS[name](picture())
    assert image.tobytes() == before
    assert first.mode == "RGB"
    assert first.tobytes() == again.tobytes()
    assert (first.size, first.tobytes()) != (image.size, before)
    back = hflip(first) if name in MIRRORING else first
    assert grey_levels(back.resize(image.size), image) < 20
    # Undoing the mirror must bring the picture back; not undoing it must not.
    if name in MIRRORING:
        assert grey_levels(first.resize(image.size), image) > 25


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_smallest_picture(name: str) -> None:
    assert PERTURBATIONS[name](Image.new("RGB", (1, 1), "red")).size == (1, 1)


def test_brightness_and_blur_do_what_they_say() -> None:
    grey = Image.new("RGB", (8, 8), (100, 200, 250))
    assert PERTURBATIONS["brightness-0.9"](grey).getpixel((3, 3)) == (90, 180, 225)
    assert PERTURBATIONS["brightness-1.1"](grey).getpixel((3, 3)) == (110, 220, 255)
    spot = Image.new("RGB", (512, 600))
    spot.putpixel((256, 300), (255, 255, 255))
    blurred = np.asarray(PERTURBATIONS["blur-1"](spot))[..., 0].astype(float)
    x = np.arange(512)
    across = blurred.sum(axis=0) / blurred.sum()
    assert abs((across * (x - 256) ** 2).sum() - 1) < 0.2, "the variance is one pixel squared"


def test_compression_and_resizing_lose_fine_detail() -> None:
    image = picture()
    assert grey_levels(PERTURBATIONS["jpeg-50"](image), image) > grey_levels(
        PERTURBATIONS["jpeg-75"](image), image
    )
    expected = image.resize((48, 32), Image.Resampling.BICUBIC)
    expected = expected.resize((96, 64), Image.Resampling.BICUBIC)
    assert PERTURBATIONS["resize-0.5"](image).tobytes() == expected.tobytes()


def test_refuses_what_is_not_an_rgb_picture() -> None:
    for perturbation in PERTURBATIONS.values():
        with pytest.raises(ValueError, match="mode RGBA"):
            perturbation(Image.new("RGBA", (8, 8)))
        with pytest.raises(TypeError, match="ndarray"):
            perturbation(np.zeros((8, 8, 3), np.uint8))  # type: ignore[arg-type] # the mistake
