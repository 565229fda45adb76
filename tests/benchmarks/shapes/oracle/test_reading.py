"""The oracle reads pictures that others draw, and its grades are those one gives by hand."""

import random
from pathlib import Path

import numpy as np
import pytest
import typer
from helpers.painted import painted

from stablepref.benchmarks.shapes.oracle.__main__ import (
    Seen,
    SeenObject,
    check_oracle,
    grade,
    grade_seen,
    main,
    read_picture,
)
from stablepref.benchmarks.shapes.world.drawing import render
from stablepref.benchmarks.shapes.world.errors import (
    GENERATOR_ERRORS,
    error_kinds,
    single_error,
)
from stablepref.benchmarks.shapes.world.language import parse
from stablepref.benchmarks.shapes.world.scenes import sample_scene

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
    assert not grade((noise % 256).astype(np.uint8), parse("a red circle")).correct


def test_backgrounds_have_a_name_only_if_plain() -> None:
    assert read_picture(painted(TEAL)) == Seen((), "teal")
    assert read_picture(painted(TEAL, ("rectangle", "#745032", [0, 0, 32, 64]))).background is None
    assert read_picture(np.full((64, 64, 3), (22, 22, 22), np.uint8)).background is None


def test_other_arrays_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got \(32, 32, 3\) uint8; resize"):
        read_picture(np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(ValueError, match="float64"):
        read_picture(np.zeros((64, 64, 3)))  # type: ignore[arg-type]


def test_drawn_scenes_are_graded_right_and_single_errors_wrong() -> None:
    rng = random.Random("test oracle")
    kinds = set()
    sized = parse("a large red heart and a small red star")
    for scene in [sized, *(sample_scene(rng) for _ in range(20))]:
        assert grade(render(scene, seed=rng.getrandbits(32)), scene).correct, scene
        for kind in error_kinds(scene, GENERATOR_ERRORS):
            wrong = single_error(scene, kind, rng)
            assert not grade(render(wrong, seed=rng.getrandbits(32)), scene).correct, (scene, wrong)
            kinds.add(kind)
    assert kinds == set(GENERATOR_ERRORS)


def one(name: str, x: float, y: float, radius: float = 0.13) -> SeenObject:
    colour, shape = name.split()
    return SeenObject(colour, shape, x, y, radius)


LEFT, RIGHT = one("red circle", 0.2, 0.5), one("blue square", 0.8, 0.5)


@pytest.mark.parametrize(
    ("prompt", "objects", "wrong"),
    [
        ("a red circle left of a blue square", [LEFT, RIGHT], set()),
        ("a red circle left of a blue square", [LEFT, one("blue square", 0.5, 0.9)], {"relation"}),
        ("a blue square left of a red circle", [LEFT, RIGHT], {"relation"}),
        ("a blue square and a red circle", [LEFT, RIGHT], set()),
        ("a blue square", [LEFT, RIGHT], {"count"}),
        ("two red circles", [LEFT], {"count"}),
        ("two red circles", [LEFT, one("red circle", 0.7, 0.2)], set()),
        ("two red circles", [LEFT, one("red ring", 0.7, 0.2)], {"shape"}),
        ("a red circle", [one("green circle", 0.5, 0.5)], {"colour"}),
        ("a red circle", [], {"count", "colour", "shape"}),
        ("a red circle on a grey background", [LEFT], set()),
        ("a red circle on a teal background", [LEFT], {"background"}),
        ("a large red circle", [LEFT], {"size"}),
        ("a large red circle", [one("red circle", 0.5, 0.5, 0.2)], set()),
        ("a small red circle", [one("red circle", 0.5, 0.5, 0.09)], set()),
        # Exchanged colours: two wrong colours, or two wrong shapes.
        (
            "a blue circle and a red square",
            [LEFT, RIGHT],
            {"colour"},
        ),
        # A column of two above one, and the same with one of them too low.
        (
            "two red circles above a blue square",
            [LEFT, one("red circle", 0.5, 0.3), one("blue square", 0.4, 0.9)],
            set(),
        ),
        (
            "two red circles above a blue square",
            [
                one("red circle", 0.5, 0.1),
                one("red circle", 0.8, 0.8),
                one("blue square", 0.6, 0.7),
            ],
            {"relation"},
        ),
    ],
)
def test_grades_by_hand(prompt: str, objects: list[SeenObject], wrong: set[str]) -> None:
    found = grade_seen(Seen(tuple(objects), "grey"), parse(prompt))
    assert {name for name, value in vars(found).items() if value is False} == wrong
    assert found.correct == (not wrong)


def test_the_check_counts_kinds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    accuracies, blamed = check_oracle("blurred", scenes=3, quiet=True)
    assert accuracies["correct"].trials == accuracies["colour"].trials == 3
    assert blamed["colour"]["colour"] == 1
    main(scenes=1, split="test", seed=0, out=tmp_path / "oracle.json")
    assert "noisy" in capsys.readouterr().out
    assert (tmp_path / "oracle.json").read_text().count('"correct"') == 3
    with pytest.raises(typer.BadParameter, match="train, validation, test"):
        main(scenes=1, split="tset")
