"""Manifests: files whose rows name an image and its prompt, read one row at a time."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import final

from stablepref.images.sources import UnusableImageError, has_scheme, iter_sources

SUFFIXES = (".jsonl", ".csv", ".parquet")
PARQUET_ROWS = 64  # held in memory at once, with their images where these are in the file

Rows = Iterator[tuple[int, object]]


@final
@dataclass(frozen=True)
class Item:
    """One image to be scored.

    Attributes:
        name: Its whole path or URL; the place in the manifest for an image that has neither.
        image: What `stablepref.images.decode` takes; an `UnusableImageError` in its place says why
            there is none.
        prompt: Its prompt; None where the row has none, and then the image is an error too.
    """

    name: str
    image: object
    prompt: str | None


def is_manifest(path: str) -> bool:
    """Whether `path` has a manifest's suffix: .jsonl, .csv or .parquet."""
    return Path(path).suffix.lower() in SUFFIXES


def read_manifest(path: Path) -> Iterator[Item]:
    """Image and prompt of each row, lazily; a bad row yields the reason in the image's place.

    Rows have `image` (a path, relative to the manifest's folder or from `~/`, or a URL; in parquet
    also bytes or an image of `datasets`, which is bytes and a path) and `prompt`; further columns
    are ignored.

    Raises:
        ValueError: The file has another suffix, no such columns, or is damaged.
        OSError: It cannot be read.
    """
    for number, row in _numbered_rows(path):
        yield _item(row, place=f"{path}:{number}", folder=path.parent)


def count_rows(path: Path) -> int:
    """How many items `read_manifest` yields; for parquet from the file's own count.

    Raises:
        ValueError: As `read_manifest`.
        OSError: As `read_manifest`.
    """
    if path.suffix.lower() == ".parquet":
        with _reading(path), import_module("pyarrow.parquet").ParquetFile(path) as file:
            return int(file.metadata.num_rows)
    if path.suffix.lower() == ".jsonl":
        with path.open("rb") as lines:
            return sum(bool(line.strip()) for line in lines)
    return sum(1 for _ in _numbered_rows(path))


def _numbered_rows(path: Path) -> Rows:
    """Each row with the number by which a person finds it: line, or row for parquet."""
    readers = {".jsonl": _json_lines, ".csv": _csv_rows, ".parquet": _parquet_rows}
    suffix = path.suffix.lower()
    if suffix not in readers:
        msg = f"{path} is no manifest: expected one of {', '.join(SUFFIXES)}"
        raise ValueError(msg)
    return readers[suffix](path)


def _item(row: object, *, place: str, folder: Path) -> Item:
    """One row's item; one without a usable image bears the row's place as its name."""
    prompt = row.get("prompt") if isinstance(row, Mapping) else None
    if not isinstance(prompt, str) or not prompt.strip():
        return Item(place, UnusableImageError(_without_prompt(row)), None)
    assert isinstance(row, Mapping)
    image = row.get("image")
    if isinstance(image, Mapping):
        image = image.get("bytes") or image.get("path")
    if isinstance(image, bytes) and image:
        return Item(place, image, prompt)
    if not isinstance(image, str) or not image:
        reason = f"the row's image must be a path or URL, got {image!r:.60}"
        return Item(place, UnusableImageError(reason), prompt)
    if image.startswith("~/"):
        image = str(Path(image).expanduser())
    name = image if has_scheme(image) else str(folder / image)
    first, *more = islice(iter_sources(name), 2)
    if more:
        reason = "a row names one image, but this is a folder or pattern of several"
        return Item(name, UnusableImageError(reason), prompt)
    return Item(name, first.value, prompt)


def _without_prompt(row: object) -> str:
    if isinstance(row, ValueError):
        return str(row)
    if isinstance(row, Mapping):
        prompt = row.get("prompt")
        return f"the row's prompt is {'missing' if prompt is None else repr(prompt)}"
    return f"expected an object with image and prompt, got {row!r:.60}"


def _json_lines(path: Path) -> Rows:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                yield number, json.loads(line.decode("utf-8-sig"))
            except ValueError as error:
                yield number, ValueError(f"the row is not JSON: {error}")


def _csv_rows(path: Path) -> Rows:
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            reader = csv.DictReader(file)
            _require_columns(path, reader.fieldnames or [])
            for row in reader:
                yield reader.line_num, row
        except (csv.Error, UnicodeDecodeError) as error:
            msg = f"{path} cannot be read as CSV in UTF-8 after line {reader.line_num}: {error}"
            raise ValueError(msg) from error


def _parquet_rows(path: Path) -> Rows:
    try:
        parquet = import_module("pyarrow.parquet")
    except ImportError as error:
        msg = f"reading {path} needs pyarrow: pip install 'stablepref[bench]'"
        raise ValueError(msg) from error
    with _reading(path):
        file = parquet.ParquetFile(path)
    with file:
        _require_columns(path, file.schema_arrow.names)
        batches = file.iter_batches(batch_size=PARQUET_ROWS, columns=["image", "prompt"])
        first = 1
        while True:
            with _reading(path):
                batch = next(batches, None)
                rows = [] if batch is None else batch.to_pylist()
            if batch is None:
                return
            yield from enumerate(rows, first)
            first += len(rows)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Name the file in what pyarrow says about its content."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        msg = f"{path} cannot be read as parquet: {error}"
        raise ValueError(msg) from error


def _require_columns(path: Path, names: Sequence[str]) -> None:
    missing = {"image", "prompt"} - set(names)
    if missing:
        msg = (
            f"{path} has the columns {', '.join(names) or 'none'}; "
            f"expected {' and '.join(sorted(missing))} too"
        )
        raise ValueError(msg)
