"""Single answers and the groups that they make, worked by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from stablepref.data.groups import DataError, Exclusions
from stablepref.data.labels import read_labels, repeated_answers
from stablepref.data.read import read_groups


def row(label: str, annotator: str, ranks: list[int], **more: object) -> dict[str, Any]:
    """An answer to which of a, b (and c) is better."""
    images = [f"{name}.png" for name in "abc"[: len(ranks) or 2]]
    answer = "ranked" if len(set(ranks)) > 1 else ("tie" if ranks else "skip")
    found = {"label": label, "annotator": annotator, "prompt": "p", "images": images}
    return found | {"answer": answer, "ranks": ranks} | more


def write(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "answers.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


def test_three_annotators_of_a_pair(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        row("1", "ann", [1, 2]),
        row("2", "bob", [2, 1], images=["b.png", "a.png"]),  # a is better, seen the other way round
        row("3", "cid", [1, 1], answer="bad"),
    )
    (group,) = read_groups(path)
    assert group.images == (tmp_path / "a.png", tmp_path / "b.png")
    assert group.annotations == ((1, 2), (1, 2), (1, 1))
    assert group.annotators == ("ann", "bob", "cid")
    assert group.pairs() == [(0, 1)]
    assert group.ranks == pytest.approx(((1 + 1 + 1.5) / 3, (2 + 2 + 1.5) / 3))
    assert group.metadata == {"bad": ["cid"]}


def test_one_against_one_is_a_tie(tmp_path: Path) -> None:
    (group,) = read_groups(write(tmp_path, row("1", "ann", [1, 2]), row("2", "bob", [2, 1])))
    assert group.ties() == [(0, 1)]


def test_ranks_of_groups_are_averaged_with_ties_at_their_mean(tmp_path: Path) -> None:
    path = write(tmp_path, row("1", "ann", [1, 2, 2]), row("2", "bob", [2, 1, 3]))
    (group,) = read_groups(path)
    # ann: 1, 2.5, 2.5; bob: 2, 1, 3.
    assert group.ranks == pytest.approx((1.5, 1.75, 2.75))


def test_undo_repeats_and_skips(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        row("1", "ann", [1, 2]),
        {"label": "2", "annotator": "ann", "undo": "1"},
        row("3", "ann", [2, 1]),
        row("4", "ann", [1, 2]),  # a repeat is no second vote
        row("5", "bob", []),
        row("6", "ann", [1, 2], prompt="q"),
        {"label": "7", "annotator": "ann", "undo": "6"},
        row("8", "bob", [], prompt="r"),
    )
    left_out = Exclusions()
    (group,) = read_groups(path, exclusions=left_out)
    assert (group.ranks, group.annotators) == ((2, 1), ("ann",))
    assert dict(left_out.counts) == {"nobody answered": 1}
    ((first, second),) = repeated_answers(read_labels(path))
    assert (first.id, second.id) == ("3", "4")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"answer": "perhaps"}, "expected one of ranked, tie, bad, skip"),
        ({"ranks": [1]}, "ranks has 1 items for 2 images"),
        ({"ranks": [1, float("nan")]}, "expected a finite number"),
        ({"answer": "tie"}, "expected equal ranks"),
        ({"images": ["a.png", "a.png"]}, "expected two or more"),
        ({"images": [3, 4]}, "expected a path or an address"),
        ({"shown": [0, 0]}, "expected each of 0 to 1 once"),
        ({"annotator": None}, "a name is None"),
        ({"seconds": "long"}, "expected a number"),
    ],
)
def test_wrong_rows_name_their_place(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    path = write(tmp_path, row("1", "ann", [1, 2]), row("2", "bob", [1, 2]) | change)
    with pytest.raises(DataError, match=says) as caught:
        read_labels(path)
    assert caught.value.place == "line 2"
    with pytest.raises(DataError, match=says) as caught:
        list(read_groups(path))
    assert caught.value.place == "line 2"


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "groups.jsonl"
    path.write_text('{"prompt": "p", "images": ["a", "b"], "ranks": [1, 2]}\n')
    with pytest.raises(DataError, match="the key 'annotator' is missing"):
        read_labels(path)
