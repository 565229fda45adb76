"""Image-text corpora scored on Ray Data, across machines, with one model per worker."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import stablepref
from stablepref.models.registry import SCORERS, check_model, model_name
from stablepref.scoring.items import score_items

from .corpus_rows import row_item

try:
    import pyarrow as pa
    import ray
    from ray.data import ActorPoolStrategy
    from ray.data.block import BlockAccessor, BlockType
except ImportError as error:
    _msg = f"this needs Ray Data: pip install 'stablepref[ray]' ({error})"
    raise ImportError(_msg) from error

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    import torch
    from numpy.typing import NDArray
    from ray.data import Dataset


@final
class ScoreBatch:
    """A stage for `Dataset.map_batches`: adds each row's score, or why it has none.

    Ray makes one object in each worker, which loads the model once and scores batch after batch
    with it. Takes batches in any of Ray's formats; "pyarrow" leaves the other columns untouched.

    Args:
        model: As in `stablepref.load`; a path must lead to the same model on every machine.
        image_column: Name of the images' column: bytes, paths, URLs, images of `datasets`, arrays.
        prompt_column: Name of the prompts' column.
        score_column: Name of the new column of scores, float32, null where there is none.
        error_column: Name of the new column of reasons, strings, null where there is a score.
        like: As in `stablepref.load`.
        device: As in `stablepref.load`: None takes an accelerator if the worker sees one.
        dtype: As in `stablepref.load`.
        views: Average each score over this many weak views beside the image itself.
        encode_batch_size: Images encoded at once; None chooses. Halved when memory runs out.

    Raises:
        ValueError: Two columns have one name; or as `stablepref.load`.
        OSError: As `stablepref.load`.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        image_column: str = "image",
        prompt_column: str = "prompt",
        score_column: str = "score",
        error_column: str = "error",
        like: str | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | str | None = None,
        views: int = 0,
        encode_batch_size: int | None = None,
    ) -> None:
        self._given = (image_column, prompt_column)
        self._new = (score_column, error_column)
        _check_names(self._given, self._new)
        self._views = views
        self._encode_batch_size = encode_batch_size
        self._scorer = stablepref.load(model, device=device, dtype=dtype, like=like)

    def __call__(self, batch: Mapping[str, NDArray[Any]] | pa.Table) -> pa.Table:
        """The batch, or DataFrame, as an Arrow table with the two new columns, in the same order.

        Raises:
            ValueError: A column is missing, or a new one is there already.
        """
        table = BlockAccessor.batch_to_block(batch, block_type=BlockType.ARROW)
        _check_columns(table.column_names, self._given, self._new)
        cells = BlockAccessor.for_block(table.select(list(self._given))).to_numpy(list(self._given))
        images, prompts = (cells[name] for name in self._given)
        rows = zip(images, prompts, strict=True)
        outcomes = list(
            score_items(
                self._scorer,
                (row_item(*row, number=number) for number, row in enumerate(rows)),
                start=0,
                batch_size=self._encode_batch_size,
                views=self._views,
            )
        )
        score, error = self._new
        scores = pa.array([outcome.score for outcome in outcomes], pa.float32())
        errors = pa.array([outcome.error for outcome in outcomes], pa.string())
        return table.append_column(score, scores).append_column(error, errors)


def score_dataset(  # noqa: PLR0913 (flat keyword arguments)
    ds: Dataset,
    model: str | os.PathLike[str] | None = None,
    *,
    workers: int = 1,
    batch_size: int = 64,
    num_cpus: float = 1,
    num_gpus: float = 0,
    image_column: str = "image",
    prompt_column: str = "prompt",
    score_column: str = "score",
    error_column: str = "error",
    like: str | None = None,
    device: str | None = None,
    dtype: torch.dtype | str | None = None,
    views: int = 0,
    encode_batch_size: int | None = None,
) -> Dataset:
    """Score every row of a dataset, with a fixed number of workers that hold a model each.

    Nothing runs yet: Ray works when the rows are consumed. A row without a usable image or prompt
    stays, with the reason in place of a score. A worker that dies is started again and its batch
    scored again: every row comes out once. The rows' order is kept only where
    `DataContext.execution_options.preserve_order` is set.

    Args:
        ds: Rows with an image and a prompt.
        model: As in `stablepref.load`; None is `$STABLEPREF_MODEL` of this process, or "hps-v2.1".
            A path must be there on every machine.
        workers: How many, over all machines. Beside them Ray needs a CPU to read the data with.
        batch_size: Rows handed to a worker at once; blocks smaller than this are put together.
        num_cpus: Of each worker.
        num_gpus: Of each worker, 1 where each has a GPU of its own; without any it computes on the
            CPU.
        image_column: As in `ScoreBatch`.
        prompt_column: As in `ScoreBatch`.
        score_column: As in `ScoreBatch`.
        error_column: As in `ScoreBatch`.
        like: As in `ScoreBatch`.
        device: None is "cuda" with `num_gpus`, else "cpu".
        dtype: As in `ScoreBatch`.
        views: As in `ScoreBatch`.
        encode_batch_size: As in `ScoreBatch`.

    Returns:
        The dataset with the columns of score and error.

    Raises:
        ValueError: The model is unknown, `workers` below 1, or the columns are not as named. Where
            Ray does not know the columns before it reads, they are looked at by the workers, and
            Ray wraps their error.
    """
    name = model_name(model)
    check_model(name, like)
    if name not in SCORERS and Path(name).exists():
        name = str(Path(name).resolve())
    if workers < 1:
        msg = f"workers must be 1 or more, got {workers}"
        raise ValueError(msg)
    given, new = (image_column, prompt_column), (score_column, error_column)
    _check_names(given, new)
    _warn_of_waiting(workers, num_cpus)
    schema = ds.schema(fetch_if_missing=False)
    if schema is not None:
        _check_columns(schema.names, given, new)
    return ds.map_batches(
        ScoreBatch,
        fn_constructor_kwargs={
            "model": name,
            "image_column": image_column,
            "prompt_column": prompt_column,
            "score_column": score_column,
            "error_column": error_column,
            "like": like,
            "device": device or ("cuda" if num_gpus else "cpu"),
            "dtype": dtype,
            "views": views,
            "encode_batch_size": encode_batch_size,
        },
        batch_format="pyarrow",
        batch_size=batch_size,
        compute=ActorPoolStrategy(size=workers),
        num_cpus=num_cpus,
        num_gpus=num_gpus,
    )


def _warn_of_waiting(workers: int, num_cpus: float) -> None:
    """Where the workers take all CPUs, no task can read what they wait for, unless more come."""
    cpus = ray.cluster_resources().get("CPU", 0)
    if workers * num_cpus > cpus - 1:
        msg = (
            f"{workers} workers of {num_cpus:g} CPU each leave no whole one of this cluster's "
            f"{cpus:g} CPUs to read the data with: unless the cluster grows, Ray waits forever; "
            "ask for fewer workers, or for less with num_cpus="
        )
        warnings.warn(msg, stacklevel=3)


def _check_names(given: Sequence[str], new: Sequence[str]) -> None:
    names = [*given, *new]
    if len(set(names)) < len(names):
        msg = f"image, prompt, score and error need four different columns, got {', '.join(names)}"
        raise ValueError(msg)


def _check_columns(names: Sequence[str], given: Sequence[str], new: Sequence[str]) -> None:
    """That a dataset's columns are those that are named, and not yet those that are to come."""
    if missing := [name for name in given if name not in names]:
        msg = (
            f"the data have the columns {', '.join(names)}, but no {' and no '.join(missing)}: "
            "name theirs with image_column= and prompt_column="
        )
        raise ValueError(msg)
    if taken := [name for name in new if name in names]:
        msg = (
            f"the data have a column {' and '.join(taken)} already: choose others with "
            "score_column= and error_column="
        )
        raise ValueError(msg)
