"""Rows out of every kind of file: the same rows whatever holds them, and errors that say where."""

import gzip
import json
import math
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.archives import png, write_tar

from stablepref.data import rows
from stablepref.data.groups import DataError
from stablepref.data.hub import choose_split, dataset_rows, hub_rows
from stablepref.data.json_values import json_entries
from stablepref.data.rows import (
    import_extra,
    parquet_rows,
    read_rows,
    tar_rows,
)


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_json_arrays_equal_what_the_json_module_reads(
    tmp_path: Path, count: int, indent: int | None
) -> None:
    entries = [{"a": [i, "],["], "b": {"ü": "}\n"}} for i in range(count)]
    path = tmp_path / "d.json"
    path.write_text(f" \n{json.dumps(entries, indent=indent)}\n ", encoding="utf-8")
    assert list(json_entries(path)) == [(f"entry {i + 1}", e) for i, e in enumerate(entries)]


def test_json_entries_come_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    path.write_text('[{"a": 1}, {"a": 2}, broken')
    entries = json_entries(path)
    assert [next(entries), next(entries)] == [("entry 1", {"a": 1}), ("entry 2", {"a": 2})]
    with pytest.raises(DataError, match="line 1: not JSON"):
        next(entries)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1}', "line 1: not JSON: expected an array of objects, found '{\"a\": 1}'"),
        ("", "line 1: not JSON: expected an array of objects, found the end"),
        ('[{"a": 1}\n{"a": 2}]', "line 2: not JSON: expected ',' or ']'"),
        ('[{"a": 1},\n{"a": }]', "line 2: not JSON"),
        ('[{"a": 1},]', "line 1: not JSON"),
        ('[{"a": 1}', "not JSON: expected ',' or ']', found the end"),
        ('[{"a": 1}]\n{}', "text after the end"),
    ],
)
def test_json_that_is_not_an_array_of_objects_is_named(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "d.json"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        list(json_entries(path))
    assert message in str(caught.value)


def test_parquet_rows(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    entries = [{"caption": f"p{i}", "jpg_0": png(i), "n": [i, i + 1]} for i in range(150)]
    parquet.write_table(pyarrow.Table.from_pylist(entries), tmp_path / "d.parquet")
    read = list(parquet_rows(tmp_path / "d.parquet"))
    assert [row for _, row in read] == entries
    assert [place for place, _ in read[:2]] == ["row 1", "row 2"]

    content = (tmp_path / "d.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="not readable as Parquet"):
        list(parquet_rows(tmp_path / "cut.parquet"))


SAMPLES = {
    "a/000.json": json.dumps({"prompt": "one", "ranks": [1, 2, 3]}).encode(),
    **{f"a/000.{i}.png": png(i) for i in (2, 0, 1)},
    "a/001.txt": b"two",
    "a/001.webp": png(9),
    "b/001.left.png": png(3),
    "b/001.jpg_0": png(4),
}


def test_samples_of_a_shard(tmp_path: Path) -> None:
    read = list(tar_rows(write_tar(tmp_path / "d.tar", SAMPLES)))
    assert read == [
        ("sample a/000", {"prompt": "one", "ranks": [1, 2, 3], "images": [png(0), png(1), png(2)]}),
        ("sample a/001", {"prompt": "two", "image": png(9)}),
        ("sample b/001", {"left": png(3), "jpg_0": png(4)}),
    ]


def test_shards_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "d.tar", SAMPLES).read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[:1800])
    with pytest.raises(DataError, match="not readable as a tar file"):
        list(tar_rows(tmp_path / "cut.tar"))
    (tmp_path / "not.tar").write_bytes(b"something else" * 100)
    with pytest.raises(DataError, match="not readable as a tar file"):
        list(tar_rows(tmp_path / "not.tar"))


def test_single_rows_that_are_not_valid_are_errors_in_their_place(tmp_path: Path) -> None:
    members = {"a.json": b"{", "b.json": b"[1]", "c.json": b"{}"}
    shard = dict(read_rows(write_tar(tmp_path / "d.tar", members)))
    assert "its json is not valid" in str(shard["sample a"])
    assert str(shard["sample b"]) == "a list; expected a JSON object"
    assert shard["sample c"] == {}
    (tmp_path / "d.json").write_text('[{"a": 1}, 2, {"a": 3}]')
    entries = list(read_rows(tmp_path / "d.json"))
    assert str(entries[1][1]) == "a int; expected a JSON object"
    assert entries[2] == ("entry 3", {"a": 3})
    mixed = dict(dataset_rows([{}, ["p"], {}]))
    assert str(mixed["row 2"]) == "a list; expected a mapping of columns"
    assert mixed["row 3"] == {}


def test_the_datasets_library_streams_the_same_samples(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    samples = {key: value for key, value in SAMPLES.items() if key.startswith("a/000")}
    path = write_tar(tmp_path / "d.tar", samples)
    stream = datasets.load_dataset(
        "webdataset", data_files={"train": str(path)}, streaming=True, split="train"
    )
    ((place, row),) = dataset_rows(stream)
    assert isinstance(row, dict)
    assert place == "sample a/000"
    assert (row["prompt"], list(row["ranks"])) == ("one", [1, 2, 3])
    assert [image["bytes"] for image in row["images"]] == [png(0), png(1), png(2)]


@pytest.mark.parametrize("streaming", [True, False])
def test_image_columns_are_left_undecoded(streaming: bool) -> None:
    datasets = pytest.importorskip("datasets")
    broken = b"\x89PNG but nothing else"
    table = datasets.Dataset.from_dict({"prompt": ["p"], "image": [[png(1), broken]]})
    features = datasets.Features(
        {"prompt": datasets.Value("string"), "image": datasets.List(datasets.Image())}
    )
    table = table.cast(features)
    source = table.to_iterable_dataset() if streaming else table
    ((place, row),) = dataset_rows(source)
    assert isinstance(row, dict)
    assert place == "row 1"
    assert [image["bytes"] for image in row["image"]] == [png(1), broken]


def test_iterables_of_mappings_are_rows() -> None:
    good = {"prompt": "p"}
    assert list(dataset_rows(iter([good, good]))) == [("row 1", good), ("row 2", good)]


def test_splits() -> None:
    one, other = [{"a": 1}], [{"a": 2}]
    assert choose_split({"train": one}, "d", None) is one
    assert choose_split({"train": one, "test": other}, "d", "test") is other
    assert choose_split(one, "d", None) is one
    for split in (None, "dev"):
        with pytest.raises(ValueError, match=r"d: split is .*; expected one of: train, test"):
            choose_split({"train": one, "test": other}, "d", split)


def test_a_folder_saved_by_datasets(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    parts = {name: datasets.Dataset.from_dict({"a": [name]}) for name in ("train", "test")}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    saved = hub_rows(str(tmp_path / "saved"), "test")
    assert [row for _, row in dataset_rows(saved)] == [{"a": "test"}]


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ImportError, match=r"needs no_such_library: pip install 'stablepref\[train\]'"
    ):
        import_extra("no_such_library.part")

    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(ImportError, match="needs pyarrow"):
        next(parquet_rows(Path("d.parquet")))
    with pytest.raises(ImportError, match="needs datasets"):
        hub_rows("user/repository", None)


TABLE = '\ufeffname;words\r\nà;"one; two\nthree"\r\n\r\nb\r\n'


@pytest.mark.parametrize("mark", [";", ",", "\t"])
@pytest.mark.parametrize("suffix", [".csv", ".CSV", ".tsv"])
def test_tables(mark: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"d{suffix}"
    mark = "\t" if suffix == ".tsv" else mark
    path.write_bytes(TABLE.replace(";", mark).encode())
    assert list(read_rows(path)) == [
        ("line 3", {"name": "à", "words": f"one{mark} two\nthree"}),
        ("line 5", {"name": "b", "words": None}),
    ]


def test_quotes_without_a_meaning_in_tsv(tmp_path: Path) -> None:
    path = tmp_path / "d.tsv"
    path.write_text('words\tn\n"Hello" on a sign\t1\n"open\t2\n')
    assert [row for _, row in read_rows(path)] == [
        {"words": '"Hello" on a sign', "n": "1"}, {"words": '"open', "n": "2"}
    ]  # fmt: skip


def test_rows_of_a_table_that_are_not_valid(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    lines = [b"a,b", b"1,2", b"1,2,3", b"caf\xe9,2", b'"x" y,2', b'"two\nlines" y,2', b"3,4"]
    path.write_bytes(b"\n".join(lines))
    rows = dict(read_rows(path))
    assert list(rows) == [f"line {number}" for number in (2, 3, 4, 5, 7, 8)]
    assert rows["line 8"] == {"a": "3", "b": "4"}
    for line, part in (
        (3, "3 cells for 2 columns; cells that hold the separator need quotes"),
        (4, "not UTF-8 text"),
        (5, "not readable as a row of a table (',' expected"),
        (7, "not readable as a row of a table in lines 6 to 7"),
    ):
        assert isinstance(rows[f"line {line}"], ValueError)
        assert part in str(rows[f"line {line}"])
    path.write_bytes(b"caf\xe9,b\n1,2\n")
    with pytest.raises(DataError, match=r"d\.csv, line 1: .*not UTF-8 text"):
        list(read_rows(path))
    path.write_bytes(b"\n\n")
    assert list(read_rows(path)) == []


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    for name, text in (("d.jsonl", '{"a": 1}\n'), ("d.json", '[{"a": 1}]'), ("d.csv", "a\n1\n")):
        (tmp_path / name).write_text(text, encoding="utf-8-sig")
        ((_, row),) = read_rows(tmp_path / name)
        assert isinstance(row, dict)
        assert list(row) == ["a"]


DEEP = "[" * 100_000 + "]" * 100_000
LONG = "9" * 5000


@pytest.mark.parametrize("kind", ["jsonl", "json", "tar"])
def test_values_too_deep_or_too_long_are_errors_of_their_row(kind: str, tmp_path: Path) -> None:
    texts = ['{"a": 1}', f'{{"a": {DEEP}, "b": "]\\\\\\"]"}}', f'{{"a": {LONG}}}', '{"a": 2}']
    path = tmp_path / f"d.{kind}"
    if kind == "tar":
        write_tar(path, {f"{n}.json": text.encode() for n, text in enumerate(texts)})
    else:
        path.write_text("\n".join(texts) if kind == "jsonl" else f"[{', '.join(texts)}]")
    first, deep, long, last = (row for _, row in read_rows(path))
    assert (first, last) == ({"a": 1}, {"a": 2})
    assert "nested too deeply" in str(deep)
    assert long == {"a": math.inf}


def test_text_in_a_shard_that_is_not_utf_8(tmp_path: Path) -> None:
    members = {"a.txt": b"caf\xe9", "b.json": b'{"a": "\xff"}', "c.txt": b"x", "c.jfif": png(1)}
    shard = dict(read_rows(write_tar(tmp_path / "d.tar", members)))
    assert "its txt is not UTF-8 text" in str(shard["sample a"])
    assert "its json is not valid: not UTF-8 text" in str(shard["sample b"])
    assert shard["sample c"] == {"prompt": "x", "image": png(1)}


def test_columns_of_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet").write_table(
        pyarrow.Table.from_pylist([{"a": 1, "b": 2, "c": 3}]), tmp_path / "d.parquet"
    )
    assert list(parquet_rows(tmp_path / "d.parquet", ["a", "c"])) == [("row 1", {"a": 1, "c": 3})]


@pytest.mark.parametrize("sparse", [True, False])
def test_a_shard_that_declares_gigabytes_is_refused(sparse: bool, tmp_path: Path) -> None:
    member = tarfile.TarInfo("a.jpg")
    member.size = 2**40
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    if sparse:  # GNU's old form: the type S, and the real size where it stands there
        header[156:157] = b"S"
        header[124:136] = b"00000000000\0"
        header[386:410] = b"00000000000\0" * 2
        header[483:495] = b"77777777777\0"
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header[:512])
    path = tmp_path / "shard.tar"
    path.write_bytes(bytes(header) + bytes(1024))
    with pytest.raises(DataError, match=r"a\.jpg is .* bytes; expected whole files"):
        list(tar_rows(path))


def long_name() -> bytes:
    """A header whose name has 3 MiB."""
    return tarfile.TarInfo("a" * 3 * 2**20 + ".jpg").tobuf(tarfile.GNU_FORMAT)


def chained() -> bytes:
    """Extended headers one after the other, which tarfile reads one inside the other."""
    return tarfile.TarInfo("a" * 200).tobuf(tarfile.PAX_FORMAT)[:1024] * 1000


def sparse_map() -> bytes:
    """GNU's newest form of a sparse file, with a map of a million entries in its content."""
    member = tarfile.TarInfo("a.jpg")
    member.size = 2**22
    member.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "a.jpg",
        "GNU.sparse.realsize": "0",
    }
    return member.tobuf(tarfile.PAX_FORMAT) + b"1000000\n" + b"0\n" * 2**21


@pytest.mark.parametrize("header", [long_name, chained, sparse_map], ids=lambda f: f.__name__)
def test_a_gzipped_shard_whose_headers_explode_is_refused(
    header: Callable[[], bytes], tmp_path: Path
) -> None:
    path = tmp_path / "shard.tar"
    path.write_bytes(gzip.compress(header() + bytes(2**12)))
    with pytest.raises(DataError, match=r"longer than the 1,048,576 bytes allowed|recursion"):
        list(tar_rows(path))


def test_a_sample_that_is_too_large_together_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tar(tmp_path / "shard.tar", {f"k.{n}.jpg": bytes(60) for n in range(3)})
    assert len(list(tar_rows(tmp_path / "shard.tar"))) == 1
    monkeypatch.setattr(rows, "LARGEST_MEMBER", 150)
    with pytest.raises(DataError, match="the files of sample k have more than 150 bytes"):
        list(tar_rows(tmp_path / "shard.tar"))
