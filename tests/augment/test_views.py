"""Weak views: pure in their arguments, distributed as torchvision's, equal to plain cropping."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.forked import start
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import RandomResizedCrop

from stablepref.augment.views import crop_views, mentions_side, weak_view_boxes, weak_views
from stablepref.preprocess.preprocess import Preprocess


def distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Two-sample Kolmogorov-Smirnov statistic over its critical value at one in 100,000."""
    both = np.sort(np.concatenate([a, b]))
    shares = [np.searchsorted(np.sort(x), both, side="right") / len(x) for x in (a, b)]
    critical = np.sqrt(-np.log(1e-5 / 2) / 2) * np.sqrt((len(a) + len(b)) / (len(a) * len(b)))
    return float(np.abs(shares[0] - shares[1]).max() / critical)


def measures(boxes: NDArray[np.float64], width: float, height: float) -> NDArray[np.float64]:
    """Area, own aspect ratio and relative position of boxes (n, 4) given as fractions."""
    left, top, right, bottom = boxes.T
    wide, tall = right - left, bottom - top
    free = np.maximum(1 - wide, 1e-9), np.maximum(1 - tall, 1e-9)
    return np.stack([wide * tall, wide * width / (tall * height), left / free[0], top / free[1]])


def torchvision_boxes(
    width: int, height: int, area: tuple[float, float], ratio: tuple[float, float], count: int
) -> NDArray[np.float64]:
    """Fractions of crops that torchvision draws."""
    torch.manual_seed(0)
    picture = torch.empty(1, 1, 1).expand(1, height, width)
    draws = (RandomResizedCrop.get_params(picture, list(area), list(ratio)) for _ in range(count))
    top, left, tall, wide = np.array(list(draws), dtype=np.float64).T
    return np.stack([left, top, left + wide, top + tall], 1) / [width, height, width, height]


@pytest.mark.parametrize(
    ("width", "height", "area", "ratio"),
    [
        (5000, 5000, (0.85, 1.0), (3 / 4, 4 / 3)),
        (6000, 5000, (0.85, 1.0), (3 / 4, 4 / 3)),
        (4000, 6000, (0.08, 1.0), (3 / 4, 4 / 3)),
    ],
)
def test_free_ratio_is_distributed_as_torchvisions(
    width: int, height: int, area: tuple[float, float], ratio: tuple[float, float]
) -> None:
    count = 3000
    theirs = measures(torchvision_boxes(width, height, area, ratio, count), width, height)
    ours, _ = weak_view_boxes(
        count, 1, seed=1, area=area, ratio=ratio, sizes=[(height, width)] * count, hflip=False
    )
    for name, a, b in zip(
        ("area", "ratio", "left", "top"),
        measures(ours[:, 0].numpy(), width, height),
        theirs,
        strict=True,
    ):
        assert distance(a, b) < 1, name


def test_kept_aspect_has_torchvisions_areas() -> None:
    """On a square with ratio 1 torchvision keeps the aspect; ours does so on every shape."""
    count = 3000
    theirs = measures(torchvision_boxes(5000, 5000, (0.85, 1.0), (1, 1), count), 1, 1)
    boxes, _ = weak_view_boxes(count, 1, seed=2, hflip=False)
    ours = measures(boxes[:, 0].numpy(), 1, 1)
    np.testing.assert_allclose(ours[1], 1, atol=1e-9)
    for index in (0, 2, 3):
        assert distance(ours[index], theirs[index]) < 1
    assert distance(ours[0], np.random.default_rng(0).uniform(0.85, 1, count)) < 1
    assert distance(ours[0], np.random.default_rng(0).uniform(0.80, 1, count)) > 1


@pytest.mark.parametrize(("height", "width"), [(100, 400), (300, 100)])
def test_crop_that_cannot_fit_falls_back_to_the_centre(height: int, width: int) -> None:
    area, ratio = (0.85, 1.0), (3 / 4, 4 / 3)
    top, left, tall, wide = RandomResizedCrop.get_params(
        torch.empty(1, height, width), list(area), list(ratio)
    )
    boxes, _ = weak_view_boxes(1, 2, seed=0, ratio=ratio, sizes=[(height, width)], hflip=False)
    expected = torch.tensor([left, top, left + wide, top + tall]) / torch.tensor(
        [width, height, width, height]
    )
    torch.testing.assert_close(
        boxes[0, 1].float(), expected, rtol=0, atol=1.01 / min(width, height)
    )
    torch.testing.assert_close(boxes[0, 0, :2] + boxes[0, 0, 2:], torch.ones(2).double())


@pytest.mark.parametrize("ratio", [None, (3 / 4, 4 / 3)])
def test_views_depend_on_nothing_but_seed_step_item_and_view(
    ratio: tuple[float, float] | None,
) -> None:
    def draw(items: int | list[int] | Tensor, views: int, seed: int = 7, step: int = 3) -> Tensor:
        count = items if isinstance(items, int) else len(items)
        sizes = [(300, 400)] * count
        boxes, flips = weak_view_boxes(
            items,
            views,
            seed=seed,
            step=step,
            area=(0.5, 0.8),  # where a free ratio always finds a crop that fits
            ratio=ratio,
            sizes=sizes,
            hflip=True,
        )
        return torch.cat([boxes, flips[..., None]], dim=-1)

    whole = draw(9, 4)
    assert torch.equal(draw([5, 2, 2], 2), whole[[5, 2, 2], :2])
    assert torch.equal(draw(torch.tensor([8]), 4), whole[8:])
    assert len({tuple(row) for row in whole.flatten(0, 1).tolist()}) == 36
    for other in (draw(9, 4, seed=8), draw(9, 4, step=4), draw(list(range(9, 18)), 4)):
        assert not (other[..., :2] == whole[..., :2]).any()
    far = draw([1, 1 + (1 << 32)], 1)
    assert not torch.equal(far[0], far[1])


def write_boxes(path: Path) -> None:
    path.write_text(str(weak_view_boxes([3, 10**12], 2, seed=-5, step=9, hflip=True)))


def test_another_process_gives_the_same_views(tmp_path: Path) -> None:
    process = start(write_boxes, tmp_path / "boxes")
    process.join()
    assert process.exitcode == 0
    write_boxes(tmp_path / "own")
    assert (tmp_path / "boxes").read_text() == (tmp_path / "own").read_text()


def test_boxes_stay_inside_and_half_are_mirrored() -> None:
    boxes, flips = weak_view_boxes(2000, 2, seed=0, hflip=True)
    assert boxes.min() >= 0
    assert boxes.max() <= 1
    assert ((boxes[..., 2:] - boxes[..., :2]) > 0.92).all()
    assert abs(flips.double().mean() - 0.5) < 0.03  # four standard errors
    plain, none = weak_view_boxes(2000, 2, seed=0, hflip=False)
    assert not none.any()
    assert torch.equal(plain, boxes)


def test_boxes_go_through_every_protocol() -> None:
    boxes, flips = weak_view_boxes(2, 3, seed=0, hflip=True)
    for protocol in ("clip", "hps"):
        views = Preprocess(protocol, 24)(
            [torch.rand(3, 40, 70), torch.rand(3, 33, 31)], boxes, flips
        )
        assert views.shape == (2, 3, 3, 24, 24)
        assert views.isfinite().all()


def test_crop_views_equal_cropping_and_resizing() -> None:
    torch.manual_seed(0)
    pixels = torch.rand(2, 3, 30, 44, dtype=torch.float64)
    crops = torch.tensor([[[1, 2, 41, 29], [0, 0, 44, 30]], [[4, 0, 44, 27], [3, 3, 43, 30]]])
    flips = torch.tensor([[False, True], [True, False]])
    views = crop_views(pixels, crops / torch.tensor([44.0, 30, 44, 30]).double(), flips)
    for image, boxes, mirrored, row in zip(pixels, crops.tolist(), flips, views, strict=True):
        for (left, top, right, bottom), flip, view in zip(boxes, mirrored, row, strict=True):
            crop = image[None, :, top:bottom, left:right]
            crop = crop.flip(-1) if flip else crop
            wide = functional.interpolate(
                crop, (crop.shape[2], 44), mode="bicubic", antialias=True
            ).clamp(0, 1)
            expected = functional.interpolate(wide, (30, 44), mode="bicubic", antialias=True)
            torch.testing.assert_close(view, expected[0].clamp(0, 1), rtol=0, atol=1e-12)


def test_weak_views_keep_shape_dtype_range_and_gradient() -> None:
    torch.manual_seed(0)
    pixels = torch.rand(3, 3, 20, 28).bfloat16().requires_grad_()
    views = weak_views(pixels, 2, seed=0, hflip=True)
    assert (views.shape, views.dtype) == ((3, 2, 3, 20, 28), torch.bfloat16)
    assert views.min() >= 0
    assert views.max() <= 1
    views.float().sum().backward()
    assert pixels.grad is not None
    assert (pixels.grad != 0).any(dim=1).float().mean() > 0.9
    alone = weak_views(pixels[2:], 2, seed=0, items=[2], hflip=True)
    torch.testing.assert_close(alone[0], views[2])
    inner = (0.3 + 0.4 * torch.rand(1, 3, 5, 4).double()).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: weak_views(x, 2, seed=4, hflip=True), inner)


def test_weak_views_take_a_free_ratio() -> None:
    pixels = torch.rand(2, 3, 20, 28)
    views = weak_views(pixels, 1, seed=0, ratio=(3 / 4, 4 / 3), hflip=False)
    boxes, flips = weak_view_boxes(
        2, 1, seed=0, ratio=(3 / 4, 4 / 3), sizes=[(20, 28)] * 2, hflip=False
    )
    assert torch.equal(views, crop_views(pixels, boxes, flips))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"area": (0.9, 0.8)}, r"\(0.9, 0.8\)"),
        ({"area": (0.0, 0.8)}, "0 < low"),
        ({"views": -1}, "views is -1"),
        ({"step": -1}, "step is -1"),
        ({"items": -1}, "items is -1"),
        ({"items": [4, -3]}, "from -3 to 4"),
        ({"ratio": (1.0, 1.2)}, "needs sizes"),
        ({"ratio": (1.0, 1.2), "sizes": [(3, 4)]}, r"\(1, 2\).*\(2, 2\)"),
        ({"ratio": (1.2, 1.0), "sizes": [(3, 4)] * 2}, r"ratio is \(1.2, 1.0\)"),
    ],
)
def test_mistakes_are_told(wrong: dict[str, object], words: str) -> None:
    arguments: dict[str, object] = {"items": 2, "views": 1, "seed": 0, "hflip": False, **wrong}
    with pytest.raises(ValueError, match=words):
        weak_view_boxes(**arguments)  # type: ignore[arg-type] # mistakes of several types


def test_pixel_mistakes_are_told() -> None:
    with pytest.raises(ValueError, match=r"\(3, 8, 8\)"):
        weak_views(torch.rand(3, 8, 8), 1, seed=0, hflip=False)
    with pytest.raises(ValueError, match=r"boxes \(1, 2, 4\)"):
        crop_views(torch.rand(2, 3, 8, 8), torch.zeros(1, 2, 4), torch.zeros(1, 2).bool())


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a cat to the left of a dog", True),
        ("A red cube on the RIGHT.", True),
        ("left-hand side of the road", True),
        ("the leftmost house", True),
        ("looking rightwards", True),
        ("a left-handed guitarist", True),
        ("the right side", True),
        ("a bright copyright sign, upright", False),
        ("leftovers on a plate", False),
        ("a portrait of Mr. Wright", False),
        ("", False),
    ],
)
def test_sides_in_prompts(prompt: str, *, expected: bool) -> None:
    assert mentions_side(prompt) is expected
