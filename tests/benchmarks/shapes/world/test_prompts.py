"""The laboratory's prompt set: held out, in the grammar, and each prompt in its category."""

from collections import Counter

import pytest

from stablepref.benchmarks.shapes.world.language import parse
from stablepref.benchmarks.shapes.world.prompts import CATEGORIES, LabPrompt, lab_prompts
from stablepref.benchmarks.shapes.world.scenes import split_of

COLOURS = {"red", "orange", "yellow", "green", "blue", "purple", "black", "white"}
SHAPES = ["circle", "square", "triangle", "diamond", "star", "cross", "ring", "heart"]


@pytest.fixture(scope="module")
def prompts() -> list[LabPrompt]:
    return lab_prompts()


def test_two_hundred_held_out_prompts(prompts: list[LabPrompt]) -> None:
    assert len(prompts) == len({one.scene for one in prompts}) == 200
    assert len({one.prompt for one in prompts}) == 200
    assert Counter(one.category for one in prompts) == dict.fromkeys(CATEGORIES, 20)
    assert all(split_of(one.scene) == "test" for one in prompts)
    assert all(parse(one.prompt) == one.scene for one in prompts)


def test_they_stay_the_same(prompts: list[LabPrompt]) -> None:
    few = lab_prompts(per_category=2)
    assert few == [one for index, one in enumerate(prompts) if index % 20 < 2]
    # Written down: the set must not change, or numbers of different versions do not compare.
    assert prompts[0].prompt == FIRST


FIRST = "on a grey background, a large red star"


def nouns(prompt: str) -> list[str]:
    words = prompt.replace(",", "").split()
    singular = [
        word.removesuffix("es") if word == "crosses" else word.removesuffix("s") for word in words
    ]
    return [
        shape
        for word, stem in zip(words, singular, strict=True)
        for shape in SHAPES
        if shape in (word, stem)
    ]


def test_words_fit_the_category(prompts: list[LabPrompt]) -> None:
    for one in prompts:
        words = one.prompt.replace(",", "").replace(":", "").split()
        found, colours = nouns(one.prompt), [word for word in words if word in COLOURS]
        assert len(found) == len(colours) == len(one.scene.groups)
        many = {"two", "three", "four"} & {*words}
        match one.category:
            case "single object":
                assert len(found) == 1
                assert not many
            case "counting":
                assert len(found) == 1
                assert many
            case "colour binding":
                assert len({*found}) == len({*colours}) == 2
            case "shared attribute":
                assert len({*found}) + len({*colours}) == 3
            case "left and right":
                assert {"left", "right"} & {*words}
                assert len(found) == 2
            case "above and below":
                below = {"above", "over", "top", "below", "under", "beneath", "bottom"}
                assert below & {*words}
                assert len(found) == 2
            case "sizes":
                assert {"small", "large"} & {*words}
                assert len(found) == 2
            case "backgrounds":
                assert "background" in words
            case "three objects" | "rows and columns of three":
                assert len(found) == 3
                assert not many
                assert ("from" in words) == (one.category == "rows and columns of three")


def test_validation_prompts_are_others(prompts: list[LabPrompt]) -> None:
    other = lab_prompts("validation", per_category=2)
    assert len(other) == 20
    assert all(split_of(one.scene) == "validation" for one in other)
