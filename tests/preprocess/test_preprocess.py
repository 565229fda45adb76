"""The differentiable form of the protocols, and the module around it."""

import copy
from functools import partial

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from stablepref.preprocess.preprocess import Preprocess
from stablepref.preprocess.protocols import CLIP_MEAN, PROTOCOLS


@pytest.fixture(autouse=True)
def _seed() -> None:
    """The same random pictures in every run."""
    torch.manual_seed(0)


def test_clip_clamps_and_hps_does_not() -> None:
    stripes = (torch.arange(90) // 9 % 2).double().expand(1, 3, 90, 90)
    plain = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    clip = Preprocess("clip", 60, **plain)(stripes)
    hps = Preprocess("hps", 60, **plain)(stripes)
    assert clip.min() == 0
    assert 1 - 1e-12 <= clip.max() <= 1
    assert hps.min() < -0.005
    assert hps.max() > 1.005
    torch.testing.assert_close(clip, hps.clamp(0, 1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_model_size_passes_unchanged(protocol: str) -> None:
    pixels = torch.rand(2, 3, 48, 48)
    same = Preprocess(protocol, 48, mean=(0.0,) * 3, std=(1.0,) * 3)(pixels)
    assert torch.equal(same, pixels)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_many_sizes_at_once_equal_one_at_a_time(protocol: str) -> None:
    preprocess = Preprocess(protocol, 40)
    pixels = [torch.rand(3, *hw) for hw in ((50, 50), (90, 31), (20, 64), (41, 40), (3, 2))]
    together = preprocess(pixels)
    for one, row in zip(pixels, together, strict=True):
        torch.testing.assert_close(row, preprocess(one[None])[0], rtol=0, atol=3e-6)


@pytest.mark.parametrize("as_list", [False, True])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_views_equal_cropping_first(protocol: str, *, as_list: bool) -> None:
    """Crops at whole pixels, in float32 fractions of awkward sizes, mirrored or not."""
    preprocess = Preprocess(protocol, 32)
    sizes = [(61, 87), (61, 87), (61, 87)] if not as_list else [(61, 87), (45, 39), (33, 120)]
    pixels = [torch.rand(3, *hw) for hw in sizes]
    crops = torch.tensor([[0, 0, 1, 1], [3, 5, 34, 33], [2, 1, 29, 32], [7, 8, 39, 20]])
    flips = torch.tensor([[False, True, True, False]] * 3)
    boxes = torch.empty(3, 4, 4)
    for index, (height, width) in enumerate(sizes):
        boxes[index] = crops / torch.tensor([width, height, width, height])
        boxes[index, 0] = torch.tensor([0, 0, 1, 1])
    views = preprocess(pixels if as_list else torch.stack(pixels), boxes, flips)
    assert views.shape == (3, 4, 3, 32, 32)
    for image, row in zip(pixels, views, strict=True):
        for (left, top, right, bottom), flip, view in zip(crops, flips[0], row, strict=True):
            whole = right == 1
            crop = image if whole else image[:, top:bottom, left:right]
            crop = crop.flip(-1) if flip else crop
            torch.testing.assert_close(view, preprocess(crop[None])[0], rtol=0, atol=3e-6)


def test_flip_alone_mirrors_the_whole_picture() -> None:
    preprocess = Preprocess("clip", 32)
    pixels = torch.rand(2, 3, 40, 51)
    views = preprocess(pixels, hflip=torch.tensor([[True], [False]]))
    torch.testing.assert_close(views[0, 0], preprocess(pixels.flip(-1))[0], atol=3e-6, rtol=0)
    torch.testing.assert_close(views[1, 0], preprocess(pixels)[1], atol=3e-6, rtol=0)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_arithmetic_stays_in_float32(half: torch.dtype) -> None:
    pixels = torch.rand(2, 3, 50, 40).to(half)
    preprocess = Preprocess("clip", 32)
    expected = preprocess(pixels.float())
    assert preprocess(pixels).dtype == torch.float32
    assert torch.equal(preprocess(pixels), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(preprocess(pixels), expected)
    assert preprocess(pixels.double()).dtype == torch.float64


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_finite_differences(protocol: str) -> None:
    """Along random directions of all pixels and outputs: one wrong entry changes them."""
    # Away from 0 and 1, where clamping has kinks.
    pixels = [0.3 + 0.4 * torch.rand(3, *hw).double() for hw in ((8, 6), (5, 9))]
    preprocess = Preprocess(protocol, 4)
    boxes = torch.tensor([[[0, 0, 1, 1], [0.1, 0.05, 0.93, 0.9]]] * 2, dtype=torch.float64)
    flips = torch.tensor([[False, True], [True, False]])
    pixels = [p.requires_grad_() for p in pixels]
    check = partial(torch.autograd.gradcheck, fast_mode=True)
    assert check(lambda *p: preprocess(list(p)), pixels)
    assert check(lambda *p: preprocess(list(p), boxes, flips), pixels)
    same = torch.stack([p.detach()[:, :5, :6] for p in pixels]).requires_grad_()
    assert check(preprocess, same)


def test_clamped_pixels_get_no_gradient() -> None:
    pixels = torch.full((1, 3, 8, 8), 1.5, requires_grad=True)
    Preprocess("clip", 4)(pixels).sum().backward()
    assert pixels.grad is not None
    assert not pixels.grad.any()


def test_gradient_reaches_exactly_what_the_crop_shows() -> None:
    pixels = torch.rand(1, 3, 30, 60, requires_grad=True)
    boxes = torch.tensor([[[0.25, 0.2, 0.75, 0.8]]])
    Preprocess("hps", 16)(pixels, boxes).square().sum().backward()
    assert pixels.grad is not None
    touched = pixels.grad[0].abs().sum(0) > 0
    assert touched[6:24, 15:45].all()
    assert touched.sum() == 18 * 30


def test_constants_survive_half_precision_and_meta() -> None:
    expected = torch.tensor(CLIP_MEAN).view(3, 1, 1)
    with torch.device("meta"):
        preprocess = Preprocess("clip", 32)
    for module in (preprocess, preprocess.to(torch.bfloat16), copy.deepcopy(preprocess).half()):
        assert module.mean.dtype == torch.float32
        assert torch.equal(module.mean, expected)
    assert not preprocess.state_dict()
    assert preprocess(torch.rand(1, 3, 40, 40)).isfinite().all()


def test_protocol_and_size_are_told() -> None:
    preprocess = Preprocess("hps", 32)
    assert (preprocess.protocol, preprocess.size) == ("hps", 32)
    assert "hps" in repr(preprocess)


def test_unknown_protocol_lists_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'hpsv2'.*clip, .*hps, imagereward, pickscore"):
        Preprocess("hpsv2")


def test_wrong_size_and_constants() -> None:
    with pytest.raises(ValueError, match="size is 0"):
        Preprocess("clip", 0)
    with pytest.raises(ValueError, match="expected one number for each"):
        Preprocess("clip", mean=(0.5,))
    with pytest.raises(ValueError, match="positive ones for std"):
        Preprocess("clip", std=(1.0, 0.0, 1.0))


@pytest.mark.parametrize(
    ("image", "error", "words"),
    [
        (Image.new("L", (9, 9)), ValueError, "mode L"),
        (Image.new("RGB", (0, 9)), ValueError, "no pixels"),
        (torch.zeros(3, 9, 9), TypeError, "Tensor"),
        (Image.new("RGB", (3000, 1)), ValueError, "3000 x 1"),
    ],
)
def test_exact_refuses(image: object, error: type[Exception], words: str) -> None:
    for protocol in ("clip", "hps"):
        with pytest.raises(error, match=words):
            Preprocess(protocol).exact(image)  # type: ignore[arg-type] # the wrong type is meant


@pytest.mark.parametrize(
    ("pixels", "error", "words"),
    [
        (torch.zeros(3, 9, 9), ValueError, r"\(3, 9, 9\)"),
        (torch.zeros(2, 4, 9, 9), ValueError, r"\(4, 9, 9\)"),
        (torch.zeros(2, 3, 9, 9, dtype=torch.uint8), TypeError, "uint8"),
        (torch.zeros(0, 3, 9, 9), ValueError, "no pictures"),
        ([], ValueError, "no pictures"),
        (torch.zeros(1, 3, 0, 9), ValueError, "at least one pixel"),
        ([torch.zeros(3, 9, 9), torch.zeros(9, 9, 3)], ValueError, "picture 1"),
        ([torch.zeros(3, 9, 9), torch.zeros(3, 9, 9).double()], ValueError, "one dtype"),
    ],
)
def test_forward_refuses(pixels: Tensor | list[Tensor], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Preprocess("clip", 8)(pixels)


@pytest.mark.parametrize(
    ("boxes", "hflip", "words"),
    [
        (torch.zeros(2, 4), None, r"\(2, 4\).*\(2, views, 4\)"),
        (torch.tensor([[[0.5, 0, 0.5, 1]]] * 2), None, "empty"),
        (torch.tensor([[[0, 0, 1.2, 1]]] * 2), None, "leaves the picture"),
        (torch.tensor([[[0, 0, torch.nan, 1]]] * 2), None, "not finite"),
        (torch.tensor([[[0, 0, 1.0, 1]]] * 2), torch.zeros(2, 3).bool(), r"\(2, 3\)"),
        (None, torch.zeros(2, 1), "float32"),
        (torch.zeros(2, 1, 4).long(), None, "int64"),
    ],
)
def test_views_refuse(boxes: Tensor | None, hflip: Tensor | None, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Preprocess("clip", 8)(torch.zeros(2, 3, 9, 9), boxes, hflip)


def test_gpu_equals_cpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    pixels = torch.rand(2, 3, 61, 87)
    boxes = torch.tensor([[[0.1, 0.2, 0.9, 0.8]]] * 2)
    preprocess = Preprocess("clip", 32)
    expected = preprocess(pixels, boxes)
    found = preprocess.cuda()(pixels.cuda(), boxes)
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=2e-5)


def test_interpolate_is_what_hps_does_at_full_size() -> None:
    """The whole picture, square, no padding: nothing but torch's own antialiased bicubic."""
    pixels = torch.rand(2, 3, 90, 90, dtype=torch.float64)
    plain = Preprocess("hps", 32, mean=(0.0,) * 3, std=(1.0,) * 3)
    expected = functional.interpolate(pixels, (32, 32), mode="bicubic", antialias=True)
    torch.testing.assert_close(plain(pixels), expected, rtol=0, atol=1e-12)
    single = functional.interpolate(pixels.float(), (32, 32), mode="bicubic", antialias=True)
    torch.testing.assert_close(plain(pixels.float()), single, rtol=0, atol=1e-5)
