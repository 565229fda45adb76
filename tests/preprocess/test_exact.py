"""Every protocol against the official code it stands for, and its two forms against each other."""

import importlib
import importlib.util
import sys
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as vision

from stablepref.preprocess.preprocess import Preprocess
from stablepref.preprocess.protocols import CLIP_MEAN, CLIP_STD, PROTOCOLS

# Wide, tall, tiny, larger; 227, 229 and 231 tell the roundings of a half pixel apart.
SIZES = [
    *((512, 512), (512, 300), (300, 512), (640, 97), (97, 640), (224, 224), (100, 60), (31, 47)),
    *((227, 224), (224, 231), (229, 224), (5, 4), (1, 1), (1300, 900), (224, 100), (90, 224)),
]


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """An RGB picture with smooth areas, texture and hard edges."""
    random = np.random.default_rng((seed, width, height))
    y, x = np.mgrid[0:height, 0:width]
    smooth = 127 + 90 * np.sin(x / 17 + seed)[..., None] * np.cos(
        y[..., None] / np.array([9, 23, 40])
    )
    blocks = random.integers(0, 2, (-(-height // 16), -(-width // 16), 3)) * 255
    hard = blocks.repeat(16, axis=0).repeat(16, axis=1)[:height, :width]
    mixed = np.where(
        (x // 40 % 2 == 1)[..., None], hard, smooth + random.normal(0, 12, (height, width, 3))
    )
    return Image.fromarray(mixed.clip(0, 255).astype(np.uint8))


def as_pixels(image: Image.Image, dtype: torch.dtype = torch.float32) -> Tensor:
    """The picture as a float tensor (3, H, W) in [0, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).to(dtype) / 255


def official_clip(image: Image.Image, size: int = 224) -> Tensor:
    """The transform of OpenAI's CLIP, which ImageReward's BLIP and its baselines repeat."""
    return transforms.Compose(
        [
            transforms.Resize(size, interpolation=InterpolationMode.BICUBIC),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
            transforms.Normalize(CLIP_MEAN, CLIP_STD),
        ]
    )(image)


def documented_hps(image: Image.Image, size: int = 224) -> Tensor:
    """HPS v2's transform from its description, with the padding it forgets at scale one."""
    pixels = vision.to_tensor(image)
    scale = size / max(image.size)
    height, width = (round(side * scale) for side in pixels.shape[1:])
    if scale != 1:
        pixels = vision.resize(pixels, [height, width], InterpolationMode.BICUBIC, antialias=True)
    across, down = size - width, size - height
    padding = [across // 2, down // 2, across - across // 2, down - down // 2]
    return vision.normalize(vision.pad(pixels, padding), CLIP_MEAN, CLIP_STD)


@pytest.fixture
def hpsv2_transform() -> Iterator[Callable[[Image.Image], Tensor]]:
    """The transform of the hpsv2 wheel, loaded alone: the wheel as a whole cannot be imported."""
    spec = importlib.util.find_spec("hpsv2")
    if spec is None or spec.origin is None:
        pytest.skip("hpsv2 is not installed (pip install --no-deps hpsv2==1.2.0)")
    package = types.ModuleType("hpsv2_alone")
    package.__path__ = [str(Path(spec.origin).parent / "src" / "open_clip")]
    sys.modules["hpsv2_alone"] = package
    module = importlib.import_module("hpsv2_alone.transform")
    yield module.image_transform(224, is_train=False, resize_longest_max=True)
    for name in [name for name in sys.modules if name.startswith("hpsv2_alone")]:
        del sys.modules[name]


def test_clip_reproduces_the_published_tensors(shared_data: Path) -> None:
    golden = np.load(shared_data / "clip_preprocess" / "golden.npz")
    assert len(golden["names"]) == 7
    for name, expected in zip(golden["names"], golden["preprocessed_224_f32"], strict=True):
        image = Image.open(shared_data / "clip_preprocess" / f"{name}.jpg")
        assert np.array_equal(Preprocess("clip").exact(image).numpy(), expected), name


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("protocol", ["clip", "imagereward"])
def test_clip_equals_official_transform(protocol: str, size: tuple[int, int]) -> None:
    image = picture(*size)
    assert torch.equal(Preprocess(protocol).exact(image), official_clip(image))


def test_clip_equals_open_clip_at_another_size() -> None:
    image = picture(401, 303)
    theirs = open_clip.image_transform(64, is_train=False, mean=CLIP_MEAN, std=CLIP_STD)
    assert torch.equal(Preprocess("clip", 64).exact(image), theirs(image))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("protocol", "mode", "interpolation"),
    [
        ("squash", "squash", "bicubic"),
        ("squash-bilinear", "squash", "bilinear"),
        ("clip-bilinear", "shortest", "bilinear"),
    ],
)
def test_open_clips_other_modes_equal_its_transform(
    protocol: str, mode: str, interpolation: str, size: tuple[int, int]
) -> None:
    mean, std = (0.5, 0.4, 0.3), (0.5, 0.25, 0.2)
    image = picture(*size)
    theirs = open_clip.image_transform(
        64, is_train=False, mean=mean, std=std, resize_mode=mode, interpolation=interpolation
    )
    assert torch.equal(Preprocess(protocol, 64, mean=mean, std=std).exact(image), theirs(image))


@pytest.mark.parametrize("size", SIZES)
def test_squash_equals_transformers_siglip_processor(size: tuple[int, int]) -> None:
    module = pytest.importorskip("transformers.models.siglip.image_processing_pil_siglip")
    sides, half = {"height": 96, "width": 96}, [0.5] * 3
    processor = module.SiglipImageProcessorPil(
        size=sides, image_mean=half, image_std=half, resample=Image.Resampling.BICUBIC
    )
    image = picture(*size)
    theirs = processor(image, return_tensors="pt")["pixel_values"][0]
    assert torch.equal(Preprocess("squash", 96, mean=half, std=half).exact(image), theirs)


@pytest.mark.parametrize("size", SIZES)
def test_pickscore_equals_transformers_processor(size: tuple[int, int]) -> None:
    module = "transformers.models.clip.image_processing_pil_clip"
    processor = pytest.importorskip(module).CLIPImageProcessorPil()
    image = picture(*size)
    theirs = processor(image, return_tensors="pt")["pixel_values"][0]
    assert torch.equal(Preprocess("pickscore").exact(image), theirs)


def test_pickscore_and_clip_crop_some_pictures_one_pixel_apart() -> None:
    image = picture(227, 224)
    pickscore, clip = (Preprocess(name).exact(image) for name in ("pickscore", "clip"))
    assert torch.equal(pickscore[..., 1:], clip[..., :-1])
    assert not torch.equal(pickscore, clip)


@pytest.mark.parametrize("size", SIZES)
def test_hps_equals_documented_transform(size: tuple[int, int]) -> None:
    image = picture(*size)
    assert torch.equal(Preprocess("hps").exact(image), documented_hps(image))


@pytest.mark.parametrize("size", [s for s in SIZES if max(s) != 224 or s[0] == s[1]])
def test_hps_equals_official_transform(
    size: tuple[int, int], hpsv2_transform: Callable[[Image.Image], Tensor]
) -> None:
    image = picture(*size)
    assert torch.equal(Preprocess("hps").exact(image), hpsv2_transform(image))


def test_hps_equals_official_transform_on_real_pictures(
    shared_data: Path, hpsv2_transform: Callable[[Image.Image], Tensor]
) -> None:
    preprocess = Preprocess("hps")
    paths = sorted((shared_data / "hpdv2_gallery" / "images").iterdir())[::24]
    for path in paths:
        image = Image.open(path).convert("RGB")
        width, height = image.size
        shapes = [
            image,
            image.crop((0, 100, width, 301)),
            image.crop((57, 0, 200, height)),
            image.crop((30, 40, 63, 60)),
            image.resize((width * 4, height * 3), Image.Resampling.BICUBIC),
        ]
        for shape in shapes:
            assert torch.equal(preprocess.exact(shape), hpsv2_transform(shape)), path


def test_hps_pads_a_white_picture_with_black_bars() -> None:
    """100 x 51 becomes 8 x 4 at size 8: two rows of black, four of white, two of black."""
    image = Image.new("RGB", (100, 51), "white")
    values = Preprocess("hps", 8, mean=(0.5,) * 3, std=(0.5,) * 3).exact(image)
    expected = -torch.ones(3, 8, 8)
    expected[:, 2:6] = 1
    torch.testing.assert_close(values, expected, rtol=0, atol=1e-6)


def test_many_threads_get_the_same_values() -> None:
    preprocess = Preprocess("clip")
    images = [picture(300 + i, 280, seed=i) for i in range(12)]
    with ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(preprocess.exact, images))
    assert all(torch.equal(a, preprocess.exact(i)) for a, i in zip(threaded, images, strict=True))


def bounds(protocol: str) -> tuple[float, float]:
    """Mean and largest distance of the two forms that are allowed, in grey levels of 255.

    Where both sides are resampled differently, Pillow 13 begins with the side that leaves fewer
    pixels, older ones and the tensor form with the width; either clamps in between, so that pixels
    beside hard edges differ.
    """
    if protocol == "hps":
        return 0.01, 0.1
    return (0.4, 24) if PROTOCOLS[protocol].fit == "both" else (0.4, 8)


def difference(preprocess: Preprocess, image: Image.Image) -> Tensor:
    """Distance of the two forms in grey levels of 255."""
    both = preprocess.exact(image) - preprocess(as_pixels(image)[None])[0]
    return (both * preprocess.std).abs() * 255


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_close_to_exact_on_the_gallery(protocol: str, shared_data: Path) -> None:
    preprocess = Preprocess(protocol)
    paths = sorted((shared_data / "hpdv2_gallery" / "images").iterdir())[::12]
    assert len(paths) > 25
    for path in paths:
        image = Image.open(path).convert("RGB")
        for shape in (image, image.crop((0, 99, 512, 300))):
            levels = difference(preprocess, shape)
            mean, worst = bounds(protocol)
            assert levels.mean() <= mean, path
            assert levels.max() <= worst, path


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_close_to_exact_on_every_shape(protocol: str, size: tuple[int, int]) -> None:
    levels = difference(Preprocess(protocol), picture(*size))
    mean, worst = bounds(protocol)
    assert levels.mean() <= mean
    assert levels.max() <= worst
