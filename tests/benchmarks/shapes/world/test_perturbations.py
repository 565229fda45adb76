"""Perturbations that leave prompts true."""

import numpy as np
import pytest
from PIL import Image

from stablepref.augment.perturbations import PERTURBATIONS as ALL
from stablepref.benchmarks.shapes.oracle.grading import grade
from stablepref.benchmarks.shapes.world.drawing import render
from stablepref.benchmarks.shapes.world.language import parse
from stablepref.benchmarks.shapes.world.perturbations import CROPS, PERTURBATIONS


def test_they_are_the_papers_without_its_flips() -> None:
    assert len(CROPS) == 4
    assert len(PERTURBATIONS) == 10
    assert set(PERTURBATIONS) <= set(ALL)
    assert {f"hflip+{name}" for name in CROPS} <= set(ALL)


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_left_stays_left(name: str) -> None:
    scene = parse("a large red circle left of a large blue square on a grey background")
    picture = ALL[name](Image.fromarray(render(scene, seed=0)))
    assert grade(np.asarray(picture.resize((64, 64))), scene).relation
