"""Scores in reduced precision against those in float32: the numbers by hand, and shapes."""

import math

import numpy as np
import pytest
import torch
from helpers.tiny import tiny_clip

from stablepref.benchmarks.precision import compare as precision
from stablepref.models.catalog import BY_NAME

PROMPTS = ["a red fox", "an old sailor, oil on canvas", "a logo of a bakery"]


def pictures(count: int = 8) -> list[object]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(3, 70, 90, generator=generator) for _ in range(count)]


def test_agreement_by_hand() -> None:
    # One prompt, four images: margins 0.01, 0.06, 2.06, 0.05, 2.05 and 2.0 in order of pairs.
    exact = np.array([[0.0], [0.01], [0.06], [2.06]])
    # The first two change places, and so do the second and the third.
    scores = np.array([[0.02], [0.015], [0.011], [2.0]])
    found = precision.agreement(exact, scores)
    assert found.mean_error == pytest.approx((0.02 + 0.005 + 0.049 + 0.06) / 4)
    assert found.max_error == pytest.approx(0.06)
    # Pairs 01, 02 and 12 are turned round, the three with the last image are kept.
    assert found.tau == pytest.approx(0.0)
    assert found.kept_all == pytest.approx(0.5)
    assert found.kept == (0.0, 0.0, None, None, 1.0)


def test_margins_fall_into_one_class_each() -> None:
    report = precision.compare(tiny_clip(), pictures(), PROMPTS, [])
    assert sum(report.pairs) == 3 * (8 * 7 // 2)
    assert math.isinf(precision.MARGINS[-1])


def test_the_bundled_model_keeps_order_where_it_is_sure() -> None:
    images, prompts = precision.shape_scenes(6)
    scorer = BY_NAME["shapes-clip"].build([]).float()
    report = precision.compare(scorer, images, prompts, ["bfloat16"])
    found = report.candidates["bfloat16"]
    assert found.kept[-1] == 1.0  # margins of a point and more
    assert found.mean_error < 0.01 * report.spread


def test_scenes_repeat_and_hold_errors() -> None:
    images, prompts = precision.shape_scenes(3)
    again, _ = precision.shape_scenes(3)
    assert len(prompts) == 3
    assert len(images) > 2 * len(prompts)
    assert all(np.array_equal(a, b) for a, b in zip(images, again, strict=True))
