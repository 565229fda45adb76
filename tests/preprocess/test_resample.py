"""The bicubic matrices against hand-worked values, a naive loop and torch's own resizing."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from stablepref.preprocess.resample import Axis, apply_weights, bicubic_kernel, weight_matrices


def axis(start: float, stop: float, length: int, offset: int = 0, *, flip: bool = False) -> Axis:
    """A single resampling."""
    numbers = torch.tensor([start, stop, length, offset], dtype=torch.float64)[:, None]
    return Axis(numbers[0], numbers[1], numbers[2], numbers[3], torch.tensor([flip]))


def matrix(one: Axis, inputs: int, outputs: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """The matrix of a single resampling over all input pixels."""
    return weight_matrices(one, outputs, (0, inputs), dtype=dtype, device="cpu")[0]


def naive_weights(inputs: int, outputs: int) -> Tensor:
    """Bicubic weights pixel by pixel, with the window bounds of Pillow's documentation."""

    def kernel(x: float) -> float:
        x = abs(x)
        if x < 1:
            return 1.5 * x**3 - 2.5 * x**2 + 1
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0

    scale = inputs / outputs
    stretch = max(scale, 1.0)
    weights = torch.zeros(outputs, inputs, dtype=torch.float64)
    for i in range(outputs):
        centre = (i + 0.5) * scale
        first = max(int(centre - 2 * stretch + 0.5), 0)
        last = min(int(centre + 2 * stretch + 0.5), inputs)
        for j in range(first, last):
            weights[i, j] = kernel((j + 0.5 - centre) / stretch)
        weights[i] /= weights[i].sum()
    return weights


def test_kernel_has_the_values_of_its_formula() -> None:
    distance = torch.tensor([0.0, 0.5, -0.5, 1.0, 1.5, -1.5, 2.0, 7.0])
    expected = torch.tensor([1.0, 0.5625, 0.5625, 0.0, -0.0625, -0.0625, 0.0, 0.0])
    torch.testing.assert_close(bicubic_kernel(distance), expected, rtol=0, atol=0)


@pytest.mark.parametrize(("inputs", "outputs"), [(13, 5), (512, 224), (5, 13), (7, 7), (3, 1)])
def test_matrix_equals_naive_loop(inputs: int, outputs: int) -> None:
    expected = naive_weights(inputs, outputs)
    whole = axis(0, inputs, outputs)
    torch.testing.assert_close(matrix(whole, inputs, outputs), expected, rtol=0, atol=1e-12)
    single = matrix(whole, inputs, outputs, torch.float32).double()
    torch.testing.assert_close(single, expected, rtol=0, atol=5e-7)


def test_equal_length_is_the_identity() -> None:
    assert torch.equal(matrix(axis(0, 9, 9), 9, 9, torch.float32), torch.eye(9))


def test_padding_is_black_and_cropping_drops_samples() -> None:
    full = matrix(axis(0, 10, 6), 10, 6)
    padded = matrix(axis(0, 10, 6, offset=-2), 10, 9)
    assert torch.equal(padded[2:8], full)
    assert not padded[:2].any()
    assert not padded[8:].any()
    assert torch.equal(matrix(axis(0, 10, 6, offset=1), 10, 4), full[1:5])


def test_box_reads_nothing_outside_and_equals_cropping() -> None:
    box = matrix(axis(3, 9, 4), 12, 4)
    torch.testing.assert_close(box[:, 3:9], naive_weights(6, 4), rtol=0, atol=1e-12)
    assert not box[:, :3].any()
    assert not box[:, 9:].any()


def test_partly_covered_pixel_counts_by_its_covered_part() -> None:
    """From 0.25 on, pixel 0 is three quarters inside; worked by hand for one sample of two."""
    weights = matrix(axis(0.25, 2.0, 1), 2, 1)[0]
    centre, stretch = 1.125, 1.75
    raw = bicubic_kernel(torch.tensor([(0.5 - centre) / stretch, (1.5 - centre) / stretch]))
    raw = raw * torch.tensor([0.75, 1.0])
    torch.testing.assert_close(weights, (raw / raw.sum()).double(), rtol=0, atol=1e-7)


def test_flip_reverses_the_box() -> None:
    plain = matrix(axis(2, 11, 5), 12, 5)
    mirrored = matrix(axis(2, 11, 5, flip=True), 12, 5)
    torch.testing.assert_close(mirrored, plain.flip(0), rtol=0, atol=1e-12)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("start", "stop", "length", "offset"), [(0, 90, 30, 11), (7, 80, 90, 40)])
def test_window_holds_every_pixel_that_is_read(
    start: float, stop: float, length: int, offset: int, *, flip: bool
) -> None:
    one = axis(start, stop, length, offset, flip=flip)
    first, last = one.window(8, 90)
    weights = matrix(one, 90, 8)
    narrow = weight_matrices(one, 8, (first, last), dtype=torch.float64, device="cpu")[0]
    torch.testing.assert_close(narrow, weights[:, first:last], rtol=0, atol=1e-14)
    assert not weights[:, :first].any()
    assert not weights[:, last:].any()
    assert last - first < 60, "the window should leave out most of what is cropped away"


@pytest.mark.parametrize("clamp", [False, True])
@pytest.mark.parametrize("to", [(5, 9), (31, 40)])
def test_two_passes_equal_torch_interpolate(to: tuple[int, int], *, clamp: bool) -> None:
    torch.manual_seed(0)
    pixels = torch.rand(2, 3, 17, 23, dtype=torch.float64).round()  # hard edges overshoot
    expected = functional.interpolate(pixels, (17, to[1]), mode="bicubic", antialias=True)
    expected = expected.clamp(0, 1) if clamp else expected
    expected = functional.interpolate(expected, to, mode="bicubic", antialias=True)
    expected = expected.clamp(0, 1) if clamp else expected
    rows, columns = matrix(axis(0, 17, to[0]), 17, to[0]), matrix(axis(0, 23, to[1]), 23, to[1])
    resized = apply_weights(pixels, rows[None, None], columns[None, None], clamp=clamp)[:, 0]
    torch.testing.assert_close(resized, expected, rtol=0, atol=1e-12)
    each = (rows.expand(2, 1, -1, -1), columns.expand(2, 1, -1, -1))
    torch.testing.assert_close(apply_weights(pixels, *each, clamp=clamp)[:, 0], expected)
