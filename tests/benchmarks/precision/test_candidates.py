"""The ways of reduced precision on tiny models; emulated products are those of a matrix unit."""

import copy

import pytest
import torch
from helpers.tiny import tiny_clip
from torch import nn
from torch.nn import functional

from stablepref.benchmarks.precision.candidates import (
    CANDIDATES,
    EmulatedProducts,
    int8_linear,
    rounded_rows,
)
from stablepref.benchmarks.precision.compare import compare

PROMPTS = ["a red fox", "an old sailor, oil on canvas", "a logo of a bakery"]


def pictures(count: int = 8) -> list[object]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(3, 70, 90, generator=generator) for _ in range(count)]


def test_a_product_is_summed_exactly_and_rounded_once() -> None:
    """256 + 1 + 1 ... in bfloat16 would stay 256: one is half of the spacing there."""
    ones = torch.ones(1, 257, dtype=torch.bfloat16)
    ones[0, 0] = 256
    weight = torch.ones(1, 257, dtype=torch.bfloat16)
    for guard in (torch.inference_mode(), torch.enable_grad()):
        with guard, EmulatedProducts():
            found = functional.linear(ones, weight)
            assert found.dtype == torch.bfloat16
            assert found.item() == 512


def test_every_kind_of_product_is_rounded_from_float32() -> None:
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).bfloat16()

    a, b, bias = drawn(5, 40), drawn(7, 40), drawn(7)
    query, key, value = (drawn(1, 2, 6, 8) for _ in range(3))
    pictures, kernels = drawn(1, 3, 9, 9), drawn(4, 3, 3, 3)
    wide = [part.float() for part in (a, b, bias, query, key, value, pictures, kernels)]
    with torch.inference_mode(), EmulatedProducts():
        found = (
            functional.linear(a, b, bias),
            a @ b.T,
            functional.scaled_dot_product_attention(query, key, value),
            functional.conv2d(pictures, kernels),
        )
    expected = (
        functional.linear(wide[0], wide[1], wide[2]),
        wide[0] @ wide[1].T,
        functional.scaled_dot_product_attention(wide[3], wide[4], wide[5]),
        functional.conv2d(wide[6], wide[7]),
    )
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other.bfloat16())


def test_float32_is_left_alone() -> None:
    scorer, pixels = tiny_clip(), torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        plain = scorer(pixels, ["a", "b"])
        with EmulatedProducts():
            torch.testing.assert_close(scorer(pixels, ["a", "b"]), plain)


@pytest.mark.parametrize("name", CANDIDATES)
def test_candidates_change_scores_a_little_and_leave_the_scorer_alone(name: str) -> None:
    scorer = tiny_clip()
    before = {key: value.clone() for key, value in scorer.state_dict().items()}
    flag = torch.backends.mkldnn.matmul.fp32_precision  # type: ignore[attr-defined] # no stub
    report = compare(scorer, pictures(), PROMPTS, [name])
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


def test_rows_are_rounded_to_255_levels_of_their_own() -> None:
    found = rounded_rows(torch.tensor([[1.0, -2.54, 0.51], [0.0, 0.0, 0.0], [127.0, 0.4, -0.6]]))
    expected = torch.tensor([[1.0, -2.54, 0.52], [0.0, 0.0, 0.0], [127.0, 0.0, -1.0]])
    torch.testing.assert_close(found, expected)  # 0.51 / 0.02 is 25.5, and even is 26


def test_an_int8_product_is_that_of_whole_numbers() -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 3, 16), torch.randn(5, 16), torch.randn(5)
    steps = x.abs().amax(-1, keepdim=True) / 127, weight.abs().amax(-1, keepdim=True) / 127
    whole = (x / steps[0]).round().to(torch.int32), (weight / steps[1]).round().to(torch.int32)
    expected = (whole[0] @ whole[1].T) * steps[0] * steps[1].T + bias
    torch.testing.assert_close(int8_linear(x, weight, bias), expected)
    torch.testing.assert_close(int8_linear(x, weight), expected - bias)
