"""The data check finds exactly what was planted, counts it, and lists it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.archives import png
from helpers.splits import make_split

from stablepref.data.check import check_data


def test_clean_data(tmp_path: Path) -> None:
    path = make_split(tmp_path / "a", [[1, 2, 3], [4, 5]], [(1, 2, 2), (2, 1)])
    report = check_data({"a": path}, examples=1)
    (split,) = report.splits
    assert report.clean
    assert (split.groups, split.images, split.pairs, split.ties) == (2, 5, 3, 1)
    assert (split.usable_groups, split.usable_pairs) == (2, 3)
    assert split.group_sizes == {3: 1, 2: 1}
    assert split.image_sizes == {(4, 4): 5}
    assert [group.prompt for group in split.examples] == ["a 0"]
    assert report.lines()[-1] == "everything can be used"


def test_what_is_planted_is_found(tmp_path: Path) -> None:
    train = make_split(
        tmp_path / "train", [[1, 2, 3], [4, 5], [6, 7, 1]], [(1, 2, 3), (1, 2), (1, 1, 2)]
    )
    test = make_split(tmp_path / "test", [[8, 9], [2, 10]], [(1, 2), (2, 1)])
    rows = [json.loads(line) for line in train.read_text().splitlines()]
    # Image 1 of group 0 is missing, image 0 of group 1 is cut off, line 4 is no JSON, line 5 has
    # one image, and the test split repeats a prompt. Shade 1 occurs twice in the training split.
    (train.parent / rows[0]["images"][1]).unlink()
    cut = train.parent / rows[1]["images"][0]
    cut.write_bytes(cut.read_bytes()[:40])
    with train.open("a") as file:
        file.write('{"prompt"\n{"prompt": "p", "images": ["a.png"], "ranks": [1]}\n')
    extra = json.loads(test.read_text().splitlines()[0]) | {"prompt": "train 0"}
    with test.open("a") as file:
        file.write(json.dumps(extra) + "\n")
    # Give the test split an image of the training split, under another name.
    (test.parent / "copy.png").write_bytes(png(3))
    with test.open("a") as file:
        images = ["copy.png", extra["images"][1]]
        file.write(json.dumps({"prompt": "leak", "images": images, "ranks": [1, 1]}) + "\n")

    report = check_data({"train": train, "test": test}, workers=2)
    first, second = report.splits
    assert not report.clean
    assert (first.groups, first.images, first.pairs, first.ties) == (3, 8, 6, 1)
    (missing,) = first.missing
    assert (missing.group, missing.image, missing.reason) == ("g0", 1, "there is no such file")
    assert missing.name == str(train.parent / rows[0]["images"][1])
    (broken,) = first.broken
    assert (broken.group, broken.image, broken.name) == ("g1", 0, str(cut))
    # g0 keeps one pair of its three, g1 is lost, g2 keeps both.
    assert (first.usable_groups, first.usable_pairs) == (2, 3)
    assert first.repeated == 1
    assert sorted(first.exclusions.counts.values()) == [1, 1]
    assert first.exclusions.counts.total() == 2
    assert (second.groups, second.ties, second.repeated, second.problems) == (4, 1, 3, [])
    # Shade 2 was only in the missing file; shade 3 is shared.
    (shared,) = report.shared_images
    assert shared.places["test"] == f"{test.parent / 'copy.png'} (group 4)"
    assert shared.places["train"].endswith("(g0)")
    assert report.shared_prompts == ["train 0"]

    text = "\n".join(report.lines())
    for expected in (
        "train: 3 groups of 2 to 3 images",
        "usable: 2 groups, 3 untied pairs",
        "missing images: 1",
        f"{cut} (image 0 of g1)",
        "left out 1 times: not JSON",
        "images in more than one split: 1",
        "there are problems",
    ):
        assert expected in text
    data = json.loads(json.dumps(report.as_dict()))
    assert data["splits"][0]["problems"][0]["missing"] is True
    assert data["splits"][0]["image_sizes"] == {"4x4": 6}
    assert data["shared_prompts"] == ["train 0"]


def test_images_that_are_objects_are_compared_by_their_pixels() -> None:
    array = np.full((5, 7, 3), 9, np.uint8)
    tensor = torch.full((3, 2, 6), 0.5)
    groups = [
        {"prompt": "p", "images": [array, tensor, png(1)], "ranks": [1, 2, 3]},
        {"prompt": "q", "images": [array.copy(), tensor + 0.1], "ranks": [1, 2]},
    ]
    report = check_data({"only": groups})
    assert report.splits[0].image_sizes == {(7, 5): 2, (6, 2): 2, (4, 4): 1}
    assert report.splits[0].repeated == 1
    assert report.clean


def test_the_gallery_is_clean(shared_data: Path) -> None:
    report = check_data({"gallery": shared_data / "hpdv2_gallery" / "groups.json"}, workers=2)
    (split,) = report.splits
    assert report.clean
    assert (split.groups, split.images, split.annotated) == (40, 371, 40)
    assert split.pairs + split.ties == 29 * 36 + 11 * 45
    assert split.group_sizes == {9: 29, 10: 11}


def test_images_that_are_not_there_are_all_listed(shared_data: Path) -> None:
    report = check_data({"test": shared_data / "imagereward" / "test.json"})
    (split,) = report.splits
    assert len(split.missing) == split.images
    assert (split.pairs, split.pairs + split.ties, split.usable_groups) == (6399, 7230, 0)
    assert sum("and" in line and "more" in line for line in report.lines()) == 1


def test_no_source_is_an_error() -> None:
    with pytest.raises(ValueError, match="no data to check"):
        check_data({})
