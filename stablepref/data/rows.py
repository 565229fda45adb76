"""Rows of preference data out of files and `datasets` objects, one at a time.

What a row means is the business of `stablepref.data.formats`; here it is only a mapping and its
place.
"""

import importlib
import json
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

from stablepref.data.groups import DataError
from stablepref.data.jsonl import jsonl_rows

Row = Mapping[str, Any]
Rows = Iterator[tuple[str, Row | ValueError]]
"""Pairs of a place, such as "line 3", and the row that was found there. A single row that is not
valid is the error that says so; a file that cannot be read on raises `DataError`."""

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})

_SPACE = re.compile(r"[ \t\r\n]*")
_PARQUET_BATCH = 64


def json_rows(path: Path) -> Rows:
    """Yield ("entry N", object) for each object of a JSON array, counted from 1.

    Objects are parsed one by one, so that HPD v2's 645 thousand entries need no more memory than
    their text.

    Raises:
        DataError: If the file is not one JSON array; it names the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(path, f"byte {error.start}", f"not UTF-8 text ({error.reason})") from error

    def expect(character: str, position: int, wanted: str) -> int:
        position = _skip_space(text, position)
        if not text.startswith(character, position):
            found = repr(text[position : position + 10]) if position < len(text) else "the end"
            line = text.count("\n", 0, position) + 1
            raise DataError(path, f"line {line}", f"not JSON: expected {wanted}, found {found}")
        return _skip_space(text, position + 1)

    decoder = json.JSONDecoder()
    position = expect("[", 0, "an array of objects")
    number = 0
    while number > 0 or not text.startswith("]", position):
        number += 1
        try:
            row, position = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            raise DataError(path, f"line {error.lineno}", f"not JSON ({error.msg})") from error
        yield f"entry {number}", _mapping(row, "a JSON object")
        position = _skip_space(text, position)
        if text.startswith("]", position):
            break
        position = expect(",", position, "',' or ']'")
    if position + 1 < len(text.rstrip()):
        line = text.count("\n", 0, position) + 1
        raise DataError(path, f"line {line}", "text after the end of the array")


def parquet_rows(path: Path) -> Rows:
    """Yield ("row N", row) for each row of a Parquet file, counted from 1, in small batches.

    Raises:
        DataError: If the file is no Parquet file.
        ImportError: If pyarrow is not installed.
    """
    pyarrow = import_extra("pyarrow")
    parquet = import_extra("pyarrow.parquet")
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_PARQUET_BATCH):
                for row in batch.to_pylist():
                    number += 1
                    yield f"row {number}", row
    except pyarrow.ArrowInvalid as error:
        raise DataError(
            path, f"after row {number}", f"not readable as Parquet ({error})"
        ) from error


def tar_rows(path: Path) -> Rows:
    """Yield ("sample KEY", row) for each sample of a WebDataset shard.

    Files that share a name up to its first dot, and follow each other, are one sample. Its JSON
    file gives the row's fields, its text file the ``prompt``. Images named ``KEY.0.jpg``,
    ``KEY.1.jpg`` and so on become the list ``images``, a single ``KEY.jpg`` becomes ``image``, and
    ``KEY.NAME.jpg`` becomes ``NAME``. Anything else, such as ``KEY.jpg_0``, goes by its ending.

    Raises:
        DataError: If the shard is truncated or no tar file.
    """
    try:
        with tarfile.open(path, mode="r|*") as shard:
            members = (member for member in shard if member.isfile())
            for key, group in groupby(members, key=lambda member: _split_name(member.name)[0]):
                files = {}
                for member in group:
                    content = shard.extractfile(member)
                    assert content is not None, "a regular file has content"
                    files[_split_name(member.name)[1]] = content.read()
                yield f"sample {key}", sample_row(files)
    except (tarfile.TarError, EOFError) as error:
        raise DataError(path, "archive", f"not readable as a tar file ({error})") from error


def sample_row(files: Mapping[str, object]) -> Row | ValueError:
    """Make a row of the files of one WebDataset sample, as in `tar_rows`.

    Args:
        files: Contents by what follows the first dot of the name: bytes from a shard, or what the
            `datasets` library made of them. Names that begin with ``__`` are skipped.

    Returns:
        The row, or an error if the JSON file is not a JSON object.
    """
    row: dict[str, Any] = {}
    numbered: dict[int, object] = {}
    for name, value in files.items():
        stem, _, last = name.lower().rpartition(".")
        if name.startswith("__"):
            continue
        if f".{last}" in IMAGE_SUFFIXES:
            if stem.isdigit():
                numbered[int(stem)] = value
            else:
                row[stem or "image"] = value
        elif last == "json":
            try:
                fields = json.loads(value) if isinstance(value, (bytes, str)) else value
            except ValueError as error:
                return ValueError(f"its json is not valid ({error})")
            if not isinstance(fields, Mapping):
                return _mapping(fields, "a JSON object")
            row.update(fields)
        elif last == "txt":
            row["prompt"] = value.decode("utf-8") if isinstance(value, bytes) else value
        else:
            row[name] = value
    if numbered:
        row["images"] = [numbered[index] for index in sorted(numbered)]
    return row


def dataset_rows(dataset: Iterable[object]) -> Rows:
    """Yield ("row N", row), counted from 1, of a `datasets` object or any iterable of mappings.

    Image columns of the `datasets` library are left undecoded, so that a broken image is found
    where it is used and does not end the stream. Rows of its WebDataset loader are understood.
    """
    for number, row in enumerate(_undecoded(dataset), start=1):
        if isinstance(row, Mapping) and "__key__" in row:
            yield f"sample {row['__key__']}", sample_row(row)
        else:
            yield f"row {number}", _mapping(row, "a mapping of columns")


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
        ValueError: If there are several splits and ``split`` is none of them.
    """
    if not isinstance(found, Mapping):
        return found
    if split is None and len(found) == 1:
        (split,) = found
    if split not in found:
        raise ValueError(f"{name}: split is {split!r}; expected one of: {', '.join(found)}")
    rows: Iterable[object] = found[split]
    return rows


def import_extra(module: str) -> ModuleType:
    """Import an optional module that reading some formats needs.

    Raises:
        ImportError: If it is not installed; the message names the extra that brings it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"this data needs {module.partition('.')[0]}: pip install 'stablepref[train]'"
        ) from error


ROW_READERS: Mapping[str, Callable[[Path], Rows]] = {
    ".jsonl": jsonl_rows,
    ".ndjson": jsonl_rows,
    ".json": json_rows,
    ".parquet": parquet_rows,
    ".tar": tar_rows,
}
"""The reader of a file's rows, by its suffix in lower case."""


def _undecoded(dataset: Iterable[object]) -> Iterable[object]:
    if not type(dataset).__module__.startswith("datasets."):
        return dataset
    datasets = import_extra("datasets")
    stream = dataset.to_iterable_dataset() if isinstance(dataset, datasets.Dataset) else dataset
    if isinstance(stream, datasets.IterableDataset) and stream.features is not None:
        stream = stream.decode(False)
    return stream


def _skip_space(text: str, position: int) -> int:
    found = _SPACE.match(text, position)
    assert found is not None, "the pattern matches nothing as well"
    return found.end()


def _split_name(name: str) -> tuple[str, str]:
    path = PurePosixPath(name)
    stem, _, rest = path.name.partition(".")
    return str(path.with_name(stem)) if stem else str(path), rest


def _mapping(row: object, wanted: str) -> Row | ValueError:
    if isinstance(row, Mapping):
        return row
    return ValueError(f"a {type(row).__name__}; expected {wanted}")
