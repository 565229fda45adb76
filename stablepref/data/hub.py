"""Rows of the Hugging Face hub, of `datasets` objects and of other iterables, one at a time."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from stablepref.data.rows import Rows, as_rows, import_extra, sample_row


def dataset_rows(dataset: Iterable[object]) -> Rows:
    """Yield ("row N", row), counted from 1, of a `datasets` object or any iterable of mappings.

    Image columns of the `datasets` library are left undecoded, so that a broken image is found
    where it is used and does not end the stream. Rows of its WebDataset loader are understood.
    """
    numbered = enumerate(_undecoded(dataset), start=1)
    return as_rows(
        (
            (f"sample {row['__key__']}", sample_row(row))
            if isinstance(row, Mapping) and "__key__" in row
            else (f"row {number}", row)
            for number, row in numbered
        ),
        "a mapping of columns",
    )


def hub_rows(name: str, split: str | None) -> Iterable[object]:
    """Open a data set of the Hugging Face hub, or one that `datasets` saved, for streaming.

    Args:
        name: ``user/repository``, ``user/repository:configuration`` or a folder.
        split: The split, needed where there are several.

    Returns:
        The rows.

    Raises:
        ImportError: If `datasets` is not installed.
        ValueError: If there are several splits and none was chosen.
    """
    datasets = import_extra("datasets")
    if Path(name).is_dir():
        found = datasets.load_from_disk(name)
    else:
        repository, _, configuration = name.partition(":")
        found = datasets.load_dataset(repository, configuration or None, streaming=True)
    return choose_split(found, name, split)


def choose_split(found: Iterable[object], name: str, split: str | None) -> Iterable[object]:
    """Take one split out of a mapping of splits; anything else is handed through.

    Raises:
        ValueError: If there are several splits and ``split`` does not name one of them.
    """
    if not isinstance(found, Mapping):
        return found
    if split is None and len(found) == 1:
        (split,) = found
    if split not in found:
        raise ValueError(f"{name}: split is {split!r}; expected one of: {', '.join(found)}")
    rows: Iterable[object] = found[split]
    return rows


def _undecoded(dataset: Iterable[object]) -> Iterable[object]:
    if not type(dataset).__module__.startswith("datasets."):
        return dataset
    datasets = import_extra("datasets")
    stream = dataset.to_iterable_dataset() if isinstance(dataset, datasets.Dataset) else dataset
    if isinstance(stream, datasets.IterableDataset) and stream.features is not None:
        stream = stream.decode(False)
    return stream
