"""Everything that can be wrong with one image: the error names it and says what to do."""

import io
import os
import pickle
import random
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from stablepref.images.decoding import decode
from stablepref.images.sources import ImageError, Source, iter_sources
from stablepref.output.text import shorten

# A drawing that Pillow would hand to Ghostscript.
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
GOOD = Image.new("RGB", (8, 8), "red")
FLOATS = np.full((8, 8, 3), 0.5)
PLANES = torch.full((3, 8, 8), 0.5)


def reason(value: object) -> str:
    """Why the second of two images is refused; its position and name are checked as well."""
    sources = list(iter_sources([GOOD, value]))
    assert len(sources) == 2
    decode(sources[0])
    with pytest.raises(ImageError) as caught:
        decode(sources[1])
    error = caught.value
    assert error.index == 1
    assert error.name == sources[1].name
    assert str(error) == f"image 1 ({shorten(error.name)}): {error.reason}"
    return error.reason


def encoded(name: str, size: int = 64) -> bytes:
    """A file of noise in the named format."""
    Image.init()
    if name not in Image.SAVE:
        pytest.skip(f"this Pillow does not write {name}")
    noise = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, name)
    return buffer.getvalue()


def changed(value: float) -> np.ndarray:
    """Good float pixels with a single other value among them."""
    array = FLOATS.copy()
    array[3, 4, 1] = value
    return array


ARRAYS: dict[str, tuple[object, list[str]]] = {
    "signed": (FLOATS * 2 - 1.5, ["[0, 1]", "got -0.5 to -0.5", "(x + 1) / 2"]),
    "255": (FLOATS * 255, ["got 127.5 to 127.5", "0..255 use uint8 or divide by 255"]),
    "overshoot": (changed(1.01), ["got 0.5 to 1.01", "clamp"]),
    "one pixel NaN": (changed(np.nan), ["NaN", "float32"]),
    "one pixel infinite": (changed(np.inf), ["infinite"]),
    "one pixel -infinite": (changed(-np.inf), ["infinite"]),
    "tensor signed": (PLANES * 2 - 1.5, ["[0, 1]", "(x + 1) / 2"]),
    "tensor 255": (PLANES * 255, ["0..255 use uint8 or divide by 255"]),
    "tensor NaN": (torch.from_numpy(changed(np.nan)).permute(2, 0, 1), ["NaN"]),
    "tensor infinite": (torch.from_numpy(changed(np.inf)).permute(2, 0, 1).half(), ["infinite"]),
    "half overflow": (torch.full((3, 2, 2), -np.inf), ["infinite"]),
    "alpha": (np.concatenate([FLOATS, FLOATS[..., :1] * 9], -1), ["got 0.5 to 4.5"]),
    "two channels": (np.zeros((8, 8, 2)), ["(H, W, 3)", "got (8, 8, 2)"]),
    "five channels": (np.zeros((8, 8, 5), np.uint8), ["(H, W, 3)", "got (8, 8, 5)"]),
    "channels first": (np.zeros((3, 8, 9)), ["got (3, 8, 9)", "np.moveaxis(image, -3, -1)"]),
    "channels first batch": (np.zeros((1, 3, 8, 9)), ["np.moveaxis(image, -3, -1)"]),
    "channels last": (PLANES.permute(1, 2, 0), ["got (8, 8, 3)", "image.movedim(-1, -3)"]),
    "channels last batch": (PLANES.permute(1, 2, 0)[None], ["image.movedim(-1, -3)"]),
    "two planes": (torch.zeros(2, 8, 8), ["(3, H, W)", "got (2, 8, 8)"]),
    "one dimension": (np.zeros(8), ["rank 1", "(H, W, 3)"]),
    "five dimensions": (np.zeros((1, 2, 8, 8, 3)), ["rank 5"]),
    "a scalar": (np.float32(3), ["rank 0"]),
    "flat tensor": (torch.zeros(8, 8), ["rank 2", "grey picture (1, H, W)"]),
    "tensor rank 5": (torch.zeros(1, 1, 3, 8, 8), ["rank 5"]),
    "complex": (FLOATS.astype(np.complex64), ["got complex64", ".real or .abs()"]),
    "complex tensor": (PLANES.to(torch.complex64), ["got complex64", ".real"]),
    "int64": (np.zeros((8, 8, 3), int), ["got int64", "astype('uint8')"]),
    "int64 tensor": (torch.zeros(3, 8, 8, dtype=torch.int64), ["int64", ".to(torch.uint8)"]),
    "int8": (np.zeros((8, 8, 3), np.int8), ["got int8"]),
    "uint16": (np.zeros((8, 8, 3), np.uint16), ["got uint16", "x / 65535"]),
    "bool": (np.zeros((8, 8), bool), ["got bool", "* 255"]),
    "bool tensor": (torch.zeros(1, 8, 8, dtype=torch.bool), ["got bool"]),
    "objects": (np.empty((2, 2), object), ["got object"]),
    "no height": (np.zeros((0, 8, 3), np.uint8), ["no pixels", "(0, 8, 3)"]),
    "no width": (torch.zeros(3, 8, 0), ["no pixels"]),
    "PIL without pixels": (Image.new("RGB", (0, 5)), ["no pixels", "width 0, height 5"]),
    "empty list": ([], ["holds no images"]),
    "empty generator": (iter(()), ["holds no images"]),
    "empty batch": (np.zeros((0, 8, 8, 3)), ["holds no images"]),
    "None": (None, ["got NoneType", "path, folder"]),
    "number": (5, ["got int", "np.asarray"]),
    "set": ({"a.png"}, ["a set has no order"]),
    "row without image": ({"image": 5}, ["'image'", '"bytes"']),
    "row of nothing": ({"bytes": None, "path": None}, ["'bytes', 'path'"]),
    "text file": (io.StringIO("text"), ["gives str, not bytes", "'rb'"]),
    "text": (b"hello there", ["not an image", "hello"]),
    "no bytes": (b"", ["empty (0 bytes)"]),
    "no bytes in a file": (io.BytesIO(), ["empty (0 bytes)"]),
    "web page": (b"\n<!DOCTYPE html><html>", ["web page"]),
    "LFS": (b"version https://git-lfs.github.com/spec/v1\noid", ["git lfs pull"]),
    "SVG": (b"<svg xmlns=''>", ["SVG", "render it"]),
    "HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", ["HEIC", "pip install pillow-heif"]),
    "JPEG XL": (b"\xff\x0a\xfa\x7f\x01\x90", ["JXL", "pip install pillow-jxl-plugin"]),
    "EPS": (EPS, ["EPS or PostScript", "render it"]),
    "empty path": ("", ["path is empty"]),
    "bucket": ("s3://bucket/a.png", ["http:// and https://", "fsspec"]),
    "data": ("data:image/png;base64,AAAA", ["b64decode"]),
    "null": ("a\0b.png", ["null"]),
    "long": ("a" * 5000, ["too long"]),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_values_that_are_no_images(case: str) -> None:
    value, parts = ARRAYS[case]
    message = reason(value)
    for part in parts:
        assert part in message
    assert len(message) < 400


@pytest.mark.parametrize(
    "case",
    ["channels first", "channels first batch", "channels last", "channels last batch"],
)
def test_the_advice_on_the_order_of_channels_works(case: str) -> None:
    """It is followed to the letter, for one picture and for a batch."""
    image, _ = ARRAYS[case]
    advice = re.search(r"use (.+\))", reason(image))
    assert advice
    moved = eval(advice[1], {"np": np, "image": image})
    pictures = [decode(source) for source in iter_sources(moved)]
    assert len(pictures) == 1
    height, width = (8, 9) if "first" in case else (8, 8)
    assert torch.as_tensor(np.asarray(pictures[0])).shape == (3, height, width)


def test_files_that_are_no_images(tmp_path: Path) -> None:
    assert reason(tmp_path / "missing.png") == "there is no such file"
    assert "no file with an image suffix" in reason(tmp_path)
    assert f"'{tmp_path}/**/*'" in reason(str(tmp_path))
    (tmp_path / "note.txt").write_text("no image")
    assert "no file with an image suffix" in reason(tmp_path)
    assert "not an image" in reason(tmp_path / "note.txt")
    (tmp_path / "none.jpg").touch()
    assert "empty (0 bytes)" in reason(tmp_path / "none.jpg")
    assert "matches no file" in reason(str(tmp_path / "*.webp"))
    assert "matches 2 files, none" not in reason(str(tmp_path / "none*"))
    assert "matches 1 files, none of them with an image suffix" in reason(str(tmp_path / "not*"))
    assert "cannot be read" in reason({"path": str(tmp_path)})


@pytest.mark.parametrize("name", ["a.eps", "a.png", "a.jpg"])
def test_no_name_makes_a_drawing_start_another_program(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[object] = []
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *given, **_: started.append(given))
    (tmp_path / name).write_bytes(EPS)
    assert "EPS or PostScript" in reason(tmp_path / name)
    assert started == []


def test_what_never_ends_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    assert "a pipe, a socket or a device" in reason(tmp_path / "a.png")
    assert "a pipe, a socket or a device" in reason("/dev/zero")
    assert "no file with an image suffix" in reason(tmp_path)


def test_the_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"^image 0 \(.*missing\.png\): "):
        decode(next(iter_sources(tmp_path / "missing.png")))
    path = tmp_path / "damaged.png"
    path.write_bytes(encoded("PNG")[:200])
    with path.open("rb") as stream, Image.open(path) as lazy:
        for value in (stream, lazy, {"bytes": path.read_bytes(), "path": str(path)}):
            with pytest.raises(ImageError, match=r"\(.*damaged\.png\).*damaged"):
                decode(next(iter_sources(value)))


@pytest.mark.parametrize("name", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_truncated_files(name: str) -> None:
    file = encoded(name)
    assert "truncated or damaged" in reason(file[: len(file) // 2])


@pytest.mark.parametrize("name", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "JPEG2000"])
def test_damage_gives_a_picture_or_an_image_error(name: str) -> None:
    """No damage, wherever it is, lets any other exception out."""
    file = encoded(name, size=16)
    chance = random.Random(name)
    refused = 0
    for _ in range(60):
        damaged = bytearray(
            file[: chance.randrange(1, len(file))] if chance.random() < 0.3 else file
        )
        for _ in range(chance.randrange(1, 6)):
            damaged[chance.randrange(min(len(damaged), 200))] = chance.randrange(256)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                image = decode(Source(0, "damaged", bytes(damaged)))
            except ImageError:
                refused += 1
            else:
                assert isinstance(image, Image.Image)
                assert image.mode == "RGB"
    assert refused > 0


def test_decompression_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    file = encoded("PNG")  # 64 * 64 = 4096 pixels
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2047)  # Pillow's error begins at twice this
    message = reason(file)
    assert "decompression bomb" in message
    assert "PIL.Image.MAX_IMAGE_PIXELS" in message
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2048)
    with pytest.warns(Image.DecompressionBombWarning, match=r"image 0 \(large\) has .* pixels"):
        decode(Source(0, "large", file))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "decompression bomb" in reason(file)


def test_an_image_that_does_not_fit_into_memory_is_no_damage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def exhausted(self: ImageFile.ImageFile) -> None:
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load", exhausted)
    with pytest.raises(ImageError, match=r"image 0 \(large\): it does not fit into memory"):
        decode(Source(0, "large", encoded("PNG")))


def test_closed_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    GOOD.save(path)
    with path.open("rb") as stream, Image.open(path) as lazy:
        pass
    assert "cannot be read" in reason(stream)
    assert "damaged, or its file was closed" in reason(lazy)


def test_errors_cross_processes() -> None:
    error = ImageError(3, "a.png", "it is torn")
    error.scores = torch.tensor([1.0, 2.0])
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.index, copy.name, copy.reason) == (3, "a.png", "it is torn")
    assert str(copy) == str(error) == "image 3 (a.png): it is torn"
    assert torch.equal(copy.scores, error.scores)
