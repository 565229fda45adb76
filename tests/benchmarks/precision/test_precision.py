"""The precision benchmark: its numbers by hand, and its candidates on tiny models."""

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tiny import tiny_clip
from torch import nn
from torch.nn import functional

from stablepref.benchmarks.precision import __main__ as precision
from stablepref.benchmarks.precision.candidates import CANDIDATES
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


@pytest.mark.parametrize("name", CANDIDATES)
def test_candidates_change_scores_a_little_and_leave_the_scorer_alone(name: str) -> None:
    scorer = tiny_clip()
    before = {key: value.clone() for key, value in scorer.state_dict().items()}
    flag = torch.backends.mkldnn.matmul.fp32_precision  # type: ignore[attr-defined] # no stub
    report = precision.compare(scorer, pictures(), PROMPTS, [name])
    found = report.candidates[name]
    assert found.mean_error < 0.1 * report.spread
    assert found.tau > 0.7
    assert flag == torch.backends.mkldnn.matmul.fp32_precision  # type: ignore[attr-defined]
    for key, value in scorer.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, before[key])
    if name != "float32, bfloat16 products":  # it may be computed in float32 all the same
        assert found.mean_error > 0


def test_bfloat16_throughout_is_open_clips_own() -> None:
    scorer = tiny_clip()
    inputs = torch.randn(4, 3, 64, 64)
    plain = copy.deepcopy(scorer.model).bfloat16()
    with torch.no_grad(), CANDIDATES["bfloat16 throughout"](scorer) as candidate:
        expected = functional.normalize(plain.visual(inputs.bfloat16()).float(), dim=-1)
        assert torch.equal(candidate.encode_inputs(inputs), expected)
    with torch.no_grad(), CANDIDATES["bfloat16"](scorer) as candidate:
        assert not torch.equal(candidate.encode_inputs(inputs), expected)


def test_float32_norms_keep_their_exact_weights() -> None:
    scorer = tiny_clip()
    with torch.no_grad():
        for module in scorer.modules():
            if isinstance(module, nn.LayerNorm):
                module.weight.uniform_(0.5, 1.5)
    with CANDIDATES["bfloat16 throughout, norms float32"](scorer) as candidate:
        norms = [m for m in candidate.modules() if isinstance(m, nn.LayerNorm)]
        exact = [m for m in scorer.modules() if isinstance(m, nn.LayerNorm)]
        assert all(torch.equal(a.weight, b.weight) for a, b in zip(norms, exact, strict=True))
        assert candidate.dtype == torch.bfloat16


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


def test_main_refuses_unknown_names(tmp_path: Path) -> None:
    with pytest.raises(precision.typer.BadParameter, match="'nobody' is not one of 'shapes-clip'"):
        precision.main(tmp_path, models=["nobody"])
