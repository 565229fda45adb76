"""The best rows of a scored Ray dataset: by score, by share of the whole, or by prompt."""

from __future__ import annotations

import math
import warnings
from functools import partial
from typing import TYPE_CHECKING, Final, cast

import numpy as np
import pyarrow.compute

if TYPE_CHECKING:
    from typing import Any

    import pyarrow as pa
    from numpy.typing import NDArray
    from ray.data import Dataset

_DECIMALS: Final = 9  # of a number of rows: 0.1 x 30 is 3, and not 3.0000000000000004


def filter_dataset(
    ds: Dataset,
    *,
    at_least: float | None = None,
    top_share: float | None = None,
    best_per_prompt: int | None = None,
    score_column: str = "score",
    prompt_column: str = "prompt",
) -> Dataset:
    """Keep the rows that score well, by one of three rules; rows without a score go.

    Args:
        ds: Rows with scores.
        at_least: Keep scores from this one up. Scores of one prompt compare well, those of
            different prompts less so.
        top_share: Keep this share of the scored rows, above 0 and up to 1, the best of the whole
            dataset, and all that tie with the last of them. Reads the scores once, now, see
            `score_threshold`.
        best_per_prompt: Keep this many rows of each prompt, and all that tie with the last. Ray
            sorts the rows by prompt between the machines.
        score_column: Name of the scores' column.
        prompt_column: Name of the prompts' column, for `best_per_prompt`.

    Raises:
        ValueError: Not exactly one rule is given, or its number is out of range; no row has a
            score.
    """
    rules = {
        "at_least": at_least,
        "top_share": top_share,
        "best_per_prompt": best_per_prompt,
    }
    chosen = [name for name, value in rules.items() if value is not None]
    if len(chosen) != 1:
        msg = f"give one of {', '.join(rules)}; got {' and '.join(chosen) or 'none'}"
        raise ValueError(msg)
    if best_per_prompt is not None and best_per_prompt < 1:
        msg = f"best_per_prompt must be 1 or more, got {best_per_prompt}"
        raise ValueError(msg)
    if top_share is not None:
        at_least = score_threshold(ds, top_share, score_column=score_column)
    lowest = -math.inf if at_least is None else at_least
    keep = partial(_from_score, score_column=score_column, lowest=lowest)
    kept = ds.map_batches(keep, batch_format="pyarrow")
    if best_per_prompt is None:
        return kept
    best = partial(_best, score_column=score_column, count=best_per_prompt)
    return kept.groupby(prompt_column).map_groups(best, batch_format="pyarrow")


def score_threshold(ds: Dataset, top_share: float, *, score_column: str = "score") -> float:
    """The score that a share of the scored rows reaches: the lowest among the best of them.

    All scores are gathered in this process, 4 bytes each in float32. The dataset runs for it: give
    one whose scores are stored, by `write_parquet` or `materialize`, or the scoring runs twice.

    Args:
        ds: Rows with scores.
        top_share: Above 0 and up to 1; of n scored rows it means the best ceil(top_share x n).
        score_column: Name of the scores' column.

    Raises:
        ValueError: `top_share` is out of range, or no row has a score.
    """
    if not 0 < top_share <= 1:
        msg = f"top_share must be above 0 and up to 1, got {top_share}"
        raise ValueError(msg)
    if ds.schema(fetch_if_missing=False) is None:
        msg = (
            "the rows of this dataset are not stored: what makes them, scoring included, runs now "
            "for the threshold and again for the rows that are kept; write them first "
            "(write_parquet, read_parquet), or hold them (materialize)"
        )
        warnings.warn(msg, stacklevel=2)
    parts: list[NDArray[np.floating[Any]]] = []
    columns = ds.select_columns([score_column])
    for table in columns.iter_batches(batch_format="pyarrow", batch_size=None):
        values = cast("pa.Table", table)[score_column].drop_null().to_numpy()
        parts.append(values[~np.isnan(values)])
    scores = np.concatenate(parts) if parts else np.empty(0)
    if not len(scores):
        msg = f"no row has a number in the column {score_column!r}: there is nothing to keep"
        raise ValueError(msg)
    place = len(scores) - math.ceil(round(top_share * len(scores), _DECIMALS))
    return float(np.partition(scores, place)[place])


def _from_score(table: pa.Table, *, score_column: str, lowest: float) -> pa.Table:
    """The rows whose score is `lowest` or more; null and NaN are not."""
    return table.filter(pyarrow.compute.greater_equal(table[score_column], lowest))


def _best(table: pa.Table, *, score_column: str, count: int) -> pa.Table:
    """The rows of one group that score as its count-th best does, or better."""
    scores = table[score_column].to_numpy()
    lowest = np.sort(scores)[-min(count, len(scores))]
    return _from_score(table, score_column=score_column, lowest=float(lowest))
