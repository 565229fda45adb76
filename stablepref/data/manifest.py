"""Manifests: files whose rows name an image and its prompt, read one row at a time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from glob import has_magic
from pathlib import Path
from typing import Any, Final, final

from stablepref.data.groups import DataError, shown
from stablepref.data.image_prompts import PromptSource, prompt_of
from stablepref.data.prompts import PROMPT_COLUMNS
from stablepref.data.rows import find_column, open_parquet, parquet_rows, read_values
from stablepref.images.sources import (
    Source,
    UnusableImageError,
    count_sources,
    has_scheme,
    is_url,
    iter_sources,
)
from stablepref.scoring.items import Item

SUFFIXES: Final = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
IMAGE_COLUMNS: Final = (
    *("image", "image_path", "image_file", "img", "path", "file", "file_path", "file_name"),
    *("filename", "url", "image_url"),
)
"""Columns that hold images, in any case of letters; the first of them that a row has is taken."""
_TABLES: Final = (".csv", ".tsv")


@final
@dataclass(frozen=True)
class Columns:
    """Which columns of a manifest hold what; None takes the first known one that is there.

    Attributes:
        image: Of the images.
        prompt: Of the prompts.
    """

    image: str | None = None
    prompt: str | None = None

    def given(self, names: Sequence[str], *, prompt: bool) -> tuple[str, ...]:
        """The columns of image and prompt among those that are there.

        Args:
            names: Those that are there.
            prompt: Whether there has to be one of prompts.

        Raises:
            ValueError: One is missing; the message lists those that are there.
        """
        image = self.image_of(names)
        return (image, self.prompt_of(names)) if prompt or self.holds_prompt(names) else (image,)

    def holds_prompt(self, names: Sequence[str]) -> bool:
        """Whether there is a column of prompts, or one was named, which has to be there."""
        return self.prompt is not None or find_column(names, PROMPT_COLUMNS) is not None

    def image_of(self, names: Sequence[str]) -> str:
        """The column of the images; raises as `given`."""
        return _column(names, "image", self.image, IMAGE_COLUMNS)

    def prompt_of(self, names: Sequence[str]) -> str:
        """The column of the prompts; raises as `given`."""
        return _column(names, "prompt", self.prompt, PROMPT_COLUMNS)


KNOWN: Final = Columns()
"""The known columns."""


def _column(names: Sequence[str], role: str, name: str | None, known: Sequence[str]) -> str:
    found = find_column(names, known) if name is None else name
    if found is None or found not in names:
        there = ", ".join(map(str, names)) or "none"
        expected = f"one of {', '.join(known)}" if name is None else repr(name)
        msg = (
            f"there is no column for the {role}, only {there}; expected {expected}, or name it "
            f"with {role}_column="
        )
        raise ValueError(msg)
    return found


def is_manifest(path: str) -> bool:
    """Whether a path or URL has a manifest's suffix, one of `SUFFIXES`."""
    return not is_url(path) and Path(path).suffix.lower() in SUFFIXES


def read_manifest(path: Path, columns: Columns = KNOWN, *, needed: bool = True) -> Iterator[Item]:
    """Image and prompt of each row, lazily; a bad row gives the reason in the image's place.

    An image is a path, relative to the manifest's folder or from `~/`, or a URL; in Parquet also
    bytes or an image of `datasets`, which is bytes and a path. Other columns are kept where they
    hold texts, numbers or truth values.

    Args:
        path: The file; `SUFFIXES` are read.
        columns: Which columns hold images and prompts.
        needed: Whether each row must have a prompt.

    Raises:
        ValueError: The file has another suffix, or no such columns.
        DataError: It is damaged.
        OSError: It cannot be read.
        ImportError: It is a Parquet file, and pyarrow is not installed.
    """
    for place, row in _values(path, columns, needed=needed):
        where = f"{path}:{place.rpartition(' ')[2]}"
        yield _item(row, columns, place=where, folder=path.parent, needed=needed)


def count_rows(path: Path) -> int:
    """How many items `read_manifest` yields; for Parquet from the file's own count.

    Raises:
        ValueError: The file has another suffix.
        DataError: It is damaged.
        OSError: It cannot be read.
        ImportError: It is a Parquet file, and pyarrow is not installed.
    """
    if path.suffix.lower() == ".parquet":
        with open_parquet(path) as file:
            return int(file.metadata.num_rows)
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        with path.open("rb") as lines:
            return sum(bool(line.strip()) for line in lines)
    return sum(1 for _ in _values(path, None, needed=False))


def check_image(text: str) -> None:
    """Refuse a file, folder or pattern of images that is not there, before a model is loaded.

    Args:
        text: As typed; a URL passes.

    Raises:
        ValueError: The message has the word that was typed, and what is wrong with it.
    """
    path = next(iter(iter_sources(text))).value
    if isinstance(path, UnusableImageError):
        msg = f"{text}: {path}"
        raise ValueError(msg)
    if isinstance(path, Path) and not _is(path, Path.exists):
        msg = f"{text}: there is no such file or folder"
        raise ValueError(msg)


def read_items(
    images: Sequence[str],
    prompt: str | None,
    columns: Columns = KNOWN,
    *,
    prompt_from: PromptSource | None = None,
    needed: bool = True,
) -> Iterator[Item]:
    """Items of a manifest, or of files, folders, globs and URLs with one prompt, lazily.

    All items of a manifest have the other columns of its first good row, None where they lack one.

    Args:
        images: Files, folders, globs and URLs, or one manifest.
        prompt: Of all images; None with a manifest.
        columns: Which columns of the manifest hold images and prompts.
        prompt_from: Where each image's own prompt is; see `stablepref.data.image_prompts`.
        needed: Whether each image must have a prompt.

    Raises:
        ValueError: At once: no prompt or an empty one, anything beside a manifest, columns without
            a manifest, or a manifest that has no rows.
        OSError: At once: the manifest cannot be read.
    """
    if not any(map(is_manifest, images)):
        if columns != KNOWN:
            msg = "--image-column and --prompt-column are for a manifest; there is none"
            raise ValueError(msg)
        if prompt_from is not None:
            if prompt is not None:
                msg = "--prompt is for all images and --prompt-from for each its own: leave one out"
                raise ValueError(msg)
            return map(partial(_with_own_prompt, prompt_from), iter_sources(list(images)))
        if (prompt is None and needed) or (prompt is not None and not prompt.strip()):
            wrong = "missing" if prompt is None else "empty"
            msg = (
                f"--prompt is {wrong} (a manifest brings prompts of its own, and --prompt-from "
                "takes those that images bring)"
            )
            raise ValueError(msg)
        return (Item(source.name, source.value, prompt) for source in iter_sources(list(images)))
    if len(images) > 1 or prompt is not None or prompt_from is not None:
        msg = "a manifest stands alone: no other images beside it, no --prompt, no --prompt-from"
        raise ValueError(msg)
    path = Path(images[0])
    items = read_manifest(path, columns, needed=needed)
    first: list[Item] = []
    for item in items:
        first.append(item)
        if item.prompt is not None or not isinstance(item.image, UnusableImageError):
            break
    if not first:
        msg = f"{path} has no rows"
        raise ValueError(msg)
    names = list(first[-1].others)
    return (
        replace(item, others={name: item.others.get(name) for name in names})
        for item in itertools.chain(first, items)
    )


def _with_own_prompt(prompt_from: PromptSource, source: Source) -> Item:
    """An image with the prompt that it brings, or why there is none in the image's place."""
    if isinstance(source.value, UnusableImageError):
        return Item(source.name, source.value, None)
    try:
        return Item(source.name, source.value, prompt_of(source.value, prompt_from))
    except UnusableImageError as error:
        return Item(source.name, error, None)


def count_items(images: Sequence[str]) -> int | None:
    """How many items `read_items` yields; None if that cannot be known beforehand."""
    if not is_manifest(images[0]):
        return count_sources(list(images))
    path = Path(images[0])
    return count_rows(path) if path.is_file() else None  # a pipe can be read once


def _values(path: Path, columns: Columns | None, *, needed: bool) -> Iterator[tuple[str, object]]:
    """The rows of a manifest; None for the columns reads them all and checks none."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        msg = f"{path} is not a manifest: expected one of {', '.join(SUFFIXES)}"
        raise ValueError(msg)
    try:
        if suffix == ".parquet" and columns is not None:
            with open_parquet(path) as file:
                schema = file.schema_arrow
            given = columns.given(schema.names, prompt=needed)
            read = [one.name for one in schema if one.name in given or not _holds_more(one.type)]
            yield from parquet_rows(path, read)
            return
        checked = columns is None or suffix not in _TABLES
        for place, row in read_values(path):
            if columns is not None and not checked and isinstance(row, Mapping):
                columns.given(list(row), prompt=needed)
                checked = True
            yield place, row
    except DataError:
        raise
    except ValueError as error:
        msg = f"{path}: {error}"
        raise ValueError(msg) from error


def _holds_more(kind: Any) -> bool:  # noqa: ANN401 (pyarrow has no types)
    """Whether a type of Arrow holds bytes or several values."""
    return kind.num_fields > 0 or "binary" in str(kind)


def _item(row: object, columns: Columns, *, place: str, folder: Path, needed: bool) -> Item:
    """One row's item; one without a usable image bears the row's place as its name."""
    prompt: str | None = None
    others: dict[str, object] = {}
    try:
        row = _checked_row(row)
        prompt_column = None
        if needed or columns.holds_prompt(list(row)):
            prompt_column = columns.prompt_of(list(row))
            prompt = _prompt(row[prompt_column], needed=needed)
        image_column = columns.image_of(list(row))
        others = _plain_values(row, {image_column, prompt_column})
        name, image = _image(row[image_column], folder)
    except ValueError as error:
        return Item(place, UnusableImageError(str(error)), prompt, others)
    return Item(name or place, image, prompt, others)


def _checked_row(row: object) -> Mapping[str, object]:
    if isinstance(row, ValueError):
        raise row
    if not isinstance(row, Mapping):
        msg = f"expected an object with image and prompt, got {shown(row)}"
        raise ValueError(msg)
    return row


def _prompt(value: object, *, needed: bool) -> str | None:
    nothing = value is None or (isinstance(value, str) and not value.strip())
    if nothing and not needed:
        return None
    if not isinstance(value, str) or not value.strip():
        msg = f"the row's prompt is {'missing' if value is None else shown(value)}"
        raise ValueError(msg)
    return value


def _plain_values(row: Mapping[str, object], without: set[str | None]) -> dict[str, object]:
    """What JSON can hold of a row's other columns; a number that is not finite is None."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
        if name not in without and isinstance(value, (str, int, float, bool, type(None)))
    }


def _image(value: object, folder: Path) -> tuple[str | None, object]:
    """Name and content of a row's image; bytes have no name."""
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes) and value:
        return None, value
    if not isinstance(value, str) or not value:
        msg = f"the row's image must be a path or URL, got {shown(value)}"
        raise ValueError(msg)
    if has_scheme(value):
        (source,) = iter_sources(value)  # of addresses that are not fetched it says what to do
        return source.name, source.value
    path = Path.home() / value[2:] if value.startswith("~/") else folder / value
    if str(path).startswith("~"):  # a name in this folder, not someone's home
        path = path.absolute()
    if _is(path, Path.is_dir):
        return str(path), UnusableImageError("a row names one image, but this is a folder")
    if has_magic(str(path)) and not _is(path, Path.exists):  # scoring would read it as a pattern
        return str(path), UnusableImageError("there is no such file, and a row is not a pattern")
    return str(path), path


def _is(path: Path, what: Callable[[Path], bool]) -> bool:
    try:
        return what(path)
    except OSError:  # a name that is too long, say: opening it says so
        return False
