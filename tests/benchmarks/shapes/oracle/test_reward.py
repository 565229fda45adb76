"""The oracle as a reward: worked by hand, and of pictures of any size."""

import numpy as np
import pytest
from PIL import Image

from stablepref.benchmarks.shapes.oracle.grading import Grade
from stablepref.benchmarks.shapes.oracle.reward import credit, grade_image, oracle_reward
from stablepref.benchmarks.shapes.world.drawing import render
from stablepref.benchmarks.shapes.world.language import PromptError, parse


def test_credit_by_hand() -> None:
    """Two of three named attributes are right: half of two thirds. Relations may be unnamed."""
    half_right = Grade(count=True, colour=False, shape=True)
    assert credit(half_right) == pytest.approx(1 / 3)
    assert credit(half_right, partial=0) == 0
    assert credit(half_right, partial=1) == pytest.approx(2 / 3)
    one_of_five = Grade(count=True, colour=False, shape=False, relation=False, background=False)
    assert credit(one_of_five) == pytest.approx(0.1)
    assert credit(Grade(count=True, colour=True, shape=True, size=True)) == 1


def test_the_reward_is_of_what_a_picture_shows() -> None:
    prompt = "a red circle left of a blue square"
    right = Image.fromarray(render(parse(prompt), seed=1))
    reverse = Image.fromarray(render(parse("a blue square left of a red circle"), seed=1))
    scores = oracle_reward().score([right, reverse, right.resize((256, 256))], prompt)
    # Count, colours and shapes are right, and the order of the groups is not: half of 3 / 4.
    np.testing.assert_allclose(scores, [1, 0.375, 1])
    assert grade_image(right, prompt).correct


def test_another_prompt_is_no_reward() -> None:
    picture = Image.fromarray(render(parse("a red circle"), seed=1))
    with pytest.raises(RuntimeError, match="PromptError"):
        oracle_reward().score(picture, "a photograph of a dog")
    with pytest.raises(PromptError):
        grade_image(picture, "a photograph of a dog")
