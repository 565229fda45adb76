"""`RankedGroup`: what it holds, what it refuses, and the pairs and ties it makes."""

import pickle
from dataclasses import replace
from fractions import Fraction
from itertools import permutations, product
from typing import Any

import numpy as np
import pytest

from stablepref.data.groups import DataError, Exclusions, RankedGroup


def group(ranks: Any) -> RankedGroup:  # noqa: ANN401 (the class checks the types of ranks itself)
    """A group with made-up paths for the given ranks."""
    return RankedGroup("a red circle", tuple(f"{index}.png" for index in range(len(ranks))), ranks)


def test_pairs_and_ties_of_an_example_worked_by_hand() -> None:
    # Ranks with a gap and a tie, as in ImageReward: best is image 2, then 0 and 3, worst is 1.
    ranked = group((2, 5, 1, 2))
    assert ranked.pairs() == [(0, 1), (2, 0), (2, 1), (3, 1), (2, 3)]
    assert ranked.ties() == [(0, 3)]


@pytest.mark.parametrize("ranks", list(product((1, 2, 4), repeat=4)))
def test_pairs_and_ties_against_all_ordered_pairs(ranks: tuple[int, ...]) -> None:
    ranked = group(ranks)
    ordered = list(permutations(range(4), 2))
    assert sorted(ranked.pairs()) == [(i, j) for i, j in ordered if ranks[i] < ranks[j]]
    assert ranked.ties() == [(i, j) for i, j in ordered if i < j and ranks[i] == ranks[j]]


def test_only_the_order_of_ranks_counts() -> None:
    assert group((1, 2, 3)).pairs() == group((-7.5, 0.25, 900)).pairs()


def test_ranks_of_any_number_type_are_kept_as_plain_numbers() -> None:
    mixed = (np.int8(3), np.float32(0.5), Fraction(3, 2), 2.0)
    ranked = group(mixed)
    assert list(ranked.ranks) == [3, 0.5, 1.5, 2]
    assert [type(rank).__name__ for rank in ranked.ranks] == ["int", "float", "float", "int"]


def test_lists_become_tuples_and_the_group_is_immutable_hashable_and_picklable() -> None:
    lists: dict[str, Any] = {"images": ["a", "b"], "ranks": [1, 2], "annotations": [[1, 2]]}
    ranked = RankedGroup("p", **lists, annotators=("x",))
    assert (ranked.images, ranked.ranks) == (("a", "b"), (1, 2))
    assert (ranked.annotations, ranked.annotators) == (((1, 2),), ("x",))
    with pytest.raises(AttributeError):
        ranked.prompt = "other"  # type: ignore[misc]
    assert len({ranked, pickle.loads(pickle.dumps(ranked))}) == 1


def test_without_drops_images_everywhere() -> None:
    annotations = ((1, 2, 3), (3, 2, 1))
    ranked = replace(group((1, 2, 3)), annotations=annotations, annotators=("x", "y"), id="7")
    rest = ranked.without({1})
    assert rest is not None
    assert (rest.images, rest.ranks) == (("0.png", "2.png"), (1, 3))
    assert (rest.annotations, rest.annotators, rest.id) == (((1, 3), (3, 1)), ("x", "y"), "7")
    assert ranked.without([0, 2]) is None
    assert ranked.without(()) == ranked


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": " \n"}, "the prompt is ' .n'"),
        ({"prompt": None}, "the prompt is None"),
        ({"images": ("a.png",)}, "images has 1 item"),
        ({"images": "a.png"}, "images is a str; expected a list"),
        ({"images": ("a", "b", "c")}, r"ranks has 2 item\(s\) for 3 images"),
        ({"ranks": (1, float("nan"))}, r"ranks\[1\] is nan"),
        ({"ranks": (float("inf"), 1)}, r"ranks\[0\] is inf"),
        ({"ranks": (1, "2")}, r"ranks\[1\] is '2'; expected a number"),
        ({"ranks": (1, True)}, r"ranks\[1\] is True"),
        ({"ranks": 3}, "ranks is a int"),
        ({"annotations": ((1, 2), (1,))}, r"annotations\[1\] has 1 item"),
        ({"annotations": ((1, 2), (1, None))}, r"annotations\[1\]\[1\] is None"),
        ({"annotations": ((1, 2),), "annotators": ("x", "y")}, "annotators has 2 .* 1;"),
    ],
)
def test_what_does_not_fit_is_named(fields: dict[str, Any], message: str) -> None:
    valid: dict[str, Any] = {"prompt": "p", "images": ("a.png", "b.png"), "ranks": (1, 2)}
    RankedGroup(**valid)
    with pytest.raises(ValueError, match=message):
        RankedGroup(**valid | fields)


def test_data_errors_name_file_place_and_reason_and_cross_processes() -> None:
    error = pickle.loads(pickle.dumps(DataError("a.jsonl", "line 3", "not JSON")))
    assert (error.path, error.place, error.reason) == ("a.jsonl", "line 3", "not JSON")
    assert str(error) == "a.jsonl, line 3: not JSON"


def test_exclusions_count_everything_and_remember_the_first_places() -> None:
    exclusions = Exclusions(keep=2)
    for number in range(5):
        exclusions.add("no label", f"row {number}")
    exclusions.add("broken", "row 9")
    assert exclusions.counts == {"no label": 5, "broken": 1}
    assert exclusions.places == {"no label": ["row 0", "row 1"], "broken": ["row 9"]}
