"""Image-text corpora scored on Ray Data, across machines, with one model per worker."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, final

import numpy as np
from PIL import Image

import stablepref
from stablepref.images.sources import UnusableImageError, describe, iter_sources
from stablepref.models.registry import SCORERS, check_model, model_name
from stablepref.scoring.items import Item, score_items

try:
    import pyarrow as pa
    import ray
    from ray.data import ActorPoolStrategy
    from ray.data.block import BlockAccessor, BlockType
except ImportError as error:
    _msg = f"this needs Ray Data: pip install 'stablepref[ray]' ({error})"
    raise ImportError(_msg) from error

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from numpy.typing import NDArray
    from ray.data import Dataset


_SINGLE = (bytes, bytearray, memoryview, Mapping, Image.Image)


class CorpusOptions(TypedDict, total=False):
    """Which columns of a corpus are read and written, and how its model runs.

    Attributes:
        image_column: Name of the images' column, "image" by default: bytes, paths, URLs, images of
            `datasets`, arrays.
        prompt_column: Name of the prompts' column, "prompt" by default.
        score_column: Name of the new column of scores, "score" by default: float32, null where
            there is none.
        error_column: Name of the new column of reasons, "error" by default: strings, null where
            there is a score.
        like: For a checkpoint file whose name does not tell: the model it is like.
        device: Where each worker computes. None takes an accelerator if the worker sees one;
            `score_dataset` takes "cuda" with `num_gpus`, else "cpu".
        dtype: Number type of the model; None chooses.
        views: Average each score over this many weak views beside the image itself.
        encode_batch_size: Images encoded at once; None chooses. Halved when memory runs out.
    """

    image_column: str
    prompt_column: str
    score_column: str
    error_column: str
    like: str | None
    device: str | torch.device | None
    dtype: torch.dtype | str | None
    views: int
    encode_batch_size: int | None


@final
class ScoreBatch:
    """A stage for `Dataset.map_batches`: adds each row's score, or why it has none.

    Ray makes one object in each worker, which loads the model once and scores batch after batch
    with it. Takes batches in any of Ray's formats; "pyarrow" leaves the other columns untouched.

    Args:
        model: A name or path, see `stablepref.load`; a path must lead to the same model on every
            machine.
        **options: See `CorpusOptions`.

    Raises:
        ValueError: Two columns have one name; or as `stablepref.load`.
        OSError: As `stablepref.load`.
    """

    def __init__(
        self, model: str | os.PathLike[str] | None = None, **options: Unpack[CorpusOptions]
    ) -> None:
        self._given, self._new = _columns(options)
        self._views = options.get("views", 0)
        self._encode_batch_size = options.get("encode_batch_size")
        self._scorer = stablepref.load(
            model,
            device=options.get("device"),
            dtype=options.get("dtype"),
            like=options.get("like"),
        )

    def __call__(self, batch: Mapping[str, NDArray[Any]] | pa.Table) -> pa.Table:
        """The batch, or DataFrame, as an Arrow table with the two new columns, in the same order.

        Raises:
            ValueError: A column is missing, or a new one is there already.
        """
        block = BlockAccessor.batch_to_block(batch, block_type=BlockType.ARROW)
        if not isinstance(block, pa.Table):  # of old Ray a DataFrame stays one
            block = BlockAccessor.batch_to_block(BlockAccessor.for_block(block).to_numpy())
        table: pa.Table = block
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


def score_dataset(
    ds: Dataset,
    model: str | os.PathLike[str] | None = None,
    *,
    workers: int = 1,
    batch_size: int = 64,
    num_cpus: float = 1,
    num_gpus: float = 0,
    **options: Unpack[CorpusOptions],
) -> Dataset:
    """Score every row of a dataset, with a fixed number of workers that hold a model each.

    Nothing runs yet: Ray works when the rows are consumed. A row without a usable image or prompt
    stays, with the reason in place of a score. A worker that dies is started again and its batch
    scored again: every row comes out once. The rows' order is kept only where
    `DataContext.execution_options.preserve_order` is set.

    Args:
        ds: Rows with an image and a prompt.
        model: A name or path, see `stablepref.load`; None is `$STABLEPREF_MODEL` of this process
            or "hps-v2.1". A path must be there on every machine.
        workers: How many, over all machines. Beside them Ray needs a CPU to read the data with.
        batch_size: Rows handed to a worker at once; blocks smaller than this are put together.
        num_cpus: Of each worker.
        num_gpus: Of each worker, 1 where each has a GPU of its own; without any it computes on the
            CPU.
        **options: See `CorpusOptions`.

    Returns:
        The dataset with the columns of score and error.

    Raises:
        ValueError: The model is unknown, `workers` below 1, or the columns are not as named. Where
            Ray does not know the columns before it reads, they are looked at by the workers, and
            Ray wraps their error.
    """
    name = model_name(model)
    check_model(name, options.get("like"))
    if name not in SCORERS and Path(name).exists():
        name = str(Path(name).resolve())
    if workers < 1:
        msg = f"workers must be 1 or more, got {workers}"
        raise ValueError(msg)
    given, new = _columns(options)
    _warn_of_waiting(workers, num_cpus)
    schema = ds.schema(fetch_if_missing=False)
    if schema is not None:
        _check_columns(schema.names, given, new)
    return ds.map_batches(
        ScoreBatch,
        fn_constructor_kwargs={
            **options,
            "model": name,
            "device": options.get("device") or ("cuda" if num_gpus else "cpu"),
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


def _columns(options: CorpusOptions) -> tuple[tuple[str, str], tuple[str, str]]:
    """The columns that are given, of images and prompts, and those to add, of scores and errors.

    Raises:
        ValueError: Two of them have one name.
    """
    given = options.get("image_column", "image"), options.get("prompt_column", "prompt")
    new = options.get("score_column", "score"), options.get("error_column", "error")
    if len({*given, *new}) < 4:
        names = ", ".join([*given, *new])
        msg = f"image, prompt, score and error need four different columns, got {names}"
        raise ValueError(msg)
    return given, new


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


def row_item(image: object, prompt: object, *, number: int) -> Item:
    """The image and prompt of one row; what is wrong with either takes the image's place.

    Args:
        image: Bytes of an image file, a path or http(s) URL, an image of `datasets` (a dictionary
            of bytes and path), an array `(H, W)` or `(H, W, channels)`, or a PIL image.
        prompt: A string, or UTF-8 bytes, as an undecoded WebDataset has them.
        number: Of the row in its batch, from 0; names an image that has no path.
    """
    place = f"row {number}"
    text = _text(prompt)
    if isinstance(text, UnusableImageError):
        return Item(place, text, None)
    if isinstance(image, str | os.PathLike):
        first, *more = islice(iter_sources(image), 2)
        if more:
            reason = "a row holds one image, but this is a folder or pattern of several"
            return Item(first.name, UnusableImageError(reason), text)
        return Item(first.name, first.value, text)
    if _is_missing(image):
        return Item(place, UnusableImageError("the row has no image"), text)
    if not (isinstance(image, _SINGLE) or _is_one_array(image)):
        reason = (
            "a row's image must be bytes, a path or URL, a dictionary of bytes and path, an array "
            f"(H, W, 3) or a PIL image; got {describe(image)}"
        )
        return Item(place, UnusableImageError(reason), text)
    return Item(place, image, text)


def _text(prompt: object) -> str | UnusableImageError:
    """The prompt as a string, or what is wrong with it."""
    if isinstance(prompt, bytes):
        try:
            prompt = prompt.decode()
        except UnicodeDecodeError as error:
            return UnusableImageError(f"the row's prompt is not UTF-8: {error}")
    if _is_missing(prompt):
        return UnusableImageError("the row has no prompt")
    if not isinstance(prompt, str):
        return UnusableImageError(f"the row's prompt must be a string, got {prompt!r:.60}")
    return prompt if prompt.strip() else UnusableImageError("the row's prompt is empty")


def _is_missing(value: object) -> bool:
    """Whether a cell is empty: null in Arrow, NaN in pandas."""
    return value is None or (isinstance(value, float) and np.isnan(value))


def _is_one_array(value: object) -> bool:
    return isinstance(value, np.ndarray) and value.ndim <= 3 and value.dtype.kind in "uif"
