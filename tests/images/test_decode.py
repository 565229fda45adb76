"""One source to pixels: everything that a single image can be held in, and threads."""

import io
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stablepref import images
from stablepref.images.decoding import decode
from stablepref.images.sources import ImageError, Source, iter_sources

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
ALPHA = np.random.default_rng(1).integers(0, 256, (6, 5, 1), dtype=np.uint8)


def one(value: object) -> Image.Image | torch.Tensor:
    """Flatten and decode something that holds a single image."""
    (source,) = iter_sources(value)
    return decode(source)


def levels(value: object) -> np.ndarray:
    """Decoded (H, W, 3) levels of something that has to give a PIL image."""
    image = one(value)
    assert isinstance(image, Image.Image)
    assert image.mode == "RGB"
    return np.asarray(image)


def floats(value: object) -> torch.Tensor:
    """Decoded tensor of something that has to give one."""
    tensor = one(value)
    assert isinstance(tensor, torch.Tensor)
    assert tensor.dtype == torch.float32
    assert not tensor.requires_grad
    return tensor


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A PNG file of PIXELS."""
    path = tmp_path / "picture.png"
    Image.fromarray(PIXELS).save(path)
    return path


class Unseekable(io.RawIOBase):
    """A stream that can only be read on, as a pipe or a socket."""

    def __init__(self, data: bytes) -> None:
        self.rest = data

    def read(self, size: int = -1) -> bytes:
        """Hand out the next bytes."""
        size = len(self.rest) if size < 0 else size
        taken, self.rest = self.rest[:size], self.rest[size:]
        return taken


HOLDERS: dict[str, Callable[[Path], object]] = {
    "str": str,
    "Path": lambda path: path,
    "bytes": Path.read_bytes,
    "bytearray": lambda path: bytearray(path.read_bytes()),
    "memoryview": lambda path: memoryview(path.read_bytes()),
    "PIL, lazily opened": Image.open,
    "BytesIO": lambda path: io.BytesIO(path.read_bytes()),
    "pipe": lambda path: Unseekable(path.read_bytes()),
    "row with bytes": lambda path: {"bytes": path.read_bytes(), "path": "elsewhere.png"},
    "row with path": lambda path: {"bytes": None, "path": str(path)},
    "list": lambda path: [path],
    "array of paths": lambda path: np.array([str(path)]),
    "numpy": lambda _: PIXELS,
    "numpy, reversed twice": lambda _: PIXELS[::-1].copy()[::-1],
    "numpy batch": lambda _: PIXELS[None],
    "torch": lambda _: torch.from_numpy(PIXELS).permute(2, 0, 1),
    "torch batch": lambda _: torch.from_numpy(PIXELS).permute(2, 0, 1)[None],
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_all_holders_give_the_same_levels(file: Path, holder: str) -> None:
    assert np.array_equal(levels(HOLDERS[holder](file)), PIXELS)


def test_open_files_are_read_from_the_start_and_put_back(file: Path) -> None:
    with file.open("rb") as stream, tempfile.TemporaryFile() as temporary:
        temporary.write(file.read_bytes())  # the position is at the end now
        for each in (stream, temporary):
            before = each.tell()
            for _ in range(2):
                assert np.array_equal(levels(each), PIXELS)
                assert each.tell() == before


@pytest.mark.parametrize("batch", [False, True])
def test_grey_and_alpha_arrays(batch: bool) -> None:
    grey = PIXELS[..., :1]
    rgba = np.concatenate([PIXELS, ALPHA], axis=-1)
    laid = np.rint(PIXELS * (ALPHA / 255.0) + (255.0 - ALPHA)).astype(np.uint8)
    for array, expected in [(grey, np.repeat(grey, 3, axis=-1)), (rgba, laid)]:
        tensor = torch.from_numpy(array).permute(2, 0, 1)
        assert np.array_equal(levels(array[None] if batch else array), expected)
        assert np.array_equal(levels(tensor[None] if batch else tensor), expected)
    if not batch:
        assert np.array_equal(levels(grey[..., 0]), np.repeat(grey, 3, axis=-1))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_float_arrays_give_float_tensors(dtype: type | str) -> None:
    array = (PIXELS / 255).astype(dtype)
    before = array.copy()
    expected = torch.tensor(array.astype(np.float32).transpose(2, 0, 1).copy())
    assert torch.equal(floats(array), expected)
    assert torch.equal(floats(array[..., ::-1]), expected.flip(0))
    assert torch.equal(floats(array[..., 0]), expected[:1].expand(3, -1, -1))
    planes = np.ascontiguousarray(array.transpose(2, 0, 1)).transpose(1, 2, 0)  # as from a tensor
    planes.setflags(write=False)
    for each in (array, planes, array[..., :1]):
        assert not np.shares_memory(floats(each).numpy(), each)
    assert np.array_equal(array, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_float_tensors_stay_tensors(dtype: torch.dtype) -> None:
    tensor = torch.tensor(PIXELS.transpose(2, 0, 1) / 255, dtype=dtype).requires_grad_()
    assert torch.equal(floats(tensor), tensor.detach().float())
    assert torch.equal(floats(tensor[:1]), tensor.detach()[:1].float().expand(3, -1, -1))
    assert floats(tensor).device == tensor.device


def test_float_tensor_is_not_copied() -> None:
    tensor = torch.rand(3, 4, 5)
    assert floats(tensor).data_ptr() == tensor.data_ptr()


def test_float_alpha_is_laid_over_white() -> None:
    rgba = np.concatenate([PIXELS, ALPHA], axis=-1) / 255.0
    expected = rgba[..., :3] * rgba[..., 3:] + (1 - rgba[..., 3:])
    for value in (rgba, torch.from_numpy(rgba).permute(2, 0, 1)):
        np.testing.assert_allclose(floats(value).permute(1, 2, 0).numpy(), expected, atol=1e-6)
    opaque = torch.cat([torch.rand(3, 4, 5), torch.ones(1, 4, 5)])
    assert torch.equal(floats(opaque), opaque[:3])


def test_rounding_outside_the_range_is_clamped() -> None:
    tensor = torch.tensor([-5e-5, 0.25, 1 + 5e-5]).expand(3, 2, 3)
    for value in (tensor, tensor.permute(1, 2, 0).numpy()):
        assert floats(value)[0, 0].tolist() == [0, 0.25, 1]
    assert tensor[0, 0, 0] < 0  # the caller's tensor is as it was


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_float_tensor_stays_on_its_device() -> None:
    assert floats(torch.rand(3, 4, 5, device="cuda")).is_cuda
    assert np.array_equal(levels(torch.from_numpy(PIXELS).permute(2, 0, 1).cuda()), PIXELS)


def test_sources_may_be_made_by_hand(file: Path) -> None:
    image = decode(Source(7, "mine", str(file)))
    assert np.array_equal(np.asarray(image), PIXELS)
    with pytest.raises(ImageError, match=r"image 7 \(mine\): there is no such file"):
        decode(Source(7, "mine", str(file) + "x"))


def test_one_picture_in_many_threads(shared_data: Path) -> None:
    path = next((shared_data / "hpdv2_gallery" / "images").glob("*.jpg"))
    expected = np.asarray(Image.open(path))
    with path.open("rb") as stream, Image.open(path) as lazy, ThreadPoolExecutor(8) as pool:
        sources = list(iter_sources([stream, lazy, path] * 16))
        for image in pool.map(decode, sources):
            assert isinstance(image, Image.Image)
            assert np.array_equal(np.asarray(image), expected)


class Slow(io.BytesIO):
    """A file that other threads could come between."""

    def seek(self, position: int, whence: int = 0) -> int:
        """Move, and let the others move too."""
        reached = super().seek(position, whence)
        time.sleep(1e-3)
        return reached


def test_one_open_file_in_many_threads(file: Path) -> None:
    stream = Slow(file.read_bytes())
    stream.seek(7)
    with ThreadPoolExecutor(8) as pool:
        for image in pool.map(decode, iter_sources([stream] * 24)):
            assert np.array_equal(np.asarray(image), PIXELS)
    assert stream.tell() == 7


def test_real_pictures_decode_as_pillow_decodes_them(shared_data: Path) -> None:
    folder = shared_data / "hpdv2_gallery" / "images"
    for source in iter_sources(folder / "*0.jpg"):
        with Image.open(source.name) as image:
            assert np.array_equal(np.asarray(decode(source)), np.asarray(image.convert("RGB")))


def test_names_need_no_torch() -> None:
    program = (
        "import sys; from stablepref.images.sources import iter_sources; "
        "import stablepref.scoring.prompts; "
        "assert [s.name for s in iter_sources(['a.png'])] == ['a.png']; "
        "assert 'PIL' in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_package_offers_the_function_whatever_was_imported_before() -> None:
    """A module of a public name would take its place in the package once it is imported."""
    for name in images.__all__:
        assert find_spec(f"stablepref.images.{name}") is None
        assert callable(getattr(images, name))
