"""Ranked groups as JSON Lines: one line ``{"prompt", "images", "ranks"}`` for each group.

Optional keys are those of `RankedGroup` (``id``, ``annotations``, ``annotators``, ``metadata``);
any other key becomes metadata. Image paths are relative to the file's folder, so that a data set
can be moved; URLs stay as they are.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from stablepref.data.groups import DataError, RankedGroup
from stablepref.output.durable import replacing

_GROUP_KEYS = frozenset(
    {"prompt", "images", "ranks", "id", "annotations", "annotators", "metadata"}
)
_SIGNATURES = ((b"\xff\xd8", ".jpg"), (b"\x89PNG", ".png"), (b"RIFF", ".webp"), (b"GIF8", ".gif"))


def read_jsonl(path: str | os.PathLike[str]) -> Iterator[RankedGroup]:
    """Read ranked groups one line at a time.

    Args:
        path: The file. Blank lines in it are skipped.

    Yields:
        The groups in the order of the file.

    Raises:
        DataError: If a line is not a valid group; it names the line's number.
        FileNotFoundError: If there is no such file.
    """
    path = Path(path)
    for place, row in jsonl_rows(path):
        try:
            if isinstance(row, ValueError):
                raise row
            group = group_from_row(row, path.parent)
        except ValueError as error:
            raise DataError(path, place, str(error)) from error
        yield group


def write_jsonl(
    path: str | os.PathLike[str],
    groups: Iterable[RankedGroup],
    *,
    image_folder: str | os.PathLike[str] | None = None,
) -> int:
    """Write ranked groups; the file appears whole or not at all.

    Paths below the file's folder are written relative to it, other paths absolute.

    Args:
        path: The file to write; one that is there is replaced at the end.
        groups: The groups, consumed one by one.
        image_folder: Where to save images that are held as bytes, under the hash of their content.
            Without it such images are refused: JSON Lines holds paths only.

    Returns:
        The number of groups written.

    Raises:
        TypeError: If an image is neither a path nor a URL, nor bytes with an ``image_folder``.
    """
    path = Path(path).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_to = None if image_folder is None else Path(image_folder).absolute()
    count = 0
    with replacing(path) as staging, staging.open("w", encoding="utf-8") as file:
        for group in groups:
            row = _row_from_group(group, path.parent, save_to)
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def jsonl_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any] | ValueError]]:
    """Yield ("line N", object) for each line of a JSON Lines file that is not blank.

    A line that is not a JSON object gives the error in its place, so that reading can go on.
    """
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield f"line {number}", _parse_line(line)


def group_from_row(row: Mapping[str, Any], folder: Path | None) -> RankedGroup:
    """Make a group of a row with the keys of `RankedGroup`.

    Args:
        row: At least ``prompt``, ``images`` and ``ranks``.
        folder: Where relative image paths start; None leaves them as they are.

    Returns:
        The group.

    Raises:
        ValueError: If a key is missing or the row is no valid group.
    """
    require_keys(row, "prompt", "images", "ranks")
    metadata = row.get("metadata") or {}
    extra = {key: row[key] for key in row.keys() - _GROUP_KEYS if not isinstance(row[key], bytes)}
    if not isinstance(metadata, Mapping):
        raise ValueError(f"metadata is a {type(metadata).__name__}; expected an object")
    if not isinstance(row["images"], (list, tuple)):
        raise ValueError(f"images is a {type(row['images']).__name__}; expected a list")
    name = row.get("id")
    return RankedGroup(
        prompt=row["prompt"],
        images=tuple(resolve_image(image, folder) for image in row["images"]),
        ranks=row["ranks"],
        id=None if name is None else str(name),
        annotations=row.get("annotations") or (),
        annotators=row.get("annotators") or (),
        metadata={**extra, **metadata},
    )


def require_keys(row: Mapping[str, Any], *keys: str) -> None:
    """Check that a row has all the keys.

    Raises:
        ValueError: If one is missing; it names the key and those that are there.
    """
    for key in keys:
        if key not in row:
            raise ValueError(f"the key {key!r} is missing; there are: {', '.join(sorted(row))}")


def resolve_image(value: object, folder: Path | None) -> object:
    """Turn an image as a row holds it into one that `stablepref.images` accepts.

    Args:
        value: A path, a URL, bytes, the ``{"bytes", "path"}`` of the `datasets` library, or an
            image object, which is handed through.
        folder: Where relative paths start; None leaves them as they are.

    Returns:
        A `Path`, a URL, bytes or the image object.

    Raises:
        ValueError: If there is no image: None, an empty text, or a mapping without bytes or path.
    """
    if isinstance(value, Mapping):
        content = value.get("bytes")
        value = value.get("path") if content is None else content
    if value is None or (isinstance(value, str) and not value):
        raise ValueError(f"an image is {value!r}; expected a path or bytes")
    if isinstance(value, str) and "://" in value:
        return value
    if isinstance(value, (str, os.PathLike)):
        return Path(value) if folder is None else folder / value
    return value


def _parse_line(line: bytes) -> Mapping[str, Any] | ValueError:
    try:
        row = json.loads(line)
    except UnicodeDecodeError as error:
        return ValueError(f"not UTF-8 text ({error})")
    except json.JSONDecodeError as error:
        return ValueError(f"not JSON ({error})")
    if not isinstance(row, dict):
        return ValueError(f"a {type(row).__name__}; expected a JSON object")
    return row


def _row_from_group(
    group: RankedGroup, folder: Path, image_folder: Path | None
) -> dict[str, object]:
    row: dict[str, object] = {
        "prompt": group.prompt,
        "images": [_image_entry(image, folder, image_folder) for image in group.images],
        "ranks": group.ranks,
    }
    optional = ("id", "annotations", "annotators", "metadata")
    return row | {key: getattr(group, key) for key in optional if getattr(group, key)}


def _image_entry(image: object, folder: Path, image_folder: Path | None) -> str:
    if isinstance(image, bytes) and image_folder is not None:
        image = _save_once(image, image_folder)
    if isinstance(image, str) and "://" in image:
        return image
    if not isinstance(image, (str, os.PathLike)):
        hint = "give image_folder to save it" if isinstance(image, bytes) else "save it to a file"
        raise TypeError(f"an image is a {type(image).__name__}, JSON Lines holds paths: {hint}")
    path = Path(image).absolute()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def _save_once(content: bytes, folder: Path) -> Path:
    suffix = next((end for start, end in _SIGNATURES if content.startswith(start)), ".bin")
    path = folder / f"{sha256(content).hexdigest()[:32]}{suffix}"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as staging:
            staging.write_bytes(content)
    return path
