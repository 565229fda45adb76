"""The oracle reads pictures that others draw."""

import numpy as np
import pytest
from helpers.painted import painted

from stablepref.benchmarks.shapes.oracle.reading import Seen, read_picture

# Colours of a painter who has not seen the renderer's table.
GREY, RED, BLUE, WHITE, TEAL = "#8c8c8c", "#dc2828", "#2850d2", "#f4f4f4", "#54949c"


def test_painted_pictures_are_read() -> None:
    seen = read_picture(
        painted(
            GREY,
            ("ellipse", RED, [6, 10, 22, 26]),
            ("rectangle", BLUE, [40, 36, 56, 52]),
            ("polygon", WHITE, [44, 6, 54, 20, 44, 34, 34, 20]),
        )
    )
    found = {(one.colour, one.shape): one for one in seen.objects}
    assert set(found) == {("red", "circle"), ("blue", "square"), ("white", "diamond")}
    red, blue = found["red", "circle"], found["blue", "square"]
    assert (red.x * 64, red.y * 64) == pytest.approx((14, 18), abs=0.3)
    assert (blue.x * 64, blue.y * 64) == pytest.approx((48, 44), abs=0.3)
    # The renderer's circle has 0.9 of the radius around it, its square half a side of 0.78.
    assert red.radius * 64 == pytest.approx(8 / 0.9, rel=0.03)
    assert blue.radius * 64 == pytest.approx(8 / 0.78, rel=0.03)
    assert seen.background == "grey"


def test_a_ring_is_read_with_its_hole_and_a_disc_in_it_is_an_object() -> None:
    ring = ("ellipse", RED, [16, 16, 44, 44]), ("ellipse", GREY, [23, 23, 37, 37])
    (one,) = read_picture(painted(GREY, *ring)).objects
    assert (one.colour, one.shape) == ("red", "ring")
    both = read_picture(painted(GREY, *ring, ("ellipse", BLUE, [25, 25, 35, 35]))).objects
    assert {(o.colour, o.shape) for o in both} == {("red", "ring"), ("blue", "circle")}


def test_blobs_are_objects_without_shape_or_colour() -> None:
    (bar,) = read_picture(painted(GREY, ("rectangle", RED, [4, 30, 60, 35]))).objects
    assert (bar.colour, bar.shape) == ("red", None)
    (odd,) = read_picture(painted(GREY, ("ellipse", "#30e0e0", [20, 20, 40, 40]))).objects
    assert odd.colour is None
    assert not read_picture(painted(GREY, ("rectangle", RED, [30, 30, 32, 32]))).objects


def test_noise_is_no_scene() -> None:
    noise = np.random.default_rng(0).normal(0, 40, (64, 64, 3)).cumsum(axis=0) + 120
    seen = read_picture((noise % 256).astype(np.uint8))
    assert len(seen.objects) > 12
    assert {found.shape for found in seen.objects} == {None}


def test_backgrounds_have_a_name_only_if_plain() -> None:
    assert read_picture(painted(TEAL)) == Seen((), "teal")
    assert read_picture(painted(TEAL, ("rectangle", "#745032", [0, 0, 32, 64]))).background is None
    assert read_picture(np.full((64, 64, 3), (22, 22, 22), np.uint8)).background is None


def test_other_arrays_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got \(32, 32, 3\) uint8; resize"):
        read_picture(np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(ValueError, match="float64"):
        read_picture(np.zeros((64, 64, 3)))  # type: ignore[arg-type]
