"""Manifests in their three formats, with good and bad rows."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from PIL import Image

from stablepref.images.sources import UnusableImageError
from stablepref.scoring import manifest
from stablepref.scoring.manifest import Item, count_rows, is_manifest, read_manifest

ROWS = [
    {"image": "a.png", "prompt": "a cat"},
    {"image": "sub/b.png", "prompt": "a dog, two\nlines"},
    {"image": "http://host/c.png", "prompt": "an owl"},
]


def write(path: Path, rows: list[Mapping[str, object]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows))
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        table = pytest.importorskip("pyarrow").Table.from_pylist(rows)
        pytest.importorskip("pyarrow.parquet").write_table(table, path)
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet", ".CSV"])
def test_rows_of_every_format(suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"rows{suffix.lower()}", [*ROWS])
    path = path.rename(tmp_path / f"rows{suffix}")
    assert is_manifest(str(path))
    assert list(read_manifest(path)) == [
        Item(str(tmp_path / "a.png"), tmp_path / "a.png", "a cat"),
        Item(str(tmp_path / "sub/b.png"), tmp_path / "sub/b.png", "a dog, two\nlines"),
        Item("http://host/c.png", "http://host/c.png", "an owl"),
    ]
    assert count_rows(path) == 3


def test_images_inside_parquet(tmp_path: Path) -> None:
    rows: list[Mapping[str, object]] = [
        {"image": {"bytes": b"one", "path": "a.png"}, "prompt": "a cat", "other": 1},
        {"image": {"bytes": None, "path": "b.png"}, "prompt": "a dog", "other": 2},
        {"image": {"bytes": None, "path": None}, "prompt": "an owl", "other": 3},
    ]
    path = write(tmp_path / "rows.parquet", rows)
    first, second, third = read_manifest(path)
    assert first == Item(f"{path}:1", b"one", "a cat")
    assert second == Item(str(tmp_path / "b.png"), tmp_path / "b.png", "a dog")
    assert isinstance(third.image, UnusableImageError)
    plain = write(tmp_path / "plain.parquet", [{"image": b"two", "prompt": "a cat"}])
    assert list(read_manifest(plain)) == [Item(f"{plain}:1", b"two", "a cat")]


@pytest.mark.parametrize("damage", ["head", "tail", "middle", "text"])
def test_a_damaged_parquet_file_is_named(damage: str, tmp_path: Path) -> None:
    rows: list[Mapping[str, object]] = [{"image": bytes(range(256)) * 40, "prompt": "a cat"}] * 9
    path = write(tmp_path / "rows.parquet", rows)
    data = path.read_bytes()
    path.write_bytes(
        {
            "head": data[:-100],
            "tail": data[100:],
            "middle": data[:20] + bytes(300) + data[320:],
            "text": b"not parquet at all, but long enough to be one",
        }[damage]
    )
    with pytest.raises(ValueError, match=r"rows\.parquet cannot be read as parquet: "):
        list(read_manifest(path))
    with pytest.raises(FileNotFoundError):
        list(read_manifest(tmp_path / "none.parquet"))


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_addresses_and_the_home_folder(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    images = ["s3://bucket/a.png", "gs://bucket/a.png", "~/a.png", "~a.png"]
    path = write(tmp_path / f"rows{suffix}", [{"image": i, "prompt": "x"} for i in images])
    *buckets, home, plain = read_manifest(path)
    assert [item.name for item in buckets] == images[:2]
    for item in buckets:
        assert isinstance(item.image, UnusableImageError)
        assert "only http:// and https:// addresses are fetched" in str(item.image)
    assert (home.name, home.image) == ("/home/me/a.png", Path("/home/me/a.png"))
    assert plain.image == tmp_path / "~a.png"


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_missing_columns_are_named(suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"rows{suffix}", [{"file": "a.png", "prompt": "a cat"}])
    with pytest.raises(ValueError, match="columns file, prompt; expected image"):
        list(read_manifest(path))


@pytest.mark.parametrize(
    ("line", "says", "prompt"),
    [
        ("{oops", "not JSON", None),
        ("\xff", "not JSON", None),
        ('["a.png", "a cat"]', "expected an object", None),
        ('{"image": "a.png"}', "prompt is missing", None),
        ('{"image": "a.png", "prompt": "  "}', "prompt is '  '", None),
        ('{"image": "a.png", "prompt": 5}', "prompt is 5", None),
        ('{"prompt": "a cat"}', "must be a path or URL, got None", "a cat"),
        ('{"image": "", "prompt": "a cat"}', "must be a path or URL, got ''", "a cat"),
        ('{"image": ["a.png"], "prompt": "a cat"}', "got ['a.png']", "a cat"),
    ],
)
def test_a_bad_row_says_where_and_why_and_the_next_is_read(
    line: str, says: str, prompt: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(f'\n{line}\n\n{{"image": "a.png", "prompt": "a cat"}}\n'.encode("latin-1"))
    bad, good = read_manifest(path)
    assert (bad.name, bad.prompt) == (f"{path}:2", prompt)
    assert isinstance(bad.image, UnusableImageError)
    assert says in str(bad.image)
    assert good.prompt == "a cat"
    assert count_rows(path) == 2


def test_a_row_is_one_image(tmp_path: Path) -> None:
    for name in ("1.png", "2.png", "3.jpg"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    images = [".", "*.png", "*.jpg", "none*"]
    path = write(tmp_path / "rows.csv", [{"image": name, "prompt": "x"} for name in images])
    folder, several, one, none = (item.image for item in read_manifest(path))
    assert "of several" in str(folder)
    assert "of several" in str(several)
    assert one == tmp_path / "3.jpg"
    assert isinstance(none, UnusableImageError)
    assert "matches no file" in str(none)


def test_csv_from_a_spreadsheet_and_damaged_csv(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes("\ufeffimage,prompt\r\na.png,a café\r\n".encode())
    assert [item.prompt for item in read_manifest(path)] == ["a café"]
    path.write_bytes("image,prompt\na.png,a café\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"rows\.csv cannot be read as CSV in UTF-8"):
        list(read_manifest(path))
    path.write_text("image,prompt\na.png," + "x" * 200_000)
    with pytest.raises(ValueError, match=r"cannot be read as CSV .* field larger"):
        list(read_manifest(path))


def test_it_is_read_lazily(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [*ROWS] * 1000)
    rows = read_manifest(path)
    next(rows)
    path.write_text("")
    assert len(list(rows)) < 2999


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(manifest, "import_module", missing)
    (tmp_path / "rows.parquet").write_bytes(b"")
    with pytest.raises(ValueError, match="needs pyarrow: pip install"):
        next(read_manifest(tmp_path / "rows.parquet"))


def test_other_files_are_no_manifests(tmp_path: Path) -> None:
    assert not is_manifest("a.png")
    with pytest.raises(ValueError, match=r"\.jsonl, \.csv, \.parquet"):
        next(read_manifest(tmp_path / "rows.txt"))
    for suffix in (".csv", ".jsonl"):
        with pytest.raises(FileNotFoundError):
            next(read_manifest(tmp_path / f"rows{suffix}"))
