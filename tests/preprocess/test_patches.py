"""Patches for vision-language models: bit-equal to the official pipeline, and differentiable."""

import hashlib
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from helpers.places import RECORDS
from PIL import Image
from torch import Tensor

from stablepref.benchmarks.parity import hps_v3
from stablepref.preprocess.patches import (
    PATCH_PROTOCOLS,
    Patches,
    PatchPreprocess,
    PatchProtocol,
    cut_patches,
    join_patches,
)

RECORD: dict[str, Any] = json.loads((RECORDS / "hps-v3-tiny.json").read_text(encoding="utf-8"))
SMALL = PatchProtocol(4 * 4 * 4, 9 * 4 * 4, patch=2, merge=2, rule="qwen-vl-utils")


def as_pixels(image: Image.Image, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).to(dtype) / 255


@pytest.mark.parametrize("case", RECORD["patches"], ids=lambda case: str(case["shape"]))
def test_exact_patches_equal_the_official_ones_bit_for_bit(case: dict[str, Any]) -> None:
    image = hps_v3.picture(*case["shape"])
    preprocess = PatchPreprocess("hps-v3")
    if "error" in case:
        with pytest.raises(ValueError, match="too long and narrow"):
            preprocess.exact(image)
        return
    found = preprocess.exact(image)
    assert [1, found.rows, found.columns] == case["grid"]
    assert hashlib.sha256(found.values.numpy().tobytes()).hexdigest() == case["sha256"]


def test_the_record_holds_refusals_and_every_branch() -> None:
    """Or the test above would show less than it says."""
    assert sum("error" in case for case in RECORD["patches"]) >= 2
    areas = [case["grid"][1] * case["grid"][2] for case in RECORD["patches"] if "grid" in case]
    assert min(areas) < 1024 < max(areas)  # reduced and enlarged ones


@pytest.mark.parametrize("rule", ["bilinear", "lanczos", "rounded"])
def test_another_resize_gives_other_patches(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = RECORD["patches"][1]
    preprocess = PatchPreprocess("hps-v3")
    if rule == "rounded":  # without scaling to the bounds
        monkeypatch.setattr(PatchProtocol, "fit", lambda _, h, w: (h // 28 * 28, w // 28 * 28))
    else:
        resize, other = Image.Image.resize, getattr(Image.Resampling, rule.upper())
        monkeypatch.setattr(Image.Image, "resize", lambda self, size, _: resize(self, size, other))
    found = preprocess.exact(hps_v3.picture(*case["shape"]))
    assert hashlib.sha256(found.values.numpy().tobytes()).hexdigest() != case["sha256"]


@pytest.mark.parametrize("shape", [(448, 448), (512, 512), (300, 700), (37, 90), (640, 97)])
def test_differentiable_patches_differ_by_eight_bits_at_most(shape: tuple[int, int]) -> None:
    """Pillow rounds after each of two passes: less than two steps of 1/255, before the division."""
    image = hps_v3.picture(*shape)
    preprocess = PatchPreprocess("hps-v3")
    (found,) = preprocess(as_pixels(image)[None])
    exact = preprocess.exact(image)
    assert (found.rows, found.columns) == (exact.rows, exact.columns)
    difference = (found.values - exact.values).abs().max() * preprocess.std.max()
    assert difference < (1e-6 if shape == (448, 448) else 2 / 255)


def test_patches_are_cut_as_counted_by_hand() -> None:
    """A picture of 8 x 8 with patches of 2 in tokens of 2 x 2 patches."""
    image = torch.arange(8 * 8.0).reshape(1, 1, 8, 8).expand(1, 3, 8, 8)
    (cut,) = cut_patches(image, PatchProtocol(1, 100, patch=2, merge=2))
    assert (cut.rows, cut.columns) == (4, 4)
    corners = cut.values[:, 0].tolist()  # upper left pixel of each patch's first frame and channel
    token = [0, 2, 16, 18]
    assert corners == [c + shift for shift in (0, 4, 32, 36) for c in token]
    first = cut.values[0].reshape(3, 2, 2, 2)
    assert torch.equal(first[:, 0], first[:, 1])  # the two frames
    assert first[0, 0].tolist() == [[0, 1], [8, 9]]


def test_gradient_in_pixels_by_finite_differences() -> None:
    """Of pictures and of mirrored and fractional views, in float64, along random directions."""
    torch.manual_seed(0)
    preprocess = PatchPreprocess("small", SMALL).double()
    pixels = 0.25 + 0.5 * torch.rand(2, 3, 7, 10, dtype=torch.float64)
    boxes = torch.tensor([[[0.0, 0.0, 1.0, 1.0], [0.1, 0.2, 0.9, 1.0]]] * 2, dtype=torch.float64)
    flips = torch.tensor([[False, True]] * 2)

    def total(pixels: Tensor) -> Tensor:
        own = [one.values for one in preprocess(pixels)]
        views = [view.values for views in preprocess(pixels, boxes, flips) for view in views]
        flat = torch.cat([*own, *views]).flatten()
        weights = torch.sin(torch.arange(len(flat), dtype=torch.float64))
        return (weights * flat**2).sum()

    (gradient,) = torch.autograd.grad(total(pixels.requires_grad_()), pixels)
    pixels = pixels.detach()
    for _ in range(4):
        step = 1e-6 * torch.randn_like(pixels)
        numeric = total(pixels + step) - total(pixels - step)
        assert torch.isclose(2 * (gradient * step).sum(), numeric, rtol=1e-6)


def test_a_view_is_the_crop_through_the_whole_protocol() -> None:
    """Whole pixels: the crop cut out beforehand gives the same patches."""
    pixels = as_pixels(hps_v3.picture(300, 200))[None]
    preprocess = PatchPreprocess("hps-v3")
    boxes = torch.tensor([[[0.1, 0.2, 0.9, 0.7], [0.0, 0.0, 1.0, 1.0]]], dtype=torch.float64)
    ((cut, mirrored),) = preprocess(pixels, boxes, torch.tensor([[False, True]]))
    (crop,) = preprocess(pixels[:, :, 60:210, 20:180])
    assert (cut.rows, cut.columns) == (crop.rows, crop.columns)
    assert torch.allclose(cut.values, crop.values, atol=2e-5)
    (flipped,) = preprocess(pixels.flip(-1))
    assert torch.allclose(mirrored.values, flipped.values, atol=2e-5)


def test_pictures_of_many_sizes_are_prepared_as_alone() -> None:
    pictures = [as_pixels(hps_v3.picture(*shape)) for shape in ((60, 40), (40, 60), (30, 30))]
    preprocess = PatchPreprocess("hps-v3")
    together = preprocess(pictures)
    for picture, found in zip(pictures, together, strict=True):
        (alone,) = preprocess(picture[None])
        assert torch.equal(alone.values, found.values)
    stacked = preprocess(torch.stack(pictures[:1] * 3))
    assert all(torch.allclose(one.values, together[0].values, atol=1e-6) for one in stacked)


def test_views_of_a_square_stay_square() -> None:
    """Rounding in a fractional side must not cost a row of tokens."""
    details = PATCH_PROTOCOLS["hps-v3"]
    for share in np.random.default_rng(0).uniform(0.5, 1, 200):
        assert details.fit(512 * share, 512 * share * (1 + 1e-15)) == (448, 448)


def test_no_picture_has_more_tokens_than_most_tokens() -> None:
    random = np.random.default_rng(0)
    shapes = [(1, n) for n in range(1, 201)]
    shapes += [tuple(map(int, shape)) for shape in random.integers(1, 400, (3000, 2))]
    most = 0
    for height, width in shapes:
        if max(height, width) > 200 * min(height, width):
            continue
        try:
            sides = PATCH_PROTOCOLS["hps-v3"].fit(height, width)
        except ValueError:
            continue
        most = max(most, math.prod(sides) // 28**2)
    assert 400 < most <= PATCH_PROTOCOLS["hps-v3"].most_tokens == 454


@pytest.mark.parametrize(
    ("pixels", "error", "says"),
    [
        (torch.zeros(1, 3, 1, 300), ValueError, "300 x 1 is too long and narrow"),
        (torch.zeros(3, 8, 8), ValueError, r"expected \(batch, 3, H, W\)"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), TypeError, "expected floating point"),
    ],
)
def test_unusable_pixels(pixels: Tensor, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        PatchPreprocess("hps-v3")(pixels)


def test_unknown_protocol() -> None:
    with pytest.raises(ValueError, match="known are: hps-v3"):
        PatchPreprocess("hps-v4")


def test_constants_stay_exact_in_half_precision() -> None:
    preprocess = PatchPreprocess("hps-v3").to(torch.bfloat16)
    assert preprocess.mean.dtype == torch.float32


def test_join_patches() -> None:
    one = Patches(torch.zeros(4, 12), 2, 2)
    batch = join_patches([one, Patches(torch.ones(8, 12), 2, 4)])
    assert batch.values.shape == (12, 12)
    assert batch.grid.tolist() == [[1, 2, 2], [1, 2, 4]]
