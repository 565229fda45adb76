"""Questions about drawn scenes have the answers that they should, and errors are counted right."""

import random
import re
from collections.abc import Sequence
from typing import Any

import pytest
from PIL import Image

from stablepref.benchmarks.alignment.judge import Question
from stablepref.benchmarks.alignment.laboratory import (
    YES_OR_NO,
    error_rows,
    judge_errors,
    known_questions,
)
from stablepref.benchmarks.shapes.world.scenes import Group, Scene, sample_scene

ROW = Scene((Group(2, "red", "cross"), Group(1, "blue", "star")), "left of", None)


def asked(scene: Scene, seed: int = 0) -> dict[str, tuple[str, int]]:
    found = known_questions(scene, random.Random(seed))
    return {one.question.text: (one.skill, one.right) for one in found}


def test_questions_about_one_scene() -> None:
    seen: dict[str, tuple[str, int]] = {}
    for seed in range(30):
        seen |= asked(ROW, seed)
    end = " Answer in one word."
    assert seen["Is there a red cross in the image?" + end] == ("object", 0)
    assert seen["How many red crosses are in the image?" + end] == ("count", 1)
    assert seen["How many blue stars are in the image?" + end] == ("count", 0)
    assert seen["Are the crosses red?" + end] == ("attribute", 0)
    left = "Are the red crosses to the left of the blue star?" + end
    assert seen[left] == ("position", 0)
    right = "Is the blue star to the left of the red crosses?" + end
    assert seen[right] == ("position", 1)
    # Nothing that is asked with the answer No is there.
    for text, (skill, place) in seen.items():
        if skill == "object" and place == 1:
            assert "red cross" not in text
            assert "blue star" not in text
        if skill == "attribute" and place == 1:
            assert not re.search("crosses red|star blue", text)


def test_shapes_of_two_colours_are_not_asked_for_their_colour() -> None:
    scene = Scene((Group(1, "red", "star"), Group(1, "blue", "star")))
    assert all(skill != "attribute" for skill, _ in asked(scene).values())


class Stubborn:
    """A judge of one opinion: always the same option, as far as a question has it."""

    name = "stubborn"

    def __init__(self, place: int) -> None:
        self.place = place
        self.sizes: set[tuple[int, int]] = set()

    def settings(self) -> dict[str, Any]:
        return {"place": self.place}

    def __call__(
        self, image: Image.Image, questions: Sequence[Question]
    ) -> list[tuple[float, ...]]:
        self.sizes.add(image.size)
        return [tuple(float(n == self.place) for n in range(len(one.options))) for one in questions]


def test_the_error_rate_of_a_judge_that_says_yes() -> None:
    judge = Stubborn(0)
    errors = judge_errors(judge, scenes=12)
    assert judge.sizes == {(448, 448)}
    assert errors.false_yes.value == 1.0
    assert errors.false_no.value == 0.0
    assert errors.skills["object"].value == 0.5
    rng = random.Random("judge 0")
    wrong = total = 0
    for _ in range(12):
        scene = sample_scene(rng, "test")
        rng.getrandbits(48)
        for one in known_questions(scene, rng):
            total += 1
            wrong += one.right != 0
    assert errors.all.trials == total
    rows = {row[0]: row[1] for row in error_rows(errors)}
    assert rows["said Yes, true is No"] == 100
    assert 0 < wrong < total


def test_a_judge_that_knows_is_never_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    from stablepref.benchmarks.alignment import laboratory  # noqa: PLC0415

    answers: list[int] = []

    def remembered(scene: Scene, rng: random.Random) -> Any:  # noqa: ANN401
        found = known_questions(scene, rng)
        answers[:] = [one.right for one in found]
        return found

    monkeypatch.setattr(laboratory, "known_questions", remembered)

    class Knowing(Stubborn):
        def __call__(
            self, image: Image.Image, questions: Sequence[Question]
        ) -> list[tuple[float, ...]]:
            return [
                tuple(float(n == right) for n in range(len(one.options)))
                for one, right in zip(questions, answers, strict=True)
            ]

    errors = judge_errors(Knowing(0), scenes=8)
    assert errors.all.value == 0
    assert all(one.value == 0 for one in errors.skills.values())
    assert YES_OR_NO[0][0] == "Yes"
