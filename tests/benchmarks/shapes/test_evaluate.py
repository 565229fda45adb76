"""Measuring a model of the laboratory, and the bundled one."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.typed import refused, typed
from numpy.typing import NDArray

from stablepref.assets import ASSETS
from stablepref.benchmarks.shapes.evaluate import main, model_scorer, pair_accuracy, retrieval
from stablepref.benchmarks.shapes.oracle.reading import read_picture

SHAPES = ASSETS / "shapes-clip"


def test_the_bundled_model_is_small_and_finds_its_prompt() -> None:
    assert sum(path.stat().st_size for path in SHAPES.iterdir()) <= 8_000_000
    assert retrieval(model_scorer(SHAPES), rounds=1).value > 0.8


def test_the_bundled_model_sees_single_errors() -> None:
    found = pair_accuracy(model_scorer(SHAPES), prompts=40)
    assert found["all"].value > 0.9
    assert found["left-right"].value > 0.8


def test_errors_that_only_generators_make_are_measured_if_asked_for() -> None:
    def fewest(pictures: Sequence[NDArray[np.uint8]], prompts: Sequence[str]) -> torch.Tensor:
        assert len(prompts) == 1
        return torch.tensor([[-float(len(read_picture(each).objects))] for each in pictures])

    found = pair_accuracy(fewest, prompts=40, kinds=("repeated",), quiet=True)
    assert set(found) == {"all", "repeated"}
    assert found["repeated"].value > 0.95  # what was drawn twice has more objects
    assert found["all"] == found["repeated"]
    assert 20 < found["all"].trials < 40  # not every scene has an object that can be repeated


def test_the_command_measures_by_name(tmp_path: Path) -> None:
    few = ("--prompts", 6, "--rounds", 1, "--json", tmp_path / "n.json")
    typed(main, "shapes", "--kind", "repeated", "--kind", "colour", *few)
    numbers = json.loads((tmp_path / "n.json").read_text())
    assert list(numbers["pairs"]) == ["all", "repeated", "colour"]
    assert "'colours' is not one of colour, shape" in refused(main, "--kind", "colours", *few)


@pytest.mark.slow
def test_the_bundled_model_sees_single_errors_in_full() -> None:
    assert pair_accuracy(model_scorer(SHAPES), prompts=500)["all"].low > 0.9
