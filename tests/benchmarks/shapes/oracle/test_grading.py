"""The oracle's grades are those that one gives by hand."""

import random

import numpy as np
import pytest

from stablepref.benchmarks.shapes.oracle.grading import grade, grade_seen
from stablepref.benchmarks.shapes.oracle.reading import Seen, SeenObject
from stablepref.benchmarks.shapes.world.drawing import render
from stablepref.benchmarks.shapes.world.errors import (
    GENERATOR_ERRORS,
    error_kinds,
    single_error,
)
from stablepref.benchmarks.shapes.world.language import parse
from stablepref.benchmarks.shapes.world.scenes import sample_scene


def test_noise_is_not_correct() -> None:
    noise = np.random.default_rng(0).normal(0, 40, (64, 64, 3)).cumsum(axis=0) + 120
    assert not grade((noise % 256).astype(np.uint8), parse("a red circle")).correct


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
