"""Mistakes between a prompt's scene and a picture's, from single errors and worked by hand."""

import random

import pytest

from stablepref.benchmarks.shapes.people.alignment import (
    MISTAKE_COSTS,
    find_mistakes,
    mistakes_cost,
)
from stablepref.benchmarks.shapes.world.errors import (
    GENERATOR_ERRORS,
    error_kinds,
    single_error,
)
from stablepref.benchmarks.shapes.world.language import parse
from stablepref.benchmarks.shapes.world.scenes import sample_scene

PLACES = {"left-right", "above-below", "axis"}


def mistakes(prompt: str, picture: str) -> dict[str, int]:
    """The kinds that occur."""
    found = find_mistakes(parse(prompt), parse(picture))
    assert list(found) == list(MISTAKE_COSTS)
    return {kind: number for kind, number in found.items() if number}


def test_a_single_error_is_one_mistake_of_its_kind() -> None:
    rng = random.Random(0)
    seen = set()
    for _ in range(300):
        scene = sample_scene(rng)
        assert not any(find_mistakes(scene, scene).values())
        for kind in error_kinds(scene, GENERATOR_ERRORS):
            found = find_mistakes(scene, single_error(scene, kind, rng))
            seen.add(kind)
            expected = {"relation" if kind in PLACES else kind: 1}
            if kind == "binding":
                expected = {"colour": 2}
            elif kind == "repeated":
                expected = {"count": 1}
            assert {name: number for name, number in found.items() if number} == expected
    assert seen == set(GENERATOR_ERRORS)


@pytest.mark.parametrize(
    ("prompt", "picture", "expected"),
    [
        ("a red circle", "a red circle on a teal background", {}),
        ("a red circle on a pink background", "a red circle", {"background": 1}),
        ("a red circle", "three red circles", {"count": 2}),
        ("a large red circle", "a small red circle", {"size": 1}),
        ("a red circle", "a large red circle", {}),
        # The star is the square, wrong twice, and not one missing and one extra.
        ("a red circle and a blue square", "a red circle and a green star",
         {"colour": 1, "shape": 1}),
        ("a red circle left of a blue square", "a blue square", {"missing": 1}),
        ("from left to right: a red circle, a blue square and a green star",
         "a red circle left of a green star", {"missing": 1}),
        ("from left to right: a red circle, a blue square and a green star",
         "a green star left of a red circle", {"missing": 1, "relation": 1}),
        # A whole row turned round is one relation.
        ("from left to right: a red circle, a blue square and a green star",
         "from right to left: a red circle, a blue square and a green star", {"relation": 1}),
        ("a red circle left of a blue square", "a blue circle left of a red square", {"colour": 2}),
        # Two wrong colours would explain it too, but cost more than the turned relation.
        ("a red circle left of a blue circle", "a blue circle left of a red circle",
         {"relation": 1}),
        ("two red circles and a blue square on a pink background",
         "from left to right: a red circle, an orange square and a black ring",
         {"colour": 1, "count": 1, "extra": 1, "background": 1}),
        # Nothing promises where the two stand.
        ("a red circle above a blue square", "a red circle and a blue square", {"relation": 1}),
    ],
)  # fmt: skip
def test_mistakes_worked_by_hand(prompt: str, picture: str, expected: dict[str, int]) -> None:
    assert mistakes(prompt, picture) == expected


def test_costs_add_up() -> None:
    found = find_mistakes(
        parse("two red circles and a blue square on a pink background"),
        parse("from left to right: a red circle, an orange square and a black ring"),
    )
    # Colour 1.0, count 0.8, extra 0.8, background 0.6.
    assert mistakes_cost(found) == pytest.approx(3.2)
