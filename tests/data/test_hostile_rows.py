"""Whatever stands in the place of a value, every reader calls it a data error or reads it."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.archives import write_tar

from stablepref.data.convert import LeftOutError
from stablepref.data.formats import FORMATS, detect_format
from stablepref.data.groups import DataError, Exclusions, RankedGroup
from stablepref.data.manifest import count_rows, read_manifest
from stablepref.data.prompts import read_prompt_file
from stablepref.data.read import read_groups
from stablepref.images.sources import UnusableImageError

GOOD: dict[str, dict[str, Any]] = {
    "stablepref": {
        "prompt": "p",
        "images": ["a.png", "b.png"],
        "ranks": [1, 2],
        "id": "g",
        "annotations": [[1, 2], [2, 1]],
        "annotators": ["x", "y"],
        "metadata": {"seed": 1},
    },
    "labels": {
        "label": "l",
        "annotator": "x",
        "prompt": "p",
        "images": ["a.png", "b.png"],
        "answer": "ranked",
        "ranks": [1, 2],
        "shown": [1, 0],
        "seconds": 2.5,
        "time": "2026-01-01T00:00:00+00:00",
    },
    "imagereward": {
        "id": "1",
        "prompt": "p",
        "generations": ["a.png", "b.png"],
        "ranking": [1, 2],
    },
    "imagerewarddb": {
        "prompt_id": "1",
        "prompt": "p",
        "classification": "People",
        "image_amount_in_total": 2,
        "image_path": ["a.png", "b.png"],
        "rank": [1, 2],
        "overall_rating": [3, 4],
    },
    "imagerewarddb-pair": {
        "prompt_id": "1",
        "prompt": "p",
        "img_better": {"bytes": None, "path": "a.png"},
        "img_worse": "b.png",
    },
    "hpdv2-train": {
        "prompt": "p",
        "file_path": ["a.png", "b.png"],
        "human_preference": [0, 1],
        "user_hash": "x",
    },
    "hpdv2-test": {
        "prompt": "p",
        "image_path": ["a.png", "b.png"],
        "rank": [1, 2],
        "raw_annotations": [{"rank": [1, 2], "user_hash": "x"}, {"annotation": [1, 2]}],
    },
    "hpdv2-gallery": {
        "prompt": "p",
        "image_path": ["a.png", "b.png"],
        "rankings": [[1, 2], [2, 1]],
    },
    "pickapic": {
        "caption": "p",
        "jpg_0": "a.png",
        "jpg_1": None,
        "image_1_url": "https://host/b.png",
        "label_0": 0.5,
        "label_1": 0.5,
        "has_label": True,
        "ranking_id": 3,
    },
    "hpdv3": {
        "prompt": "p",
        "choice_dist": [12, 7],
        "confidence": 0.9,
        "path1": "a.png",
        "path2": "b.png",
        "model1": "x",
    },
    "mmrb2": {
        "pair_id": "1",
        "prompt_text": "p",
        "prompt_images": [],
        "response_a_images": ["a.png"],
        "response_b_images": [{"bytes": None, "path": "b.png"}],
        "response_a_model": "x",
        "chosen": "a",
        "human_annotations": "[6, 2, 5]",
    },
    "mmrb2-json": {
        "id": "1",
        "prompt_content": [["text", "p"]],
        "response_a": {"model_name": "x", "response_content": [["image", "a.png"]]},
        "response_b": {"model_name": "y", "response_content": [["image", "b.png"]]},
        "chosen": "A",
        "human_annotations": [6, 2, 5],
    },
    "chosen-rejected": {"id": 1, "prompt": "p", "chosen": "a.png", "rejected": "b.png"},
    "open-image-preferences": {
        "images": {"image_1": "a.png", "image_2": "b.png", "prompt": "p"},
        "preference.responses": ["image_1", "both_good"],
        "preference.responses.users": ["x", "y"],
    },
    "rapidata-votes": {
        "prompt": "p",
        "image1": "a.png",
        "image2": "b.png",
        "votes_image1": 17,
        "votes_image2": 9,
    },
    **{
        f"rapidata-{aspect}": {
            "prompt": "p",
            "image1": "a.png",
            "image2": "b.png",
            f"weighted_results_image1_{aspect}": 0.7,
            f"weighted_results_image2_{aspect}": 0.3,
        }
        for aspect in ("preference", "coherence", "alignment")
    },
    "user-pairs": {
        "prompt": "p",
        "image_a": "a.png",
        "image_b": "b.png",
        "choice": "a",
        "user": "x",
    },
}


def nested(depth: int) -> Any:  # noqa: ANN401 (any JSON value)
    """An array in an array, and so on."""
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


HOSTILE = [
    None, True, 0, -1, 1.5, 10**400, -(10**400), 1e308, math.nan, math.inf, "", " ", "1", "\0",
    "\ud800", "x" * 10_000, "../../a", "a://b", [], [1], [[1], [2]], [None, None], ["a", "a", "a"],
    [{}, {}], [1e308, 1e308], [10**400, 1], {}, {"bytes": 1}, {"path": [1]}, {"a": {"b": [1]}},
    nested(90),
]  # fmt: skip


def changed(row: Any) -> Iterator[Any]:  # noqa: ANN401 (any JSON value)
    """The row with each value in it replaced by each hostile one, and without each of its keys."""
    yield from HOSTILE
    if isinstance(row, dict):
        for key in row:
            yield {name: value for name, value in row.items() if name != key}
            for value in changed(row[key]):
                yield row | {key: value}
    elif isinstance(row, list):
        for index in range(len(row)):
            for value in changed(row[index]):
                yield [*row[:index], value, *row[index + 1 :]]


def test_every_format_is_tried() -> None:
    assert set(FORMATS) == set(GOOD)
    for name, row in GOOD.items():
        assert detect_format(row) == name
        (group,) = read_groups([row], name)
        assert len(group.images) == 2


@pytest.mark.parametrize("name", GOOD)
def test_formats_raise_nothing_but_value_errors(name: str) -> None:
    known = FORMATS[name]
    rows = [row for row in changed(GOOD[name]) if isinstance(row, dict)]
    assert len(rows) > 100
    if known.merge is not None:
        places = [(f"row {number}", row) for number, row in enumerate(rows)]
        rows = [row for _, row in known.merge(iter(places)) if isinstance(row, dict)]
    reasons = []
    for row in rows:
        for folder in (None, Path("root")):
            try:
                group = known.convert(row, folder)
            except (ValueError, LeftOutError) as error:
                reasons.append(str(error))
            else:
                assert isinstance(group, RankedGroup)
                hash(group)
    assert all(0 < len(reason) < 500 for reason in reasons)


def asking(row: dict[str, Any], prompt: str) -> dict[str, Any]:
    """The row with another prompt, wherever its format has it."""
    changed_row = dict(row)
    for key in ("prompt", "caption", "prompt_text"):
        changed_row |= {key: prompt} if key in row else {}
    if "prompt_content" in row:
        changed_row["prompt_content"] = [["text", prompt]]
    if "preference.responses" in row:
        changed_row["images"] = row["images"] | {"prompt": prompt}
    return changed_row


@pytest.mark.parametrize("kind", ["jsonl", "json", "tar", "rows"])
@pytest.mark.parametrize("name", GOOD)
def test_reading_continues_after_every_hostile_row(name: str, kind: str, tmp_path: Path) -> None:
    rows = [*changed(GOOD[name]), asking(GOOD[name], "last")]
    source: Any = tmp_path / f"d.{kind}"
    if kind == "rows":
        source = rows
    elif kind == "tar":
        write_tar(source, {f"{n}.json": json.dumps(row).encode() for n, row in enumerate(rows)})
    else:
        lines = [json.dumps(row) for row in rows]
        source.write_text("\n".join(lines) if kind == "jsonl" else f"[{','.join(lines)}]")
    counted = Exclusions()
    groups = list(read_groups(source, name, on_error="skip", exclusions=counted))
    assert groups[-1].prompt == "last"
    if FORMATS[name].merge is None:
        assert len(groups) + counted.counts.total() == len(rows)
    assert counted.counts.total() > 50
    for reason in counted.counts:
        assert not reason.startswith("not a row of the format"), "an error that nothing foresaw"
    with pytest.raises(DataError):
        list(read_groups(source, name))


@pytest.mark.parametrize("name", GOOD)
def test_values_that_only_python_has(name: str) -> None:
    values = [b"", b"x", {1, 2}, object(), np.zeros((2, 2)), np.array(["a", "b"]), np.float64(1)]
    values += [np.array(3), 10**5000, nested(5000), {1: 2}, 1j]
    rows = [GOOD[name] | {key: value} for key in GOOD[name] for value in values]
    rows = [row | {1: 2} for row in rows]
    groups = list(read_groups([*rows, GOOD[name]], name, on_error="skip"))
    assert groups[-1].prompt == "p"


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_manifests_give_an_item_for_every_row(suffix: str, tmp_path: Path) -> None:
    good = {"image": {"path": "a.png", "bytes": None}, "prompt": "p", "seed": 1}
    lines = [json.dumps(row) for row in changed(good)]
    path = tmp_path / f"rows{suffix}"
    path.write_text("\n".join(lines) if suffix == ".jsonl" else f"[{','.join(lines)}]")
    items = list(read_manifest(path))
    assert len(items) == len(lines) == count_rows(path)
    assert sum(isinstance(item.image, UnusableImageError) for item in items) > 50
    assert all(item.prompt is not None or isinstance(item.image, ValueError) for item in items)


def test_prompts_are_read_or_refused_with_their_place(tmp_path: Path) -> None:
    good = {"prompt": "p", "category": "c", "item_id": "1", "question": "q"}
    path = tmp_path / "prompts.jsonl"
    places = []
    for row in changed(good):
        path.write_text(json.dumps(row))
        try:
            (prompt,) = read_prompt_file(path)
        except DataError as error:
            places.append(error.place)
        else:
            assert prompt.prompt.strip()
    assert len(places) > 30
    assert set(places) == {"line 1"}
    reasons = []
    by_id = tmp_path / "prompts.json"
    for row in changed({"a": good, "b": ["p"]}):
        by_id.write_text(json.dumps(row))
        try:
            assert read_prompt_file(by_id)
        except ValueError as error:
            reasons.append(str(error))
    assert all(str(by_id) in reason for reason in reasons)
