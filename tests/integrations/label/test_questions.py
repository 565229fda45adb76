"""Which pictures belong together, and which pairs a scorer is least sure of."""

import json
from itertools import combinations
from pathlib import Path

import pytest
from helpers.brightness import Brightness
from helpers.labelling import PROMPTS, draw
from PIL import Image

from stablepref.integrations.label.questions import (
    MOST_PAIRS,
    least_sure_first,
    make_questions,
    read_pictures,
)


def test_pictures_by_places_from_several_folders(tmp_path: Path) -> None:
    one, two = draw(tmp_path / "one", images=1), draw(tmp_path / "two", images=2)
    found = read_pictures([one, two], one / "prompts.txt", None)
    assert list(found) == list(PROMPTS)
    assert found[PROMPTS[1]] == [
        one / "00001.png", two / "00001.png", two / "00001-1.png"
    ]  # fmt: skip


def test_a_manifest_beside_or_elsewhere(tmp_path: Path) -> None:
    folder = draw(tmp_path / "pictures", images=2)
    rows = [{"image": f"0000{i}{end}.png", "prompt": "p"} for i in (0, 1) for end in ("", "-1")]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    for place in (folder / "m.jsonl", tmp_path / "m.jsonl"):
        place.write_text(text)
        found = read_pictures([folder], place, None)
        assert found == {"p": [folder / row["image"] for row in rows]}


def test_captions(tmp_path: Path) -> None:
    folder = draw(tmp_path / "pictures", images=2)
    for path in folder.glob("*.png"):
        path.with_suffix(".txt").write_text("same words")
    (folder / "prompts.txt").unlink()
    found = read_pictures([folder], None, "caption")
    assert [*map(len, found.values())] == [6]


def test_pairs_and_groups(tmp_path: Path) -> None:
    pictures = {"p": [tmp_path / f"{i}.png" for i in range(4)], "q": [tmp_path / "alone.png"]}
    pairs = make_questions(pictures, "pairs", seed=1)
    assert {one.images for one in pairs} == set(combinations(pictures["p"], 2))
    assert [one.images for one in make_questions(pictures, "pairs", seed=2)] != [
        one.images for one in pairs
    ]
    (group,) = make_questions(pictures, "groups", seed=1)
    assert set(group.images) == set(pictures["p"])
    many = {"p": [tmp_path / f"{i}.png" for i in range(20)]}
    parts = make_questions(many, "groups", seed=1)
    assert sorted(len(one.images) for one in parts) == [6, 7, 7]
    assert {path for one in parts for path in one.images} == set(many["p"])
    assert all("png" not in one.id for one in parts)


def test_of_very_many_pictures_some_pairs_are_drawn() -> None:
    """10,000 pictures have 50 million pairs, which would not fit into memory."""
    paths = [Path(f"{i}.png") for i in range(10_000)]
    asked = make_questions({"p": paths, "q": paths[:3]}, "pairs", seed=1)
    pairs = [one.images for one in asked if one.prompt == "p"]
    assert len(pairs) == len(set(pairs)) == MOST_PAIRS
    assert all(a != b and a in paths[: paths.index(b)] for a, b in pairs[:50])
    assert len({path for pair in pairs for path in pair}) > 6000  # 10,000 x (1 - 1/e)
    assert sum(one.prompt == "q" for one in asked) == 3
    again = make_questions({"p": paths, "q": paths[:3]}, "pairs", seed=1)
    assert [one.id for one in again] == [one.id for one in asked]  # after a restart
    whole = make_questions({"p": paths[:100]}, "pairs", seed=1)
    assert {one.images for one in whole} == set(combinations(paths[:100], 2))


def test_what_the_scorer_is_least_sure_of_comes_first(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    levels = {"00000": 0, "00000-1": 10, "00000-2": 90, "00001": 200, "00001-1": 203}
    for name, level in levels.items():
        Image.new("RGB", (8, 8), (level,) * 3).save(folder / f"{name}.png")
    (folder / "00001-2.png").write_bytes(b"\x89PNG broken")
    (folder / "prompts.txt").write_text("first\nsecond\n")
    asked = make_questions(read_pictures([folder], folder / "prompts.txt", None), "pairs", seed=0)
    ordered, failed = least_sure_first(asked, Brightness())
    margins = [3, 10, 80, 90]
    found = [abs(levels[a.stem] - levels[b.stem]) for a, b in (one.images for one in ordered[:4])]
    assert found == margins
    assert [path.name for path in failed] == ["00001-2.png"]
    assert all("00001-2" in str(one.images) for one in ordered[4:])


def test_errors(tmp_path: Path) -> None:
    folder = draw(tmp_path / "pictures", images=1)
    with pytest.raises(ValueError, match="no prompt has two pictures: 3 pictures of 3 prompts"):
        read_pictures([folder], folder / "prompts.txt", None)
    with pytest.raises(ValueError, match="is not a folder"):
        read_pictures([folder / "nothing"], folder / "prompts.txt", None)
    with pytest.raises(ValueError, match="either --prompts"):
        read_pictures([folder], None, None)
