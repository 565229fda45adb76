"""Emulated products round once, and are those of a unit that sums in float32."""

import torch
from helpers.tiny import tiny_clip
from torch.nn import functional

from stablepref.benchmarks.precision.precision_emulation import EmulatedProducts


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
