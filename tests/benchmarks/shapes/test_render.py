"""The command that draws a prompt, right and wrong."""

import pytest

from stablepref.benchmarks.shapes.render import draw_prompt

PROMPT = "a red circle left of a blue square"


def test_the_first_picture_of_a_prompt_is_the_correct_one() -> None:
    labels = [label for label, _ in draw_prompt(PROMPT, n=9)]
    assert labels[0] == "correct"
    assert all(label.startswith("wrong-") for label in labels[1:])
    assert len(set(labels[1:7])) == 6


def test_equal_seeds_draw_equal_pictures() -> None:
    drawn, again = (list(draw_prompt(PROMPT, n=9)) for _ in range(2))
    assert all(a.tobytes() == b.tobytes() for (_, a), (_, b) in zip(drawn, again, strict=True))


def test_no_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="1 or more"):
        next(draw_prompt(PROMPT, n=0))
