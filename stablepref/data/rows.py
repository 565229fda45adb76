"""The rows of files, one at a time: JSON Lines, JSON, CSV, TSV, Parquet and WebDataset shards.

What a row means is the business of others: of `stablepref.data.formats` for preference data, of
`stablepref.data.manifest` and of `stablepref.data.prompts`. Here it is a value and its place.
"""

import csv
import importlib
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any, Final, Literal, final

from stablepref.data.groups import DataError
from stablepref.data.json_values import Values, json_entries, json_lines, parsed
from stablepref.images.paths import image_suffixes

Row = Mapping[str, Any]
Rows = Iterator[tuple[str, Row | ValueError]]
"""`Values` that are rows, or errors in their places."""

_PARQUET_BATCH = 64  # rows in memory at once, with their images where these are in the file


def read_values(path: Path) -> Values:
    """What a file holds, value by value, with places; the suffix says how it is read.

    Raises:
        ValueError: If files of this suffix are not read.
        DataError: While iterating, if the file is damaged so that it cannot be read on.
        OSError: While iterating, if it cannot be opened.
        ImportError: While iterating, if a library is not installed; the message names the extra.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        known = ", ".join(READERS)
        raise ValueError(f"{path}: files ending in {path.suffix!r} are not read; known are {known}")
    return reader(path)


def read_rows(path: Path) -> Rows:
    """The rows of a file, as `read_values`; a value that is not a row is an error in its place."""
    return as_rows(read_values(path), "a JSON object")


def as_rows(values: Iterable[tuple[str, object]], wanted: str) -> Rows:
    """Replace what is not a row by an error that says what was wanted."""
    for place, value in values:
        if not isinstance(value, (Mapping, ValueError)):
            value = ValueError(f"a {type(value).__name__}; expected {wanted}")  # noqa: PLW2901
        yield place, value


def find_column(names: Iterable[str], known: Sequence[str]) -> str | None:
    """The first of the known columns that a row has, in any case of letters; None without any."""
    by_name = {str(name).strip().lower(): name for name in names}
    return next((by_name[name] for name in known if name in by_name), None)


def table_rows(path: Path) -> Rows:
    """Yield ("line N", row) for each row of a CSV or TSV file that is not blank, by its last line.

    Columns are separated by tabs in `.tsv`, else by commas, or by semicolons (or tabs) where the
    first line has no comma. Cells that a short row lacks are None. Where the quotes of a TSV do not
    enclose whole fields they have no meaning, as in the media type text/tab-separated-values.

    Raises:
        DataError: If the line of column names is not UTF-8 text or not a row.
    """
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        delimiter, quoting = _dialect(path)
        reader = csv.reader(file, delimiter=delimiter, quoting=quoting, strict=True)
        names: Sequence[str] | None = None
        while True:
            before = reader.line_num
            found: Row | ValueError
            try:
                cells = next(reader, None)
                if cells is None:
                    return
                if not cells:
                    continue
                _check_text(cells)
                if names is None:
                    names = cells
                    continue
                found = _cells(names, cells)
            except (csv.Error, ValueError) as error:
                lines = f" in lines {before + 1} to {reader.line_num}"
                place = lines if reader.line_num > before + 1 else ""
                found = ValueError(f"not readable as a row of a table{place} ({error})")
            if names is None:
                raise DataError(path, f"line {reader.line_num}", str(found))
            yield f"line {reader.line_num}", found


def parquet_rows(path: Path, columns: Sequence[str] | None = None) -> Rows:
    """Yield ("row N", row) for each row of a Parquet file, counted from 1, in small batches.

    Args:
        path: The file.
        columns: Those to read; all by default.

    Raises:
        DataError: If the file is not a Parquet file, or damaged.
        ImportError: If pyarrow is not installed.
    """
    number = 0
    with open_parquet(path) as file:
        batches = file.iter_batches(batch_size=_PARQUET_BATCH, columns=columns)
        while True:
            try:
                batch = next(batches, None)
                rows = [] if batch is None else batch.to_pylist()
            except (OSError, ValueError, ArithmeticError) as error:
                place = f"after row {number}"
                raise DataError(path, place, f"not readable as Parquet ({error})") from error
            if batch is None:
                return
            for row in rows:
                number += 1
                yield f"row {number}", row


def open_parquet(path: Path) -> Any:  # noqa: ANN401 (pyarrow has no types)
    """A `pyarrow.parquet.ParquetFile`.

    Raises:
        DataError: If the file is not a Parquet file.
        FileNotFoundError: If it is not there.
        ImportError: If pyarrow is not installed.
    """
    parquet = import_extra("pyarrow.parquet")
    try:
        return parquet.ParquetFile(path)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise DataError(path, "row 1", f"not readable as Parquet ({error})") from error


LARGEST_MEMBER: Final = 2**30
"""Bytes of one file in a shard, and of one sample's files together; a few kilobytes of archive can
declare any number."""
LARGEST_HEADER: Final = 2**20
"""Bytes of all that stands before one file's content: long names, further headers, sparse maps."""


@final
class _Bounded:
    """A shard's unpacked bytes, of which no more are read at a time than is expected."""

    def __init__(self, stream: Any) -> None:  # noqa: ANN401 (tarfile's own)
        self._stream = stream
        self.left = LARGEST_HEADER

    def read(self, size: int) -> bytes:
        self.left -= size
        if self.left < 0:
            raise ValueError(
                f"the header of a file is longer than the {LARGEST_HEADER:,} bytes allowed"
            )
        data: bytes = self._stream.read(size)
        return data

    def seek(self, place: int) -> int:
        found: int = self._stream.seek(place)
        return found

    def tell(self) -> int:
        found: int = self._stream.tell()
        return found

    def close(self) -> None:
        self._stream.close()


@final
class _Shard(tarfile.TarFile):
    """A tar file read once from beginning to end, whose headers have an upper bound."""

    def __init__(self, name: Any, mode: Any, fileobj: Any, **options: Any) -> None:  # noqa: ANN401
        self._bounded = _Bounded(fileobj)
        reader: Any = self._bounded  # typeshed asks for a write() too
        super().__init__(name, mode, reader, **options)

    def next(self) -> tarfile.TarInfo | None:
        """The next header."""
        self._bounded.left = LARGEST_HEADER
        found = super().next()
        self._bounded.left = 2 * LARGEST_MEMBER  # whole blocks: for content, which is checked
        return found


def tar_rows(path: Path) -> Values:
    """Yield ("sample KEY", row) for each sample of a WebDataset shard.

    Files that share a name up to its first dot, and follow each other, are one sample. Its JSON
    file gives the row's fields, its text file the ``prompt``. Images named ``KEY.0.jpg``,
    ``KEY.1.jpg`` and so on become the list ``images``, a single ``KEY.jpg`` becomes ``image``, and
    ``KEY.NAME.jpg`` becomes ``NAME``. Anything else, such as ``KEY.jpg_0``, goes by its ending.

    Raises:
        DataError: If the shard is truncated or not a tar file.
    """
    try:
        with _Shard.open(path, mode="r|*") as shard:
            members = (member for member in shard if member.isfile())
            for key, group in groupby(members, key=lambda member: _split_name(member.name)[0]):
                files: dict[str, bytes] = {}
                room = LARGEST_MEMBER
                for member in group:
                    if member.issparse() or member.size > LARGEST_MEMBER:
                        kind = "a sparse file of " if member.issparse() else ""
                        raise ValueError(
                            f"{member.name} is {kind}{member.size:,} bytes; expected whole files "
                            f"of at most {LARGEST_MEMBER:,}"
                        )
                    content = shard.extractfile(member)
                    assert content is not None, "a regular file has content"
                    room -= member.size
                    if room < 0:
                        raise ValueError(
                            f"the files of sample {key} have more than {LARGEST_MEMBER:,} bytes"
                        )
                    files[_split_name(member.name)[1]] = content.read()
                yield f"sample {key}", sample_row(files)
    except (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError) as error:
        raise DataError(path, "archive", f"not readable as a tar file ({error})") from error


def sample_row(files: Mapping[str, object]) -> object:
    """Make a row of the files of one WebDataset sample, as in `tar_rows`.

    Args:
        files: Contents by what follows the first dot of the name: bytes from a shard, or what the
            `datasets` library made of them. Names that begin with ``__`` are skipped.

    Returns:
        The row, or an error if a text is not UTF-8 or the JSON file is not valid; what is no JSON
        object is returned as it is.
    """
    row: dict[str, Any] = {}
    numbered: dict[int, object] = {}
    suffixes = image_suffixes()
    for name, value in files.items():
        stem, _, last = name.lower().rpartition(".")
        if name.startswith("__"):
            continue
        if f".{last}" in suffixes:
            if stem.isdecimal() and len(stem) < 20:  # Python converts no more than 4300 digits
                numbered[int(stem)] = value
            else:
                row[stem or "image"] = value
        elif last == "json":
            fields = parsed(value) if isinstance(value, (bytes, str)) else value
            if isinstance(fields, ValueError):
                return ValueError(f"its json is not valid: {fields}")
            if not isinstance(fields, Mapping):
                return fields
            row.update(fields)
        elif last == "txt":
            try:
                row["prompt"] = value.decode("utf-8-sig") if isinstance(value, bytes) else value
            except UnicodeDecodeError as error:
                return ValueError(f"its txt is not UTF-8 text ({error})")
        else:
            row[name] = value
    if numbered:
        row["images"] = [numbered[index] for index in sorted(numbered)]
    return row


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


READERS: Mapping[str, Callable[[Path], Values]] = {
    ".jsonl": json_lines,
    ".ndjson": json_lines,
    ".json": json_entries,
    ".csv": table_rows,
    ".tsv": table_rows,
    ".parquet": parquet_rows,
    ".tar": tar_rows,
}
"""What reads a file, by its suffix in lower case."""


def _dialect(path: Path) -> tuple[str, Literal[0, 3]]:
    """What separates the columns of a table, and whether its quotes have a meaning."""
    options: Any = {"encoding": "utf-8-sig", "errors": "surrogateescape", "newline": ""}
    with path.open(**options) as file:
        first = next((line for line in file if line.strip()), "")
    if path.suffix.lower() == ".tsv":
        delimiter = "\t"
    else:
        delimiter = next((mark for mark in ",;\t" if mark in first), ",")
    if delimiter == "\t":
        with path.open(**options) as file:
            try:
                for _ in csv.reader(file, delimiter=delimiter, strict=True):
                    pass
            except csv.Error:
                return delimiter, csv.QUOTE_NONE
    return delimiter, csv.QUOTE_MINIMAL


def _check_text(cells: Sequence[str]) -> None:
    """Refuse bytes that are not UTF-8, which reading keeps as lone surrogates."""
    for cell in cells:
        try:
            cell.encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError("not UTF-8 text") from None


def _cells(names: Sequence[str], cells: Sequence[str]) -> Row:
    if len(cells) > len(names):
        raise ValueError(
            f"{len(cells)} cells for {len(names)} columns; cells that hold the separator need "
            "quotes around them"
        )
    return dict.fromkeys(names) | dict(zip(names, cells, strict=False))


def _split_name(name: str) -> tuple[str, str]:
    path = PurePosixPath(name)
    stem, _, rest = path.name.partition(".")
    return str(path.with_name(stem)) if stem else str(path), rest
