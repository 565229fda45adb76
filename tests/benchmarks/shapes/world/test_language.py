"""Prompts say what the scene is, in all paraphrases, and parse back to it."""

import random

import pytest

from stablepref.benchmarks.shapes.world.language import EXAMPLES, PromptError, describe, parse
from stablepref.benchmarks.shapes.world.scenes import Group, Scene, sample_scene

CIRCLE = Group(1, "red", "circle")
SQUARE = Group(1, "blue", "square")
STAR = Group(1, "green", "star")
LEFT = Scene((CIRCLE, SQUARE), "left of")
ABOVE = Scene((CIRCLE, SQUARE), "above")


def test_every_paraphrase_parses_back_to_its_scene() -> None:
    rng = random.Random(0)
    for _ in range(1500):
        scene = sample_scene(rng)
        prompt = describe(scene, rng)
        assert prompt == prompt.lower()
        assert parse(prompt) == scene, prompt
        assert parse(describe(scene)) == scene


def test_scenes_have_many_paraphrases() -> None:
    rng = random.Random(0)
    scene = Scene((CIRCLE, SQUARE), "left of", "grey")
    assert len({describe(scene, rng) for _ in range(2000)}) >= 60


@pytest.mark.parametrize(
    ("prompt", "scene"),
    [
        ("a red circle", Scene((CIRCLE,))),
        ("One red circle.", Scene((CIRCLE,))),
        ("an  orange star", Scene((Group(1, "orange", "star"),))),
        ("three green crosses", Scene((Group(3, "green", "cross"),))),
        ("a photo of a small red circle", Scene((Group(1, "red", "circle", "small"),))),
        ("two large white rings on a gray background",
         Scene((Group(2, "white", "ring", "large"),), None, "grey")),
        ("on a teal background, a blue square with a red circle",
         Scene((CIRCLE, SQUARE), None, "teal")),
        ("a green star, a blue square and a red circle", Scene((CIRCLE, SQUARE, STAR))),
        ("a red circle left of a blue square", LEFT),
        ("a red circle to the left of a blue square", LEFT),
        ("A  red circle left of a blue square.", LEFT),
        ("a blue square left of a red circle", Scene((SQUARE, CIRCLE), "left of")),
        ("a blue square right of a red circle", LEFT),
        ("a blue square on the right of a red circle", LEFT),
        ("a red circle on the left and a blue square on the right", LEFT),
        ("a blue square on the right and a red circle on the left", LEFT),
        ("a red circle above a blue square", ABOVE),
        ("a red circle on top of a blue square", ABOVE),
        ("a blue square below a red circle", ABOVE),
        ("a blue square beneath a red circle", ABOVE),
        ("a blue square at the bottom and a red circle at the top", ABOVE),
        ("from left to right: a red circle, a blue square and a green star",
         Scene((CIRCLE, SQUARE, STAR), "left of")),
        ("from right to left: a red circle, a blue square and a green star",
         Scene((STAR, SQUARE, CIRCLE), "left of")),
        ("from top to bottom: a red circle, a blue square, and a green star",
         Scene((CIRCLE, SQUARE, STAR), "above")),
        ("from bottom to top: a red circle, a blue square and a green star",
         Scene((STAR, SQUARE, CIRCLE), "above")),
    ],
)  # fmt: skip
def test_prompts_mean_what_they_say(prompt: str, scene: Scene) -> None:
    assert parse(prompt) == scene


def test_plainest_words() -> None:
    assert describe(LEFT) == "a red circle left of a blue square"
    assert describe(Scene((Group(1, "orange", "ring"),))) == "an orange ring"
    assert describe(Scene((Group(4, "black", "cross"),), None, "pink")) == (
        "four black crosses on a pink background"
    )


def test_opposite_prompts_mean_different_scenes() -> None:
    assert parse("a red circle left of a blue square") != parse(
        "a red circle right of a blue square"
    )
    assert parse("a red circle over a blue square") != parse("a red circle under a blue square")


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("an astronaut riding a horse", "'an astronaut riding a horse' is not a number"),
        ("", "is not a number"),
        ("a mauve circle", "'a mauve circle' is not a number"),
        ("nine red circles", "'nine red circles' is not a number"),
        ("a red circle over", "'a red circle over' is not a number"),
        ("two red circle", "number and noun do not agree"),
        ("a red circles", "number and noun do not agree"),
        ("a red circle and a red circle", "same colour and shape"),
        ("four red circles and four blue squares", "at most 6 objects"),
        ("a red circle left of a blue square left of a green star", "is not a number"),
    ],
)
def test_prompts_outside_the_grammar_say_why_and_show_examples(prompt: str, reason: str) -> None:
    with pytest.raises(PromptError) as caught:
        parse(prompt)
    assert reason in str(caught.value)
    assert all(example in str(caught.value) for example in EXAMPLES)


def test_the_examples_can_be_drawn() -> None:
    assert len({parse(example) for example in EXAMPLES}) == len(EXAMPLES)
