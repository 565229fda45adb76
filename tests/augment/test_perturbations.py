"""Perturbations by name: geometry by hand, the rest by what it must and must not change."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.commandline import draw_pictures, run
from helpers.plugin import install_plugin
from helpers.shades import ShadeScorer, shades
from PIL import Image, ImageOps
from torchvision.transforms.functional import center_crop, hflip

from stablepref.augment.perturbations import (
    MIRRORING,
    PERTURBATIONS,
    TABLE_1,
    Perturbation,
    find_perturbation,
    register_perturbation,
)
from stablepref.evaluation.evaluate import evaluate


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


@pytest.mark.parametrize("name", list(PERTURBATIONS))
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


@pytest.mark.parametrize("name", list(PERTURBATIONS))
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
    for name in PERTURBATIONS:
        with pytest.raises(ValueError, match="mode RGBA"):
            PERTURBATIONS[name](Image.new("RGBA", (8, 8)))
        with pytest.raises(TypeError, match="ndarray"):
            PERTURBATIONS[name](np.zeros((8, 8, 3), np.uint8))  # type: ignore[arg-type] # the mistake


def test_every_row_has_words_and_mirrors_where_it_says_so() -> None:
    left_red = Image.new("RGB", (64, 64), "blue")
    left_red.paste("red", (0, 0, 32, 64))
    for name in PERTURBATIONS:
        row = PERTURBATIONS[name]
        assert row.name == name
        assert row.words
        red, _, blue = row(left_red).resize((4, 4)).getpixel((0, 0))  # type: ignore[misc]
        assert (blue > red) == row.mirrors == (name in MIRRORING)


@pytest.fixture
def registered() -> Iterator[Perturbation]:
    row = Perturbation("upside-down", ImageOps.flip, "turned upside down")
    register_perturbation(row)
    yield row
    PERTURBATIONS.unregister(row.name)


def test_one_of_your_own_is_known_by_its_name(registered: Perturbation) -> None:
    assert find_perturbation("upside-down") is registered
    image = picture()
    assert registered(image).tobytes() == ImageOps.flip(image).tobytes()
    register_perturbation(registered)  # again is no mistake
    with pytest.raises(ValueError, match="'upside-down' is the name of another perturbation"):
        register_perturbation(Perturbation("upside-down", ImageOps.mirror))
    with pytest.raises(ValueError, match="'hflip' is the name of another perturbation"):
        register_perturbation(Perturbation("hflip", ImageOps.flip))


def test_mistakes_of_your_own_are_named() -> None:
    with pytest.raises(TypeError, match=r"expected a stablepref.augment.Perturbation\(name, "):
        register_perturbation(ImageOps.flip)  # type: ignore[arg-type] # the mistake
    with pytest.raises(ValueError, match="unknown perturbation 'none'; expected one of: hflip"):
        find_perturbation("none")
    for function, says in (
        (np.asarray, "'wrong' returned ndarray"),
        (ImageOps.grayscale, "'wrong' returned L; expected an RGB PIL image"),
    ):
        with pytest.raises(TypeError, match=says):
            Perturbation("wrong", function)(picture())


PLUGIN = """
from PIL import ImageOps
from stablepref.augment.perturbations import Perturbation

half = Perturbation("half-dark", lambda image: image.point(lambda v: v // 2), "half as bright")
mirrored = Perturbation("their-mirror", ImageOps.mirror, "mirrored", mirrors=True)
function = ImageOps.mirror
other_name = half
"""


def test_an_installed_package_adds_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = {
        "half-dark": "half",
        "their-mirror": "mirrored",
        "a-function": "function",
        "renamed": "other_name",
        "missing": "none",
    }
    install_plugin(tmp_path, monkeypatch, PLUGIN, {"stablepref.perturbations": entries})
    assert set(entries) < set(PERTURBATIONS)
    grey = Image.new("RGB", (4, 4), (100, 200, 250))
    assert find_perturbation("half-dark")(grey).getpixel((0, 0)) == (50, 100, 125)
    with pytest.raises(TypeError, match=r"'a-function' of stablepref.perturbations is <function"):
        find_perturbation("a-function")
    with pytest.raises(TypeError, match=r"'renamed' of .* is one named 'half-dark'"):
        find_perturbation("renamed")
    with pytest.raises(ImportError, match="perturbation 'missing' of the package from_outside"):
        find_perturbation("missing")
    # By name in Python: a group that names a side does not count where theirs mirrors.
    groups = [shades("a hat", (3, 2), (1, 2)), shades("on the left", (3, 2), (1, 2))]
    report = evaluate(ShadeScorer(), groups, perturbations=("their-mirror", "half-dark"))
    assert [(row.name, row.left_out) for row in report.disturbed] == [
        ("their-mirror", 1),
        ("half-dark", 0),
    ]
    assert report.scored[0].scores[2].tolist() == pytest.approx([1, 1])  # 3 and 2, halved


def test_an_installed_perturbation_on_the_command_line(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "package"
    folder.mkdir()
    entries = {"half-dark": "half"}
    install_plugin(folder, monkeypatch, PLUGIN, {"stablepref.perturbations": entries})
    pictures = draw_pictures(tmp_path)
    row = {"prompt": "x", "images": [path.name for path in pictures[:2]], "ranks": [1, 2]}
    (tmp_path / "data.jsonl").write_text(json.dumps(row) + "\n")
    arguments = ("eval", tmp_path / "data.jsonl", "-s", model, "--json", "--perturbations")
    done = run(*arguments, "half-dark,hflip")
    assert done.returncode == 0, done.stderr
    (report,) = json.loads(done.stdout)["models"]
    assert [found["name"] for found in report["perturbations"]] == ["half-dark", "hflip"]
    (every,) = json.loads(run(*arguments, "all").stdout)["models"]
    assert "half-dark" in [found["name"] for found in every["perturbations"]]
    done = run(*arguments, "half-darc")
    assert done.returncode != 0
    assert "--perturbations has 'half-darc'" in done.stderr
    assert "half-dark" in done.stderr
