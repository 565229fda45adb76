"""JSON Lines: what is written is read again, wherever it is moved; errors name the line."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from stablepref.data.convert import resolve_image
from stablepref.data.groups import DataError, RankedGroup
from stablepref.data.read import read_groups
from stablepref.data.write import write_jsonl

GOOD = {"prompt": "p", "images": ["a.png", "b.png"], "ranks": [1, 2]}


def write_lines(path: Path, *rows: object) -> Path:
    """Write one JSON value, or one literal text, on each line."""
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return path


def test_round_trip_keeps_everything_and_survives_a_move(tmp_path: Path) -> None:
    old = tmp_path / "old"
    groups = [
        RankedGroup(
            "ein rötlicher Kreis",
            (old / "sub" / "a b.png", str(old / "c.png"), "https://example.org/d.png"),
            (1, 2.5, 2.5),
            id="g1",
            annotations=((1, 2, 3), (1, 3, 2)),
            annotators=("x", "y"),
            metadata={"style": "photo", "depth": [1, {"k": None}]},
        ),
        RankedGroup("two", (tmp_path / "elsewhere.png", old / "c.png"), (2, 1)),
    ]
    assert write_jsonl(old / "data.jsonl", groups) == len(groups)
    rows = [json.loads(line) for line in (old / "data.jsonl").read_text().splitlines()]
    assert rows[0]["images"] == ["sub/a b.png", "c.png", "https://example.org/d.png"]
    assert rows[0]["ranks"] == [1, 2.5, 2.5]
    assert rows[1]["images"] == [str(tmp_path / "elsewhere.png"), "c.png"]
    assert rows[1].keys() == {"prompt", "images", "ranks"}

    new = old.rename(tmp_path / "new")
    first, second = read_groups(new / "data.jsonl")
    assert first.images == (new / "sub" / "a b.png", new / "c.png", "https://example.org/d.png")
    assert second.images == (tmp_path / "elsewhere.png", new / "c.png")
    for read, written in zip((first, second), groups, strict=True):
        for name in ("prompt", "ranks", "id", "annotations", "annotators", "metadata"):
            assert getattr(read, name) == getattr(written, name)


def test_unknown_keys_become_metadata_and_blank_lines_are_passed_over(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "d.jsonl", GOOD | {"seed": 7, "metadata": {"a": 1}}, "", GOOD)
    first, second = read_groups(path)
    assert first.metadata == {"seed": 7, "a": 1}
    assert second.images == (tmp_path / "a.png", tmp_path / "b.png")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"prompt": "p", ', "not JSON"),
        ([1, 2], "a list; expected a JSON object"),
        ({"prompt": "p", "images": ["a", "b"]}, "'ranks' is missing; there are: images, prompt"),
        (GOOD | {"ranks": [1]}, r"ranks has 1 item\(s\) for 2 images"),
        (GOOD | {"images": ["a"], "ranks": [1]}, "images has 1 item"),
        (GOOD | {"images": "a.png"}, "list of images is a str"),
        (GOOD | {"images": ["a.png", None]}, "an image is None"),
        (GOOD | {"images": ["a.png", ""]}, "an image is ''"),
        ('{"prompt": "p", "images": ["a", "b"], "ranks": [1, NaN]}', r"ranks\[1\] is nan"),
        (GOOD | {"metadata": 3}, "metadata is a int"),
        (GOOD | {"prompt": ""}, "the prompt is ''"),
    ],
)
def test_a_bad_line_is_named_after_the_good_ones_are_read(
    tmp_path: Path, row: object, message: str
) -> None:
    path = write_lines(tmp_path / "d.jsonl", GOOD, "", row, GOOD)
    groups = read_groups(path)
    assert next(groups).prompt == "p"
    with pytest.raises(DataError, match=message) as caught:
        next(groups)
    assert (caught.value.path, caught.value.place) == (str(path), "line 3")


def test_text_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_bytes(b'{"prompt": "\xff"}\n')
    with pytest.raises(DataError, match="line 1: not UTF-8"):
        next(read_groups(tmp_path / "d.jsonl"))


def test_reading_is_lazy(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "d.jsonl", *[GOOD] * 3, *["broken"] * 1000)
    groups = read_groups(path)
    assert [next(groups).prompt for _ in range(3)] == ["p"] * 3


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    good = RankedGroup("p", ("a.png", "b.png"), (1, 2))
    write_jsonl(path, [good])
    before = path.read_text()

    def failing() -> Iterator[RankedGroup]:
        yield good
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="the source broke"):
        write_jsonl(path, failing())
    assert path.read_text() == before
    assert [item.name for item in tmp_path.iterdir()] == ["d.jsonl"]


def test_bytes_are_saved_once_under_their_content(tmp_path: Path) -> None:
    contents = [b"\xff\xd8 jpeg", b"\x89PNG png", b"RIFF....WEBP", b"GIF89a", b"who knows"]
    groups = [RankedGroup("p", tuple(contents), (1, 2, 3, 4, 5))] * 2
    write_jsonl(tmp_path / "d.jsonl", groups, image_folder=tmp_path / "images")
    read = list(read_groups(tmp_path / "d.jsonl"))
    paths = [image for image in read[0].images if isinstance(image, Path)]
    assert [path.read_bytes() for path in paths] == contents
    assert [path.suffix for path in paths] == [".jpg", ".png", ".webp", ".gif", ".bin"]
    assert len(list((tmp_path / "images").iterdir())) == len(contents)


@pytest.mark.parametrize(
    ("image", "message"),
    [(b"bytes", "bytes.*give image_folder"), (Image.new("RGB", (2, 2)), "Image.*to a file")],
)
def test_images_that_json_cannot_hold_are_refused(
    tmp_path: Path, image: object, message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        write_jsonl(tmp_path / "d.jsonl", [RankedGroup("p", (image, "b.png"), (1, 2))])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a.png", Path("root/a.png")),
        ("/abs/a.png", Path("/abs/a.png")),
        ("https://example.org/a.png", "https://example.org/a.png"),
        (b"x", b"x"),
        ({"bytes": b"x", "path": "a.png"}, b"x"),
        ({"bytes": None, "path": "a.png"}, Path("root/a.png")),
    ],
)
def test_images_of_rows_are_resolved(value: object, expected: object) -> None:
    assert resolve_image(value, Path("root")) == expected


def test_paths_stay_as_they_are_without_a_folder() -> None:
    assert resolve_image("a.png", None) == Path("a.png")
