"""`read_groups` on real files, on every kind of file, and on what goes wrong."""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest
from helpers.archives import png, write_tar

from stablepref.data.formats import FORMATS
from stablepref.data.groups import DataError, Exclusions, RankedGroup
from stablepref.data.read import format_names, read_folder, read_groups
from stablepref.data.write import write_jsonl

ROW = {"prompt": "p", "images": ["a.png", "b.png"], "ranks": [1, 2]}
PICK = {"caption": "c", "jpg_0": png(0), "jpg_1": png(1), "label_0": 1.0, "label_1": 0.0}


def write_json(path: Path, rows: Iterable[object]) -> Path:
    """Write rows as a JSON array or as JSON Lines, by the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = [json.dumps(row) for row in rows]
    path.write_text("\n".join(texts) if path.suffix == ".jsonl" else f"[{', '.join(texts)}]")
    return path


def test_imagereward_test_split(shared_data: Path) -> None:
    """The counts of the published split: 466 prompts, 7,230 pairs, 6,399 of them untied."""
    groups = list(read_groups(shared_data / "imagereward" / "test.json"))
    pairs = sum(len(group.pairs()) for group in groups)
    ties = sum(len(group.ties()) for group in groups)
    assert (len(groups), pairs + ties, pairs) == (466, 7230, 6399)
    first = groups[0]
    assert (first.id, first.ranks) == ("005658-0040", (1, 2, 5, 3))


def test_hpdv2_gallery(shared_data: Path) -> None:
    """40 groups of 9 or 10 images, 10 annotators whose ranks are permutations, images found."""
    groups = list(read_groups(shared_data / "hpdv2_gallery" / "groups.json"))
    assert len(groups) == 40
    assert sum(len(group.images) for group in groups) == 371
    for group in groups:
        assert all(isinstance(image, Path) and image.is_file() for image in group.images)
        count = len(group.images)
        assert len(group.annotations) == 10
        assert all(sorted(ranks) == list(range(1, count + 1)) for ranks in group.annotations)
        assert sum(group.ranks) == pytest.approx(count * (count + 1) / 2)


def test_every_kind_of_file_gives_the_same_groups(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    datasets = pytest.importorskip("datasets")
    rows = [{"prompt": f"p{i}", "images": [png(i), png(9)], "ranks": [i, 1]} for i in range(3)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "d.parquet")
    members = {}
    for index, row in enumerate(rows):
        fields = json.dumps({"prompt": row["prompt"], "ranks": row["ranks"]})
        members[f"{index}.json"] = fields.encode()
        members |= {f"{index}.{n}.png": image for n, image in enumerate([png(index), png(9)])}
    write_tar(tmp_path / "d.tar", members)
    expected = [RankedGroup(f"p{i}", (png(i), png(9)), (i, 1)) for i in range(3)]
    write_jsonl(tmp_path / "d.jsonl", expected, image_folder=tmp_path / "images")

    assert list(read_groups(rows)) == expected
    assert list(read_groups(tmp_path / "d.parquet")) == expected
    assert list(read_groups(str(tmp_path / "d.tar"))) == expected
    assert list(read_groups(datasets.Dataset.from_list(rows))) == expected
    assert list(read_groups({"train": rows}, split="train")) == expected
    read = list(read_groups(tmp_path / "d.jsonl"))
    assert [g.ranks for g in read] == [g.ranks for g in expected]
    contents = [tuple(i.read_bytes() for i in g.images if isinstance(i, Path)) for g in read]
    assert contents == [group.images for group in expected]


def test_shards_are_read_in_order_and_splits_are_told_apart(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for shard in (1, 0):
            row = ROW | {"prompt": f"{split} {shard}"}
            write_json(tmp_path / f"{split}-0000{shard}-of-00002.jsonl", [row])
    read = list(read_groups(tmp_path, split="test"))
    assert [group.prompt for group in read] == ["test 0", "test 1"]
    assert read[0].images == (tmp_path / "a.png", tmp_path / "b.png")
    for wrong in (None, "validation"):
        with pytest.raises(ValueError, match=r"holds test.jsonl, train.jsonl and split is"):
            read_groups(tmp_path, split=wrong)
    write_json(tmp_path / "test-00001-of-00002.jsonl", [{"prompt": "p"}])
    with pytest.raises(DataError, match=r"test-00001-of-00002.jsonl, line 1: the key 'images'"):
        list(read_groups(tmp_path, split="test"))


def test_images_are_looked_for_where_the_data_sets_keep_them(tmp_path: Path) -> None:
    row = {"prompt": "p", "file_path": ["a.png", "b.png"], "human_preference": [0, 1]}
    path = write_json(tmp_path / "train.json", [row, row])
    assert next(read_groups(path)).images[0] == tmp_path / "a.png"  # none is there: the default
    for folder in ("images", "train"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "b.png").write_bytes(png(0))
        assert next(read_groups(path)).images[0] == tmp_path / folder / "a.png"
    assert next(read_groups(path, images=tmp_path / "own")).images[1] == tmp_path / "own" / "b.png"
    # The project's own format always starts at the file's folder.
    own = write_json(tmp_path / "train.jsonl", [ROW])
    assert next(read_groups(own)).images[0] == tmp_path / "a.png"


def test_errors_stop_or_are_counted(tmp_path: Path) -> None:
    rows = [ROW, ROW | {"ranks": [1]}, ROW, {"prompt": "p"}, "text"]
    path = write_json(tmp_path / "d.jsonl", rows)
    with pytest.raises(DataError, match=r"d.jsonl, line 2: ranks has 1"):
        list(read_groups(path))
    exclusions = Exclusions()
    read = list(read_groups(path, on_error="skip", exclusions=exclusions))
    assert len(read) == 2
    assert exclusions.counts.total() == 3
    assert exclusions.places["ranks has 1 item(s) for 2 images; expected as many"] == [
        f"{path}, line 2"
    ]


def test_a_bad_first_line_does_not_hide_the_format(tmp_path: Path) -> None:
    path = write_json(tmp_path / "d.jsonl", ["text", PICK | {"jpg_0": "a", "jpg_1": "b"}])
    exclusions = Exclusions()
    (group,) = read_groups(path, on_error="skip", exclusions=exclusions)
    assert group.prompt == "c"
    assert exclusions.counts == {"a str; expected a JSON object": 1}
    with pytest.raises(DataError, match="line 1: a str; expected a JSON object"):
        next(read_groups(path))
    with pytest.raises(DataError, match="line 1: a str; expected a JSON object"):
        next(read_groups(write_json(path, ["text"]), on_error="skip"))


def test_rows_without_a_label_are_counted_even_when_errors_stop() -> None:
    exclusions = Exclusions()
    rows = [PICK, PICK | {"has_label": False}, PICK | {"label_0": 0.5, "label_1": 0.5}]
    read = list(read_groups(rows, exclusions=exclusions))
    assert [group.ranks for group in read] == [(1, 2), (1, 1)]
    assert exclusions.counts == {"has_label is false": 1}


def test_a_named_format_is_used_and_checked(tmp_path: Path) -> None:
    assert next(read_groups([PICK], "pickapic")).prompt == "c"
    with pytest.raises(DataError, match="row 1: the key 'prompt' is missing"):
        next(read_groups([PICK], "imagereward"))
    with pytest.raises(DataError, match="row 1: the keys text are those of no known format"):
        next(read_groups([{"text": "p"}]))
    with pytest.raises(ValueError, match="is not a folder of images"):
        next(read_groups([PICK], "folder"))
    with pytest.raises(ValueError, match=r"holds no .* so no pickapic data"):
        read_groups(tmp_path, "pickapic")
    with pytest.raises(
        ValueError, match=r"format is 'hpd'; expected one of: auto, labels, stablepref"
    ):
        read_groups([PICK], "hpd")
    with pytest.raises(ValueError, match="on_error is 'ignore'"):
        read_groups([PICK], on_error="ignore")  # type: ignore[arg-type]  # a user's mistake
    assert set(format_names()) == {"auto", "folder", *FORMATS}


def test_sources_that_hold_nothing_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        read_groups(tmp_path / "none.jsonl")
    (tmp_path / "d.xlsx").touch()
    with pytest.raises(ValueError, match=r"ending in '.xlsx' are not read; known are .jsonl"):
        read_groups(tmp_path / "d.xlsx")
    (tmp_path / "d.jsonl").touch()
    with pytest.raises(ValueError, match=r"d.jsonl is empty"):
        next(read_groups(tmp_path / "d.jsonl"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="nothing to read; expected"):
        next(read_groups(tmp_path / "empty"))


def test_a_folder_of_prompts(tmp_path: Path) -> None:
    names = ["a red circle/1.png", "a red circle/2_seed7.JPG", "a red circle/2-b.webp"]
    names += ["long/10.png", "long/9 x.png", "long/1.5.png", ".hidden/1.png", "notes/readme.md"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "long" / "prompt.txt").write_text(" a prompt: with / what names cannot hold\n")
    (tmp_path / "long" / ".3.png").touch()
    first, second = read_groups(tmp_path)
    assert (first.prompt, first.ranks) == ("a red circle", (1, 2, 2))
    assert [p.name for p in first.images if isinstance(p, Path)] == [
        "1.png",
        "2-b.webp",
        "2_seed7.JPG",
    ]
    assert second.prompt == "a prompt: with / what names cannot hold"
    assert list(second.ranks) == [1.5, 10, 9]

    (tmp_path / "long" / "best.png").touch()
    with pytest.raises(DataError, match=r"folder long: best.png does not begin with a rank"):
        list(read_folder(tmp_path))
    exclusions = Exclusions()
    assert len(list(read_groups(tmp_path, on_error="skip", exclusions=exclusions))) == 1
    assert exclusions.counts.total() == 1
    shutil.rmtree(tmp_path / "long")
    (tmp_path / "a red circle" / "1.png").unlink()
    (tmp_path / "a red circle" / "2-b.webp").unlink()
    with pytest.raises(DataError, match="folder a red circle: images has 1 item"):
        list(read_groups(tmp_path, "folder"))


@pytest.mark.parametrize(
    ("names", "ranked"),
    [
        (["high/0001.png", "high/0002.png", "low/0001.png", "low/0002.png"], False),
        (["a red cat/01.png", "a red cat/02.png"], False),
        (["cat/1.png", "cat/2.png"], False),
        (["cat/1.png", "cat/2.png", "cat/prompt.txt"], True),
        (["a cat/1.png", "a cat/2_seed7.jfif"], True),
    ],
)
def test_numbers_are_ranks_only_where_something_says_so(
    names: list[str], ranked: bool, tmp_path: Path
) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("a cat")
    if not ranked:
        with pytest.raises(ValueError, match=r"nothing but their numbers .* give the format 'fold"):
            read_groups(tmp_path)
    for group in read_groups(tmp_path, "auto" if ranked else "folder"):
        assert group.ranks == (1, 2)


def test_other_files_in_a_ranked_folder_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "a cat"
    folder.mkdir()
    for name in ("1.png", "2.heic", "3.avif", "prompt.txt"):
        (folder / name).write_text("a cat")
    with pytest.warns(UserWarning, match=r"a cat: skipped 1 file.*: 1 \.heic"):
        (group,) = read_groups(tmp_path)
    assert group.ranks == (1, 3)


def test_hostile_rows_name_file_and_line(shared_data: Path) -> None:
    path = shared_data / "cases" / "hostile_rows.jsonl"
    counted = Exclusions()
    groups = list(read_groups(path, on_error="skip", exclusions=counted))
    assert [group.prompt for group in groups] == ["a", "b"]
    places = [place for places in counted.places.values() for place in places]
    assert sorted(places) == [f"{path}, line {number}" for number in range(2, 6)]
    with pytest.raises(DataError, match=r"hostile_rows\.jsonl, line 2: ranks\[1\] is 99.* finite"):
        list(read_groups(path))


def test_a_table_of_pairs(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("prompt,img_better,img_worse\na cat,a.png,b.png\n")
    (group,) = read_groups(tmp_path / "d.csv")
    assert group.images == (tmp_path / "a.png", tmp_path / "b.png")
