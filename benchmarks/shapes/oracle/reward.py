"""The oracle as a reward: what can be verified about a picture, as GenEval does for photographs.

A fine-tuning on it shows whether a method works at all: no preference model stands between what is
rewarded and what is right.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image

from stablepref.images.rgb import to_rgb
from stablepref.models.function import FunctionScorer

from ..world.drawing import IMAGE_SIZE
from ..world.language import parse
from .grading import ATTRIBUTES, Grade, grade

NAME = "oracle"
PARTIAL = 0.5
"""Share of the reward that half-right pictures can have."""

_parsed = lru_cache(maxsize=4096)(parse)


def grade_image(image: Image.Image, prompt: str) -> Grade:
    """What is right in a picture of any size; it is resized to the oracle's 64 pixels by area.

    Raises:
        PromptError: The prompt is not in the laboratory's grammar.
    """
    small = to_rgb(image).resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BOX)
    return grade(np.asarray(small), _parsed(prompt))


def credit(found: Grade, *, partial: float = PARTIAL) -> float:
    """The reward of a picture, from 0 to 1: 1 if and only if everything that is named is right.

    Args:
        found: What is right in it.
        partial: Share of the reward that is the share of the named attributes which are right;
            the rest is for pictures that are fully correct. From 0 to 1.
    """
    named = [right for name in ATTRIBUTES if (right := getattr(found, name)) is not None]
    return (1 - partial) * found.correct + partial * sum(named) / len(named)


def oracle_reward() -> FunctionScorer:
    """A scorer without gradient: `credit`, for prompts in the laboratory's grammar."""
    return FunctionScorer(_rewards, name=NAME, unit="share of what is right, 0 to 1")


def _rewards(images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
    return [
        credit(grade_image(image, prompt)) for image, prompt in zip(images, prompts, strict=True)
    ]
