"""Manifests in their three formats, with good and bad rows."""

import csv
import json
import math
from collections.abc import Mapping
from pathlib import Path

import pytest
from PIL import Image

from stablepref.data.groups import DataError
from stablepref.data.manifest import Columns, count_rows, is_manifest, read_items, read_manifest
from stablepref.images.sources import UnusableImageError, iter_sources
from stablepref.scoring.items import Item

ROWS = [
    {"image": "a.png", "prompt": "a cat"},
    {"image": "sub/b.png", "prompt": "a dog, two\nlines"},
    {"image": "http://host/c.png", "prompt": "an owl"},
]


def write(path: Path, rows: list[Mapping[str, object]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix in (".csv", ".tsv"):
        with path.open("w", newline="") as file:
            delimiter = "," if path.suffix == ".csv" else "\t"
            writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
    else:
        table = pytest.importorskip("pyarrow").Table.from_pylist(rows)
        pytest.importorskip("pyarrow.parquet").write_table(table, path)
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv", ".parquet", ".CSV"])
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
    assert first == Item(f"{path}:1", b"one", "a cat", {"other": 1})
    assert second == Item(str(tmp_path / "b.png"), tmp_path / "b.png", "a dog", {"other": 2})
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
    with pytest.raises(ValueError, match=r"rows\.parquet, .*row.*: not readable as Parquet"):
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
    path = write(tmp_path / f"rows{suffix}", [{"photo": "a.png", "prompt": "a cat"}])
    with pytest.raises(
        ValueError,
        match="for the image, only photo, prompt; expected one of image, im",
    ):
        list(read_manifest(path))


@pytest.mark.parametrize(
    ("line", "says", "prompt"),
    [
        ("{oops", "not JSON", None),
        ("\xff", "not UTF-8 text", None),
        ('["a.png", "a cat"]', "expected an object", None),
        (
            '{"image": "a.png"}',
            "no column for the prompt, only image; expected one of prompt",
            None,
        ),
        ('{"image": "a.png", "prompt": null}', "prompt is missing", None),
        ("[" * 100_000, "nested too deeply", None),
        ('{"image": "a.png", "prompt": "  "}', "prompt is '  '", None),
        ('{"image": "a.png", "prompt": 5}', "prompt is 5", None),
        ('{"prompt": "a cat"}', "no column for the image, only prompt", "a cat"),
        ('{"image": null, "prompt": "a cat"}', "must be a path or URL, got None", "a cat"),
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


def test_a_row_is_one_image_and_never_a_pattern(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("1.png", "2.png", "[3].png", "~4.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    images = [".", "*.png", "[3].png", "~4.png", "x" * 5000]
    path = write(Path("rows.csv"), [{"image": name, "prompt": "x"} for name in images])
    folder, pattern, brackets, tilde, long = (item.image for item in read_manifest(path))
    assert isinstance(folder, UnusableImageError)
    assert "this is a folder" in str(folder)
    assert isinstance(pattern, UnusableImageError)
    assert "there is no such file, and a row is not a pattern" in str(pattern)
    assert (brackets, tilde) == (Path("[3].png"), tmp_path / "~4.png")
    assert [source.value for source in iter_sources([brackets, tilde])] == [brackets, tilde]
    assert long == Path("x" * 5000)


def test_csv_from_a_spreadsheet_and_damaged_csv(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes("\ufeffimage,prompt\r\na.png,a café\r\n".encode())
    assert [item.prompt for item in read_manifest(path)] == ["a café"]
    bad = [b"a.png,a caf\xe9", b'a.png,"a" b', b"a.png," + b"x" * 200_000, b"a.png,a cat, sitting"]
    path.write_bytes(b"\n".join([b"image,prompt", *bad, b"a.png,a cat"]))
    *items, good = read_manifest(path)
    assert good.prompt == "a cat"
    assert [item.name for item in items] == [f"{path}:{line}" for line in range(2, 6)]
    says = ["not UTF-8 text", "expected after", "field larger", "3 cells for 2 columns"]
    for item, part in zip(items, says, strict=True):
        assert isinstance(item.image, UnusableImageError)
        assert part in str(item.image)
    assert count_rows(path) == 5
    path.write_bytes(b"caf\xe9,prompt\na.png,x\n")
    with pytest.raises(DataError, match=r"rows\.csv, line 1: .*not UTF-8 text"):
        list(read_manifest(path))


def test_it_is_read_lazily(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [*ROWS] * 1000)
    rows = read_manifest(path)
    next(rows)
    path.write_text("")
    assert len(list(rows)) < 2999


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("importlib.import_module", missing)
    (tmp_path / "rows.parquet").write_bytes(b"")
    with pytest.raises(ImportError, match="needs pyarrow: pip install"):
        next(read_manifest(tmp_path / "rows.parquet"))


def test_other_files_are_no_manifests(tmp_path: Path) -> None:
    assert not is_manifest("a.png")
    with pytest.raises(ValueError, match=r"\.jsonl, .*\.csv, \.tsv, \.parquet"):
        next(read_manifest(tmp_path / "rows.txt"))
    for suffix in (".csv", ".jsonl"):
        with pytest.raises(FileNotFoundError):
            next(read_manifest(tmp_path / f"rows{suffix}"))


@pytest.mark.parametrize("name", ["manifest_semicolon.csv", "manifest.tsv", "manifest.json"])
def test_manifests_as_people_hold_them(name: str, shared_data: Path) -> None:
    (item,) = read_items([str(shared_data / "cases" / name)], None)
    assert item.image == shared_data / "cases" / "red.png"
    assert item.prompt == "a red square"
    assert str(item.others["seed"]) == "7"


@pytest.mark.parametrize("image", ["image", "path", "File_Name", "filename", "image_path", "url"])
@pytest.mark.parametrize("prompt", ["prompt", "Text", "caption"])
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_columns_are_known_by_many_names(
    image: str, prompt: str, suffix: str, tmp_path: Path
) -> None:
    path = write(tmp_path / f"rows{suffix}", [{prompt: "a cat", image: "a.png"}])
    (item,) = read_manifest(path)
    assert (item.image, item.prompt) == (tmp_path / "a.png", "a cat")


def test_columns_may_be_named(tmp_path: Path) -> None:
    row = {"image": "a.png", "other": "b.png", "prompt": "a cat", "words": "a dog"}
    for suffix in (".jsonl", ".tsv", ".parquet"):
        path = write(tmp_path / f"rows{suffix}", [row])
        (item,) = read_items([str(path)], None, Columns(image="other", prompt="words"))
        assert (item.image, item.prompt) == (tmp_path / "b.png", "a dog")
        assert item.others == {"image": "a.png", "prompt": "a cat"}
    with pytest.raises(ValueError, match=r"rows\.tsv: .*only image, .*; expected 'photo', or name"):
        list(read_manifest(tmp_path / "rows.tsv", Columns(image="photo")))
    (item,) = read_manifest(tmp_path / "rows.jsonl", Columns(prompt="photo"))
    assert "no column for the prompt, only image, other, prompt, words" in str(item.image)
    with pytest.raises(ValueError, match="for a manifest; there is none"):
        read_items(["a.png"], "a cat", Columns(image="photo"))


def test_other_columns_are_those_of_the_first_good_row(tmp_path: Path) -> None:
    rows: list[Mapping[str, object]] = [
        {"image": "a.png"},
        {"image": "a.png", "prompt": "x", "seed": 1, "list": [1], "none": None, "nan": math.nan},
        {"image": "a.png", "prompt": "x", "list": 3, "score": 4},
    ]
    items = read_items([str(write(tmp_path / "rows.jsonl", rows))], None)
    nothing = {"seed": None, "none": None, "nan": None}
    assert [item.others for item in items] == [nothing, nothing | {"seed": 1}, nothing]


def test_addresses_are_no_manifests() -> None:
    assert not is_manifest("https://host/rows.csv")
    assert is_manifest("rows.TSV")
