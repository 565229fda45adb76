"""Mistakes read from pixels are those of the scene that was drawn."""

import random

import pytest

from stablepref.benchmarks.shapes.oracle.mistakes import seen_mistakes
from stablepref.benchmarks.shapes.oracle.reading import Seen, SeenObject, read_picture
from stablepref.benchmarks.shapes.people.alignment import (
    MISTAKE_COSTS,
    find_mistakes,
    mistakes_cost,
)
from stablepref.benchmarks.shapes.world.drawing import render
from stablepref.benchmarks.shapes.world.errors import GENERATOR_ERRORS, error_kinds, single_error
from stablepref.benchmarks.shapes.world.language import parse
from stablepref.benchmarks.shapes.world.scenes import sample_scene


def seen(*objects: tuple[str, float, float], background: str | None = None) -> Seen:
    """Objects of a colour and a shape, medium-sized, at places."""
    found = []
    for words, x, y in objects:
        colour, shape = words.split()
        found.append(
            SeenObject(
                None if colour == "?" else colour, None if shape == "?" else shape, x, y, 0.13
            )
        )
    return Seen(tuple(found), background)


RED, BLUE = ("red circle", 0.2, 0.5), ("blue square", 0.8, 0.5)


@pytest.mark.parametrize(
    ("prompt", "shown", "mistakes"),
    [
        ("a red circle", seen(RED), {}),
        ("a red circle", seen(), {"missing": 1}),
        ("a red circle", seen(RED, ("red circle", 0.7, 0.5)), {"count": 1}),
        ("a red circle", seen(RED, BLUE), {"extra": 1}),
        ("a red circle", seen(RED, BLUE, ("blue square", 0.5, 0.2)), {"extra": 1}),
        ("a red circle", seen(("? circle", 0.5, 0.5)), {"colour": 1}),
        ("a red circle", seen(("red ?", 0.5, 0.5)), {"shape": 1}),
        ("three red circles", seen(RED), {"count": 2}),
        ("a large red circle and a blue square", seen(RED, BLUE), {"size": 1}),
        ("a red circle left of a blue square", seen(RED, BLUE), {}),
        ("a blue square left of a red circle", seen(RED, BLUE), {"relation": 1}),
        ("a red circle left of a blue square", seen(RED), {"missing": 1}),
        ("a red circle on a pink background", seen(RED, background="teal"), {"background": 1}),
        ("a red circle on a pink background", seen(RED, background="pink"), {}),
    ],
)
def test_by_hand(prompt: str, shown: Seen, mistakes: dict[str, int]) -> None:
    found = seen_mistakes(shown, parse(prompt))
    assert list(found) == list(MISTAKE_COSTS)
    assert {kind: number for kind, number in found.items() if number} == mistakes


def test_a_drawn_error_costs_what_it_costs_in_the_scene() -> None:
    # Where two matches are about as good, as of three groups of which two are wrong, the pixels may
    # be read the other way; one error in a scene is not of that kind.
    rng = random.Random("mistakes")
    for _ in range(12):
        scene = sample_scene(rng)
        for kind in error_kinds(scene, GENERATOR_ERRORS):
            shown = single_error(scene, kind, rng)
            picture = read_picture(render(shown, seed=rng.getrandbits(32)))
            expected = mistakes_cost(find_mistakes(scene, shown))
            assert mistakes_cost(seen_mistakes(picture, scene)) == pytest.approx(expected), kind
