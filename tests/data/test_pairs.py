"""Data sets of pairs: which image is preferred, by how many, and what is no pair."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stablepref.data.convert import LeftOutError
from stablepref.data.formats import FORMATS
from stablepref.data.groups import DataError, Exclusions, RankedGroup
from stablepref.data.pairs import RAPIDATA_ASPECTS
from stablepref.data.read import read_groups

MMRB2_JSON = {
    "id": "wise_736",
    "prompt_content": [["text", "a pine tree"]],
    "prompt_source": "wise",
    "response_a": {"model_name": "flux", "response_content": [["image", "images/a.jpg"]]},
    "response_b": {"model_name": "imagen", "response_content": [["image", "images/b.jpg"]]},
    "chosen": "B",
    "human_annotations": [2, 4, 1],
}
MMRB2 = {
    "pair_id": "wise_736",
    "prompt_text": "a pine tree",
    "prompt_images": [],
    "prompt_source": "wise",
    "response_a_images": ["images/a.jpg"],
    "response_a_model": "flux",
    "response_b_images": ["images/b.jpg"],
    "response_b_model": "imagen",
    "chosen": "b",
    "human_annotations": "[2, 4, 1]",
}
RESULTS: dict[str, Any] = {
    "images": {"image_1": "http://host/1.png", "image_2": "http://host/2.png", "prompt": "a kite"},
    "model_1": "dev",
    "model_2": "sd",
}


def one(row: object, name: str = "auto") -> RankedGroup:
    (group,) = read_groups([row], name)
    return group


def test_the_cases_that_people_hold(shared_data: Path) -> None:
    cases = shared_data / "cases"
    first, second = read_groups(cases / "hpdv3_like.json")
    assert first.pairs() == second.pairs() == [(0, 1)]
    assert first.images == (cases / "a.png", cases / "b.png")
    assert first.metadata["votes"] == [12, 7]
    assert first.metadata["confidence"] == 0.99999
    assert "votes" not in second.metadata
    assert "confidence" not in second.metadata

    (group,) = read_groups(cases / "open_image_preferences_like.jsonl")
    assert (group.pairs(), group.id) == ([(0, 1)], "1")
    assert group.metadata["chosen_model"] == "dev"

    (group,) = read_groups(cases / "rapidata_votes_like.jsonl")
    assert group.pairs() == [(0, 1)]
    assert group.metadata["share"] == [17 / 26, 9 / 26]

    (group,) = read_groups(cases / "rapidata_weighted_like.jsonl")
    assert (group.pairs(), group.metadata["share"]) == ([(0, 1)], [0.71, 0.29])
    (group,) = read_groups(cases / "rapidata_weighted_like.jsonl", "rapidata-coherence")
    assert group.ties() == [(0, 1)]

    (group,) = read_groups(cases / "imagerewarddb_grouped.json")
    assert list(group.ranks) == [1, 2, 3, 3]
    assert (len(group.pairs()), len(group.ties())) == (5, 1)
    (group,) = read_groups(cases / "imagerewarddb_pair.json")
    assert group.pairs() == [(0, 1)]


def test_hpdv3_takes_the_side_from_the_path_and_not_from_the_votes() -> None:
    group = one({"prompt": "p", "path1": "a", "path2": "b", "choice_dist": [3, 16]})
    assert group.pairs() == [(0, 1)]
    assert group.metadata == {"votes": [16, 3], "share": [16 / 19, 3 / 19]}


@pytest.mark.parametrize("row", [MMRB2, MMRB2_JSON], ids=["hub", "json"])
def test_both_forms_of_mmrb2_are_one_pair(row: dict[str, Any]) -> None:
    group = one(row)
    assert (group.prompt, group.id) == ("a pine tree", "wise_736")
    assert group.images == (Path("images/a.jpg"), Path("images/b.jpg"))
    assert group.pairs() == [(1, 0)]
    # 1 to 3 prefer B, 4 to 6 prefer A.
    assert group.annotations == ((2, 1), (1, 2), (2, 1))
    assert group.metadata == {
        "prompt_source": "wise",
        "response_a_model": "flux",
        "response_b_model": "imagen",
        "human_annotations": [2, 4, 1],
    }


def test_mmrb2s_file_is_read_as_it_is_published(tmp_path: Path) -> None:
    file = tmp_path / "t2i.json"
    file.write_text(json.dumps({"pairs": [MMRB2_JSON, MMRB2_JSON]}, indent=2))
    groups = list(read_groups(file))
    assert [group.pairs() for group in groups] == [[(1, 0)]] * 2
    assert groups[0].images[0] == tmp_path / "images" / "a.jpg"


@pytest.mark.parametrize(
    "text",
    [
        '{"pairs": [], "other": 1}',
        '{"pairs": []',
        '{"pairs": []} 1',
        '{"pairs": [1], "b": [2]}',
    ],
)
def test_an_object_with_more_than_the_array_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "t2i.json"
    file.write_text(text)
    with pytest.raises(DataError, match=r"not JSON|after the end|a int"):
        list(read_groups(file))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"prompt_images": ["x.png"]}, "the prompt holds pictures"),
        ({"response_a_images": []}, "an answer is not one picture"),
        ({"response_b_images": ["a", "b"]}, "an answer is not one picture"),
    ],
)
def test_mmrb2s_other_tasks_are_left_out(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(LeftOutError, match=reason):
        FORMATS["mmrb2"].convert(MMRB2 | change, None)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("answers", "ranks"),
    [
        (["image_1"], (1, 2)),
        (["image_2", "image_2", "image_1"], (2, 1)),
        (["both_good"], (1, 1)),
        # One answer more for the first than for the second; "both_good" counts for both.
        (["both_good", "both_good", "image_1", "both_bad"], (1, 2)),
        (["image_1", "image_2"], (1, 1)),
    ],
)
def test_open_image_preferences_rule(answers: list[str], ranks: tuple[int, int]) -> None:
    users = [f"u{i}" for i in range(len(answers))]
    row = RESULTS | {"preference.responses": answers, "preference.responses.users": users}
    group = one(row)
    assert group.ranks == ranks
    single = {"image_1": (1, 2), "image_2": (2, 1), "both_good": (1, 1), "both_bad": (1, 1)}
    assert group.annotations == tuple(single[answer] for answer in answers)
    assert group.annotators == tuple(users)


@pytest.mark.parametrize("answers", [[], None, ["both_bad"], ["image_1", "both_bad"]])
def test_pairs_that_are_called_bad_are_left_out(answers: list[str] | None) -> None:
    left_out = Exclusions()
    row = RESULTS | {"preference.responses": answers}
    assert list(read_groups([row], exclusions=left_out)) == []
    assert sum(left_out.counts.values()) == 1


@pytest.mark.parametrize("aspect", RAPIDATA_ASPECTS)
def test_rapidatas_aspects_are_read_by_name(aspect: str) -> None:
    row: dict[str, Any] = {"prompt": "p", "image1": "a", "image2": "b"}
    for at, name in enumerate(RAPIDATA_ASPECTS):
        row |= {f"weighted_results_image{side}_{name}": 1.0 + side * (at - 1) for side in (1, 2)}
    expected = {"preference": (1, 2), "coherence": (1, 1), "alignment": (2, 1)}
    # At 0, 1 and 2: (0, -1) is not a share, so the first is set by hand.
    row |= {"weighted_results_image1_preference": 0.9, "weighted_results_image2_preference": 0.1}
    assert one(row, f"rapidata-{aspect}").ranks == expected[aspect]
    assert one(row).ranks == expected["preference"]


@pytest.mark.parametrize("votes", [(0, 0), (None, 3)])
def test_pairs_without_votes_are_left_out(votes: tuple[Any, Any]) -> None:
    row = {"prompt": "p", "image1": "a", "image2": "b"}
    left_out = Exclusions()
    row |= {"votes_image1": votes[0], "votes_image2": votes[1]}
    assert list(read_groups([row], exclusions=left_out)) == []
    assert left_out.counts == {"there are no votes": 1}


def test_rows_of_users_become_one_group_of_each_pair() -> None:
    rows = [
        {"prompt": "p", "image_a": "1.png", "image_b": "2.png", "choice": "a", "user": "x"},
        {"prompt": "q", "image_a": "1.png", "image_b": "2.png", "choice": "b", "user": "x"},
        {"prompt": "p", "image_a": "2.png", "image_b": "1.png", "choice": "A ", "user": "y"},
        {"prompt": "p", "image_a": "1.png", "image_b": "2.png", "choice": "a", "user": "z"},
        {"prompt": "p", "image_a": "1.png", "image_b": "2.png", "choice": "tie", "user": "x"},
    ]
    first, second = read_groups(rows)
    assert first.images == (Path("1.png"), Path("2.png"))
    assert first.annotations == ((1, 2), (2, 1), (1, 2), (1, 1))
    assert first.annotators == ("x", "y", "z", "x")
    assert first.ranks == (1, 2)
    assert (second.prompt, second.ranks) == ("q", (2, 1))


def test_pictures_of_users_rows_are_known_by_their_bytes() -> None:
    black, white = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)
    rows = [
        {"prompt": "p", "image_a": black, "image_b": white, "choice": "a"},
        {"prompt": "p", "image_a": white.copy(), "image_b": black.copy(), "choice": "a"},
        {"prompt": "p", "image_a": b"1", "image_b": {"bytes": b"2", "path": None}, "choice": "b"},
    ]
    first, second = read_groups(rows)
    assert first.ties() == [(0, 1)]
    assert first.annotators == ()
    assert second.pairs() == [(1, 0)]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (MMRB2 | {"chosen": "C"}, "expected A or B"),
        (MMRB2 | {"human_annotations": "[1"}, "human_annotations: not JSON"),
        (RESULTS | {"preference.responses": ["left"]}, "an answer is 'left'"),
        ({"prompt": "p", "path1": "a", "path2": "b", "choice_dist": [1]}, "two numbers of votes"),
        ({"prompt": "p", "image_a": "a", "image_b": "b", "choice": "c"}, "expected a, b or tie"),
    ],
)
def test_rows_that_are_not_valid_say_why(row: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        one(row)
