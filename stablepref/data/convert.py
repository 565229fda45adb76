"""What every reader of preference data uses: a data set's `Format`, and values out of its rows."""

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from stablepref.data.groups import RankedGroup, as_list, as_name, shown
from stablepref.data.rows import Row, Rows


@final
class LeftOutError(Exception):
    """A row that is valid and yet not a ranked group; readers count it and continue."""


@final
@dataclass(frozen=True)
class Format:
    """How the rows of one data set are recognised and read.

    Attributes:
        convert: Makes a group of a row and the folder where relative image paths start. Raises
            `ValueError` for a row that is not valid and `LeftOutError` for one that is not a group.
        keys: Keys that its rows have, by which they are recognised; a format without any is read
            only where it is named.
        merge: Joins the rows of one group, for data sets with one row for each image.
    """

    convert: Callable[[Row, Path | None], RankedGroup]
    keys: Collection[str] = ()
    merge: Callable[[Rows], Rows] | None = None


def require_keys(row: Row, *keys: str) -> None:
    """Check that a row has all the keys.

    Raises:
        ValueError: If one is missing; it names the key and those that are there.
    """
    for key in keys:
        if key not in row:
            raise ValueError(f"the key {key!r} is missing; there are: {keys_of(row)}")


def resolve_image(value: object, folder: Path | None) -> object:
    """Turn an image as a row holds it into one that `stablepref.images` accepts.

    Args:
        value: A path, a URL, bytes, the ``{"bytes", "path"}`` of the `datasets` library, or an
            image object, which is handed through.
        folder: Where relative paths start; None leaves them as they are.

    Returns:
        A `Path`, a URL, bytes or the image object.

    Raises:
        ValueError: If there is no image: None, an empty text, a number, a list, or a mapping
            without bytes or path.
    """
    if isinstance(value, Mapping):
        content = value.get("bytes")
        value = value.get("path") if content is None else content
    nothing = value is None or (isinstance(value, str) and not value)
    if nothing or isinstance(value, (bool, int, float, complex, list, tuple, set, Mapping)):
        raise ValueError(f"an image is {shown(value)}; expected a path or bytes")
    if isinstance(value, str) and "://" in value:
        return value
    if isinstance(value, (str, os.PathLike)):
        return Path(value) if folder is None else folder / value
    return value


def resolve_images(values: object, folder: Path | None) -> tuple[object, ...]:
    """`resolve_image` of each of a list.

    Raises:
        ValueError: If it is not a list, or as `resolve_image`.
    """
    return tuple(resolve_image(value, folder) for value in as_list(values, "the list of images"))


def keys_of(row: Row) -> str:
    """The keys of a row, for messages."""
    return ", ".join(sorted(map(str, row))) or "none"


def is_list(value: object) -> bool:
    """Whether it is a list, a tuple or an array that is one."""
    return isinstance(value, (list, tuple)) or bool(getattr(value, "ndim", 0))


def is_number(value: object) -> bool:
    """Whether it is a number, or an array of a single one."""
    return isinstance(value, (bool, int, float)) or getattr(value, "ndim", None) == 0


def given(row: Row, key: str) -> tuple[Any, ...]:
    """A list that a row need not have."""
    value = row.get(key)
    return () if value is None else tuple(as_list(value, key))


def id_of(row: Row, key: str) -> str | None:
    """A name that a row need not have.

    Raises:
        ValueError: If it is a list, an object or the like.
    """
    value = row.get(key)
    return None if value is None else as_name(value)


def plain(value: object) -> object:
    """Arrays and their numbers as lists and numbers, which JSON can hold."""
    return value.tolist() if hasattr(value, "ndim") and hasattr(value, "tolist") else value
