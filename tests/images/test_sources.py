"""Flattening: order, names, laziness and counts of everything that can hold images."""

import itertools
import os
import re
import subprocess
import sys
import textwrap
import warnings
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stablepref.images.decoding import decode
from stablepref.images.paths import image_suffixes
from stablepref.images.sources import (
    ImageError,
    Source,
    UnusableImageError,
    count_sources,
    iter_sources,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of images, other files, hidden files and a folder inside."""
    names = ["img10.png", "img2.PNG", "IMG1.jpg", "a.webp", "img2b.png"]
    others = ["notes.txt", ".hidden.png", "data.h5", "film.mpg", "noext"]
    for name in [*names, *others]:
        (tmp_path / name).touch()
    (tmp_path / "dir.png").mkdir()
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "z1.png").touch()
    return tmp_path


IN_ORDER = ["a.webp", "IMG1.jpg", "img2.PNG", "img2b.png", "img10.png"]


def names(images: object) -> list[str]:
    """Names in flat order; the positions are checked as well."""
    sources = list(iter_sources(images))
    assert [source.index for source in sources] == list(range(len(sources)))
    return [source.name for source in sources]


def bare(images: object) -> list[str]:
    """File names in flat order."""
    return [Path(name).name for name in names(images)]


def test_a_folder_gives_its_images_in_natural_order(folder: Path) -> None:
    assert bare(folder) == bare(str(folder)) == bare(f"{folder}/") == IN_ORDER
    assert count_sources(folder) == 5


def test_patterns(folder: Path) -> None:
    assert bare(f"{folder}/*.png") == ["img2b.png", "img10.png"]
    assert bare(folder / "*.[pP][nN][gG]") == ["img2.PNG", "img2b.png", "img10.png"]
    assert bare(f"{folder}/*") == IN_ORDER  # image suffixes only, where none is spelt out
    assert bare(f"{folder}/*.txt") == ["notes.txt"]
    assert bare(f"{folder}/**/*.png") == ["img2b.png", "img10.png", "z1.png"]
    assert bare(f"{folder}/**/*") == [*IN_ORDER, "z1.png"]
    assert count_sources(f"{folder}/img?*") == 3


def test_every_suffix_that_pillow_decodes_is_an_image(tmp_path: Path) -> None:
    suffixes = {".jpg", ".jpeg", ".jfif", ".png", ".webp", ".avif", ".gif", ".bmp", ".tif", ".jp2"}
    assert suffixes <= image_suffixes()
    assert not {".eps", ".ps", ".pdf", ".mpg", ".h5", ".txt", ".json"} & image_suffixes()
    for suffix in (".JFIF", ".avif"):
        (tmp_path / f"a{suffix}").touch()
    assert bare(tmp_path) == ["a.avif", "a.JFIF"]


def test_what_is_skipped_in_a_folder_is_counted_and_named(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "phone.HEIC").touch()
    told = r"skipped 5 file\(s\) that are not images: 1 \.h5, 1 \.heic \(pip install pillow-heif"
    for images in (folder, f"{folder}/*"):
        with pytest.warns(UserWarning, match=rf"{re.escape(str(images))}: {told}.* 1 noext$"):
            names(images)
    captions = tmp_path / "captions"
    captions.mkdir()
    for name in ("a.png", "a.txt", "b.txt"):
        (captions / name).touch()
    with warnings.catch_warnings(), caplog.at_level("INFO", "stablepref"):
        warnings.simplefilter("error")
        assert bare(captions) == ["a.png"]
    assert "skipped 2 file(s) that are not images: 2 .txt" in caplog.text


def test_installed_plugins_are_registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own, whose Pillow knows no more than its own formats."""
    code = """
        from PIL import Image
        def register_heif_opener():
            Image.register_open("HEIF", Image.Image, lambda head: False)
            Image.register_extension("HEIF", ".heic")
    """
    (tmp_path / "pillow_heif.py").write_text(textwrap.dedent(code))
    (tmp_path / "pillow_jxl.py").write_text("raise RuntimeError('no libjxl')")
    program = """
        import warnings
        from stablepref.images.paths import image_suffixes, package_for
        with warnings.catch_warnings(record=True) as caught:
            assert ".heic" in image_suffixes()
        assert package_for(".heic") is None
        assert package_for(".jxl") == "pillow-jxl-plugin"
        (warning,) = caught
        assert "pillow-jxl-plugin cannot be used: RuntimeError('no libjxl')" in str(warning.message)
    """
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True)


def test_relative_and_home_paths(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    assert names("*.webp") == ["a.webp"]
    assert bare(".") == IN_ORDER
    assert names("~/inner") == [str(folder / "inner" / "z1.png")]
    assert bare("~/*.webp") == ["a.webp"]
    (source,) = iter_sources("~nobody-of-this-name/a.png")
    assert isinstance(source.value, UnusableImageError)


def test_a_file_whose_name_looks_like_a_pattern(tmp_path: Path) -> None:
    for name in ("a[1].png", "a1.png"):
        (tmp_path / name).touch()
    assert bare(tmp_path / "a[1].png") == ["a[1].png"]
    assert bare(tmp_path / "a[12].png") == ["a1.png"]


def test_numbers_in_any_part_of_a_path_count_as_numbers(tmp_path: Path) -> None:
    for name in ("step10/1.png", "step9/10.png", "step9/2.png", "step9/02.png", "٣/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [str(Path(name).relative_to(tmp_path)) for name in names(tmp_path / "*" / "*.png")]
    assert found == ["step9/02.png", "step9/2.png", "step9/10.png", "step10/1.png", "٣/1.png"]


def test_mixed_and_nested(folder: Path) -> None:
    picture = Image.new("RGB", (4, 2))
    arrays = np.zeros((2, 4, 4, 3), np.uint8)
    images = [
        "x.png",
        (Path("y.png"), [picture, {"bytes": b"", "path": "z.png"}]),
        folder,
        arrays,
        (torch.zeros(3, 2, 2) for _ in range(2)),
        deque([b"12345"]),
        np.array(["p.png", "q.png"], dtype=object),
    ]
    assert names(images) == [
        "x.png",
        "y.png",
        "PIL image 4x2 RGB",
        "z.png",
        *(str(folder / name) for name in IN_ORDER),
        "[0] of array (2, 4, 4, 3) uint8",
        "[1] of array (2, 4, 4, 3) uint8",
        "tensor (3, 2, 2) float32",
        "tensor (3, 2, 2) float32",
        "5 bytes",
        "p.png",
        "q.png",
    ]


def test_batches_are_split_in_order() -> None:
    arrays = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((3, 5, 4, 3), np.uint8)
    tensors = torch.from_numpy(arrays).permute(0, 3, 1, 2)
    for batch in (arrays, tensors):
        images = [decode(source) for source in iter_sources(batch)]
        assert [np.asarray(image)[0, 0].tolist() for image in images] == [[i] * 3 for i in range(3)]


class Frame:
    """An array of another library: it only converts itself to numpy."""

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        """As numpy asks for it."""
        return np.full((2, 2, 3), 9, np.uint8)

    def __iter__(self) -> Iterator[int]:
        """Rows are not images."""
        raise AssertionError


def test_arrays_of_other_libraries() -> None:
    (source,) = iter_sources(Frame())
    assert np.asarray(decode(source)).tolist() == np.full((2, 2, 3), 9).tolist()


def test_nothing_is_read_ahead(tmp_path: Path) -> None:
    asked = []

    def endless() -> Iterator[object]:
        for number in itertools.count():
            asked.append(number)
            yield [f"{number}a.png", f"{number}b.png"] if number % 2 else f"{number}.png"

    sources = iter_sources([endless(), tmp_path])
    assert asked == []
    assert [next(sources).name for _ in range(3)] == ["0.png", "1a.png", "1b.png"]
    assert asked == [0, 1]
    late = iter_sources(["first.png", tmp_path])
    next(late)
    (tmp_path / "new.png").touch()
    assert [Path(source.name).name for source in late] == ["new.png"]  # listed when reached


def test_a_bad_item_does_not_end_the_walk(tmp_path: Path) -> None:
    bad = [tmp_path, "no*.png", [], "", "gs://b/c.png", None, np.zeros(3), np.zeros((0, 2, 2, 3))]
    good = Image.new("RGB", (1, 1))
    images = [item for value in bad for item in (value, good)]
    refused = []
    for source in iter_sources(images):
        try:
            assert decode(source) is good
        except ImageError as error:
            refused.append(error.index)
    assert refused == list(range(0, 16, 2))
    assert count_sources(images) == 16


@pytest.mark.parametrize(
    "nothing", [[], (), iter(()), np.zeros((0, 4, 4, 3)), torch.zeros(0, 3, 4, 4)]
)
def test_nothing_at_all_is_an_error(nothing: object) -> None:
    with pytest.raises(ImageError, match=r"image 0 \(.*\): it holds no images; pass at least one"):
        list(iter_sources(nothing))


def test_counts(folder: Path) -> None:
    assert count_sources("missing.png") == 1
    assert count_sources([]) == 0
    assert count_sources(np.zeros((7, 2, 2, 3))) == 7
    assert count_sources(np.zeros((7, 2, 3))) == 1
    assert count_sources(torch.zeros(7, 3, 2, 2)) == 7
    assert count_sources(np.array(["a", "b"])) == 2
    assert count_sources([folder, [b"", (None, "x")], torch.zeros(2, 3, 2, 2)]) == 10
    for lazy in (iter(["a"]), (x for x in "ab"), map(str, [1]), deque(["a"]), {"a": 1}.keys()):
        assert count_sources(lazy) is None
        assert count_sources(["a", [lazy]]) is None
    generator = (x for x in ["a.png"])
    count_sources([generator])
    column = np.empty(1, object)
    column[0] = generator
    assert count_sources(column) is None
    assert list(generator) == ["a.png"]  # not consumed


def test_names_are_whole_messages_short_and_sources_frozen() -> None:
    source: Any
    (source,) = iter_sources("a" * 10_000)
    assert source.name == "a" * 10_000
    error = ImageError(0, source.name, "it is torn")
    assert error.name == source.name
    assert len(str(error)) < 250
    address = "https://host/" + "signed" * 100
    assert [s.name for s in iter_sources([address])] == [address]
    (picture,) = iter_sources("data:image/png;base64," + "A" * 10_000)
    assert len(picture.name) < 250  # what such an address holds is no name
    assert isinstance(source.value, os.PathLike)
    with pytest.raises(AttributeError):
        source.index = 3
    assert source == Source(0, source.name, source.value)
