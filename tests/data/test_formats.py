"""What the rows of each data set mean, on rows as their makers publish them."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.archives import png
from helpers.commandline import run
from helpers.plugin import install_plugin

import stablepref
from stablepref.data.convert import Format, LeftOutError
from stablepref.data.formats import (
    FORMATS,
    detect_format,
    hpdv2_gallery_group,
    hpdv2_test_group,
    hpdv2_train_group,
    imagereward_group,
    imagerewarddb_group,
    imagerewarddb_rows,
    pickapic_group,
    stablepref_group,
)
from stablepref.data.groups import DataError, Exclusions, RankedGroup
from stablepref.data.read import read_groups

ROOT = Path("root")

IMAGEREWARD = {
    "id": "005658-0040",
    "prompt": "a portal",
    "generations": ["part/a.webp", "part/b.webp", "part/c.webp", "part/d.webp"],
    "ranking": [1, 2, 5, 3],
}
HPDV2_TRAIN = {
    "human_preference": [0, 1],
    "prompt": "a cat",
    "file_path": ["1.jpg", "2.jpg"],
    "user_hash": "9f",
}
HPDV2_TEST = {
    "prompt": "a dog",
    "image_path": ["1.jpg", "2.jpg", "3.jpg"],
    "rank": [2, 1, 3],
    "raw_annotations": [
        {"rank": [2, 1, 3], "user_hash": "x"},
        {"annotation": [1, 2, 3], "user_hash": "y"},
    ],
}
HPDV2_GALLERY = {
    "prompt": "a ski trip",
    "image_path": ["1.jpg", "2.jpg", "3.jpg"],
    # rankings[image][annotator]: means 4/3, 5/3 and 3.
    "rankings": [[1, 1, 2], [2, 2, 1], [3, 3, 3]],
}
PICKAPIC = {
    "caption": "a tree",
    "jpg_0": b"zero",
    "jpg_1": b"one",
    "label_0": 0.0,
    "label_1": 1.0,
    "has_label": True,
    "num_example_per_prompt": 3,
    "ranking_id": 17,
    "user_id": None,
}
IMAGEREWARDDB = {
    "image_path": "images/train/1.webp",
    "prompt_id": "001324-0093",
    "prompt": "a forest",
    "classification": "Outdoor Scenes",
    "image_amount_in_total": 2,
    "rank": 3,
    "overall_rating": 6,
    "image_text_alignment_rating": 5,
    "fidelity_rating": 4,
}


def test_imagereward_keeps_gaps() -> None:
    group = imagereward_group(IMAGEREWARD, ROOT)
    assert list(group.ranks) == [1, 2, 5, 3]
    assert group.images[0] == ROOT / "part" / "a.webp"
    assert (group.prompt, group.id) == ("a portal", "005658-0040")


def test_hpdv2_train_ranks_the_preferred_image_first() -> None:
    group = hpdv2_train_group(HPDV2_TRAIN, ROOT)
    assert group.pairs() == [(1, 0)]
    assert group.images == (ROOT / "1.jpg", ROOT / "2.jpg")
    assert group.metadata == {"user_hash": "9f"}
    assert hpdv2_train_group(HPDV2_TRAIN | {"human_preference": [1, 1]}, ROOT).ties() == [(0, 1)]


@pytest.mark.parametrize("key", ["raw_annotations", "raw_annotation"])
def test_hpdv2_test_reads_the_raw_annotations(key: str) -> None:
    row: dict[str, Any] = dict(HPDV2_TEST)
    row[key] = row.pop("raw_annotations")
    group = hpdv2_test_group(row, None)
    assert list(group.ranks) == [2, 1, 3]
    assert [list(ranks) for ranks in group.annotations] == [[2, 1, 3], [1, 2, 3]]
    assert group.annotators == ("x", "y")
    bare = {name: row[name] for name in ("prompt", "image_path", "rank")}
    assert hpdv2_test_group(bare, None).annotations == ()


def test_hpdv2_gallery_averages_and_transposes() -> None:
    group = hpdv2_gallery_group(HPDV2_GALLERY, None)
    assert list(group.ranks) == [4 / 3, 5 / 3, 3]
    assert [list(ranks) for ranks in group.annotations] == [[1, 2, 3], [1, 2, 3], [2, 1, 3]]
    even = hpdv2_gallery_group(HPDV2_GALLERY | {"rankings": [[1, 2], [2, 1], [3, 3]]}, None)
    assert even.ties() == [(0, 1)]


@pytest.mark.parametrize(
    ("labels", "ranks"), [((1, 0), (1, 2)), ((0.0, 1.0), (2, 1)), ((0.5, 0.5), (1, 1))]
)
def test_pickapic_labels(labels: tuple[float, float], ranks: tuple[float, float]) -> None:
    group = pickapic_group(PICKAPIC | {"label_0": labels[0], "label_1": labels[1]}, None)
    assert group.ranks == ranks
    assert group.images == (b"zero", b"one")
    assert (group.id, group.metadata) == ("17", {"num_example_per_prompt": 3})


def test_pickapic_without_label_is_left_out_and_without_bytes_uses_urls() -> None:
    with pytest.raises(LeftOutError, match="has_label is false"):
        pickapic_group(PICKAPIC | {"has_label": False}, None)
    urls = {"jpg_0": None, "image_0_url": "https://a", "jpg_1": b"", "image_1_url": "https://b"}
    assert pickapic_group(PICKAPIC | urls, None).images == ("https://a", "https://b")


def joined(rows: list[tuple[str, dict[str, Any]]]) -> list[tuple[str, Mapping[str, Any]]]:
    """The joined rows, of which none is an error."""
    merged = list(imagerewarddb_rows(iter(rows)))
    return [(place, row) for place, row in merged if not isinstance(row, ValueError)]


def test_imagerewarddb_rows_are_joined_in_any_order() -> None:
    def entry(name: str, image: int, rank: int, total: int) -> tuple[str, dict[str, Any]]:
        own = {"prompt_id": name, "prompt": f"prompt {name}", "rank": rank}
        own |= {"image_path": f"{name}{image}.webp", "image_amount_in_total": total}
        return f"row {name}{image}", IMAGEREWARDDB | own

    rows = [entry("a", 0, 2, 3), entry("b", 0, 1, 2), entry("a", 1, 1, 3), entry("b", 1, 1, 2)]
    rows += [entry("c", 0, 1, 2), entry("a", 2, 2, 3), entry("d", 0, 4, 9), entry("d", 1, 2, 9)]
    merged = joined(rows)
    # b is complete first, then a; c and d, of which images are missing, follow at the end.
    assert [place for place, _ in merged] == ["row b0", "row a0", "row c0", "row d0"]

    group = imagerewarddb_group(merged[1][1], ROOT)
    assert (group.prompt, group.id, group.ranks) == ("prompt a", "a", (2, 1, 2))
    assert group.images == tuple(ROOT / f"a{image}.webp" for image in range(3))
    assert group.metadata == {
        "classification": "Outdoor Scenes",
        "overall_rating": [6, 6, 6],
        "image_text_alignment_rating": [5, 5, 5],
        "fidelity_rating": [4, 4, 4],
    }
    with pytest.raises(LeftOutError, match="only one image"):
        imagerewarddb_group(merged[2][1], ROOT)
    assert imagerewarddb_group(merged[3][1], ROOT).ranks == (4, 2)


def test_imagerewarddb_images_may_be_bytes() -> None:
    images = [{"bytes": b"x", "path": None}, {"bytes": b"y", "path": None}]
    rows = [("row", {**IMAGEREWARDDB, "image": image}) for image in images]
    ((_, merged),) = joined(rows)
    assert imagerewarddb_group(merged, None).images == (b"x", b"y")


def test_imagerewarddb_rows_that_are_not_valid_keep_their_place() -> None:
    bad = {key: value for key, value in IMAGEREWARDDB.items() if key != "prompt_id"}
    found: list[Any] = [ValueError("broken"), bad, IMAGEREWARDDB]
    rows = zip(("row 1", "row 2", "row 3"), found, strict=True)
    first, second, third = imagerewarddb_rows(iter(rows))
    assert str(first[1]) == "broken"
    assert (second[0], str(second[1])[:30]) == ("row 2", "the key 'prompt_id' is missing")
    assert third[0] == "row 3"


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("stablepref", {"prompt": "p", "images": ["a", "b"], "ranks": [1, 2]}),
        ("imagereward", IMAGEREWARD),
        ("imagerewarddb", IMAGEREWARDDB),
        ("hpdv2-train", HPDV2_TRAIN),
        ("hpdv2-test", HPDV2_TEST),
        ("hpdv2-gallery", HPDV2_GALLERY),
        ("pickapic", PICKAPIC),
    ],
)
def test_every_format_is_recognised(name: str, row: dict[str, Any]) -> None:
    assert detect_format(row) == name
    assert name in FORMATS


def test_unknown_keys_are_shown_with_those_that_are_known() -> None:
    with pytest.raises(
        ValueError,
        match=r"the keys text, url are those of no known format.*pickapic: caption, label",
    ):
        detect_format({"url": "", "text": ""})


@pytest.mark.parametrize(
    ("convert", "row", "message"),
    [
        (imagereward_group, IMAGEREWARD | {"ranking": [1, 2]}, "ranks has 2 .* 4 images"),
        (imagereward_group, {"prompt": "p"}, "'generations' is missing"),
        (imagereward_group, IMAGEREWARD | {"generations": "a.png"}, "list of images is a str"),
        (hpdv2_train_group, HPDV2_TRAIN | {"human_preference": [2, 1]}, "list of 0 and 1"),
        (hpdv2_train_group, HPDV2_TRAIN | {"human_preference": 1}, "list of 0 and 1"),
        (hpdv2_test_group, HPDV2_TEST | {"rank": [1, 2]}, "ranks has 2"),
        (hpdv2_test_group, HPDV2_TEST | {"raw_annotations": [[1, 2, 3]]}, "list of objects"),
        (hpdv2_test_group, HPDV2_TEST | {"raw_annotations": [{"user": 1}]}, "no ranks.*user"),
        (hpdv2_gallery_group, HPDV2_GALLERY | {"rankings": [[1], [2, 1], [3]]}, "as many ranks"),
        (hpdv2_gallery_group, HPDV2_GALLERY | {"rankings": [[], [], []]}, "not empty"),
        (hpdv2_gallery_group, HPDV2_GALLERY | {"rankings": [[1], [2]]}, "has 2 .* 3 images"),
        (pickapic_group, PICKAPIC | {"label_0": 1.0}, r"\(1.0, 1.0\); expected 1 and 0"),
        (pickapic_group, PICKAPIC | {"jpg_0": None}, "an image is None"),
    ],
)
def test_rows_that_are_not_valid_are_explained(
    convert: Callable[[Any, Path | None], RankedGroup], row: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        convert(row, None)


def test_imagerewarddb_grouped_by_prompt(shared_data: Path) -> None:
    (group,) = read_groups(shared_data / "cases" / "imagerewarddb_grouped.json")
    assert group.ranks == (1, 2, 3, 3)
    assert (len(group.pairs()), len(group.ties())) == (5, 1)
    assert group.metadata["classification"] == "Outdoor Scenes"


def test_imagerewarddb_by_group_and_by_pair_as_rows() -> None:
    """Its three configurations of one prompt: a row an image, a row a group, a row a pair."""
    images = [f"{name}.webp" for name in "abcd"]
    ranks = [1, 2, 3, 3]
    own = {"prompt_id": "7", "prompt": "a forest", "image_amount_in_total": 4}
    single = [
        own | {"image_path": image, "rank": rank} for image, rank in zip(images, ranks, strict=True)
    ]
    (joined_group,) = read_groups(single)
    (whole,) = read_groups([own | {"image_path": images, "rank": ranks}])
    assert whole == joined_group
    assert (len(whole.pairs()), len(whole.ties())) == (5, 1)
    pair = {"prompt_id": "7", "prompt": "a forest", "img_better": "a.webp", "img_worse": "c.webp"}
    (better,) = read_groups([pair])
    assert (better.images, better.pairs(), better.id) == (
        (Path("a.webp"), Path("c.webp")), [(0, 1)], "7"
    )  # fmt: skip


def test_imagerewarddb_pairs(shared_data: Path) -> None:
    (group,) = read_groups(shared_data / "cases" / "imagerewarddb_pair.json")
    assert [Path(str(image)).name for image in group.images] == ["a.png", "c.png"]
    assert group.pairs() == [(0, 1)]


def test_arrays_in_rows_are_lists() -> None:
    images = np.array(["a.png", "b.png", "c.png"])
    test = hpdv2_test_group(
        {
            "prompt": np.str_("a dog"),
            "image_path": images,
            "rank": np.array([2.0, 1.0, 3.0], np.float32),
            "raw_annotations": [{"rank": np.array([2, 1, 3]), "user_hash": np.int64(7)}],
        },
        None,
    )
    assert (test.ranks, test.annotations, test.annotators) == ((2, 1, 3), ((2, 1, 3),), ("7",))
    assert test.images == (Path("a.png"), Path("b.png"), Path("c.png"))
    gallery = hpdv2_gallery_group(
        HPDV2_GALLERY | {"image_path": images, "rankings": np.array([[1, 2], [2, 1], [3, 3]])}, None
    )
    assert gallery.ranks == (1.5, 1.5, 3)
    pick = pickapic_group(PICKAPIC | {"label_0": np.float32(0.5), "label_1": np.float64(0.5)}, None)
    assert pick.ties() == [(0, 1)]
    own = {"prompt": "p", "images": images, "ranks": np.arange(3), "seeds": np.array([1, 2])}
    assert stablepref_group(own, None).metadata == {"seeds": [1, 2]}
    pictures = np.zeros((2, 4, 4, 3), np.uint8)
    held = stablepref_group({"prompt": "p", "images": pictures, "ranks": [1, 2]}, None)
    assert [image.shape for image in held.images] == [(4, 4, 3)] * 2  # type: ignore[attr-defined]


PLUGIN = """
from stablepref.data import Format, RankedGroup

def votes(row, folder):
    ranks = (1, 2) if row["first"] > row["second"] else (2, 1)
    return RankedGroup(row["what"], (folder / row["one"], folder / row["two"]), ranks)

FORMAT = Format(votes, keys={"what", "one", "two", "first", "second"})
FUNCTION = votes
"""
VOTES = {"what": "a cat", "one": "0.png", "two": "1.png", "first": 3, "second": 5}


def test_a_format_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One function and one row: by name and by its keys, in Python and on the command line."""
    package = tmp_path / "package"
    package.mkdir()
    names = {"votes": "FORMAT", "bare": "FUNCTION"}
    install_plugin(package, monkeypatch, PLUGIN, {"stablepref.readers": names})
    data = tmp_path / "data.jsonl"
    data.write_text(f"{json.dumps(VOTES)}\n" + json.dumps(VOTES | {"first": "x"}) + "\n")
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(png(number))
    for name in ("votes", "auto"):
        counted = Exclusions()
        (group,) = stablepref.read_groups(data, name, on_error="skip", exclusions=counted)
        assert (group.prompt, group.ranks) == ("a cat", (2, 1))
        ((reason, count),) = counted.counts.items()
        assert count == 1
        assert reason.startswith("not a row of the format votes (TypeError: '>' not supported")
    with pytest.raises(DataError, match=r"line 2: not a row of the format votes"):
        list(stablepref.read_groups(data, "votes"))
    with pytest.raises(TypeError, match=r"'bare' is a function; expected a stablepref\.data"):
        list(stablepref.read_groups(data, "bare"))
    done = run("data", "check", data, "--format", "votes", "--json")
    (split,) = json.loads(done.stdout)["splits"]
    assert (split["groups"], split["pairs"], split["usable_pairs"]) == (1, 1, 1)
    known = run("data", "check", data, "--format", "vote")
    assert known.returncode == 2
    assert "format is 'vote'; expected one of: auto, " in known.stderr
    assert "votes" in known.stderr


def test_a_format_registered_by_a_program() -> None:
    def convert(row: Mapping[str, Any], folder: Path | None) -> RankedGroup:
        return RankedGroup(row["q"], (b"a", b"b"), row["order"])

    FORMATS.register("mine", Format(convert))
    try:
        (group,) = read_groups([{"q": "a cat", "order": [2, 1]}], "mine")
        assert group.pairs() == [(1, 0)]
        with pytest.raises(DataError, match="no known format"):  # it has no keys to be known by
            next(read_groups([{"q": "a cat", "order": [2, 1]}]))
    finally:
        FORMATS.unregister("mine")
