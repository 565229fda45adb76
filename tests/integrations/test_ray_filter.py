"""Filters of scored corpora on Ray Data keep what a loop would."""

import warnings
from typing import Any

import pytest

pytest.importorskip("ray", reason="needs stablepref[ray]")

import pyarrow as pa
import ray

from stablepref.integrations.ray_filter import filter_dataset, score_threshold


def scored_rows() -> "ray.data.Dataset":
    """Ten scores, two that are none, and three prompts."""
    scores = [0.5, 4, 3, 3, 1, 2, 9, 8, None, float("nan"), 7, -1]
    table = pa.table(
        {
            "id": range(12),
            "prompt": [*"aaaa", *"bbbb", *"cccc"],
            "score": pa.array(scores, pa.float32()),
        }
    )
    return ray.data.from_arrow([table.slice(0, 7), table.slice(7)])


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        ({"at_least": 3.0}, [1, 2, 3, 6, 7, 10]),
        ({"top_share": 0.5}, [1, 2, 3, 6, 7, 10]),  # the fifth and the sixth tie
        # As do a's second and third; groups take several processes.
        pytest.param({"best_per_prompt": 2}, [1, 2, 3, 6, 7, 10, 11], marks=pytest.mark.slow),
    ],
)
def test_filters(local_ray: None, rule: dict[str, Any], kept: list[int]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        filtered = filter_dataset(scored_rows(), **rule)
    assert sorted(row["id"] for row in filtered.take_all()) == kept


def test_a_share_is_the_score_of_its_last_row(local_ray: None) -> None:
    assert score_threshold(scored_rows(), 0.4) == 4
    assert score_threshold(scored_rows(), 1.0) == -1
    table = pa.table({"score": pa.array(range(30), pa.float32())})
    assert score_threshold(ray.data.from_arrow(table), 0.1) == 27  # 0.1 * 30 > 3 in floats


def test_a_share_of_rows_that_are_not_stored_is_warned_of(local_ray: None) -> None:
    lazy = scored_rows().map_batches(lambda table: table, batch_format="pyarrow")
    with pytest.warns(UserWarning, match="runs now for the threshold and again"):
        assert filter_dataset(lazy, top_share=0.1).count() == 1


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ({}, "give one of at_least, top_share, best_per_prompt; got none"),
        ({"at_least": 1, "top_share": 0.5}, "got at_least and top_share"),
        ({"top_share": 0.0}, "above 0 and up to 1, got 0.0"),
        ({"top_share": 1.5}, "above 0 and up to 1, got 1.5"),
        ({"best_per_prompt": 0}, "1 or more, got 0"),
        ({"top_share": 0.5, "score_column": "none"}, "no row has a number in the column 'none'"),
    ],
)
def test_wrong_filters(local_ray: None, rule: dict[str, Any], says: str) -> None:
    table = pa.table({"none": pa.array([None], pa.float32()), "score": pa.array([1.0])})
    with pytest.raises(ValueError, match=says):
        filter_dataset(ray.data.from_arrow(table), **rule)
