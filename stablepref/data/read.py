"""Read ranked groups of any known data set, from any known kind of file, lazily.

The kind of file follows from its suffix (`stablepref.data.rows`), the data set from the keys of its
first row (`stablepref.data.formats`).
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Literal

from stablepref.data.formats import SCHEMAS, LeftOutError, Schema, detect_schema
from stablepref.data.groups import DataError, Exclusions, RankedGroup
from stablepref.data.rows import (
    IMAGE_SUFFIXES,
    ROW_READERS,
    Rows,
    choose_split,
    dataset_rows,
    hub_rows,
)

FORMATS = ("auto", *SCHEMAS, "folder")
"""Values of `format`: detection, the data sets of `stablepref.data.formats`, folders of images."""

_HUB_PREFIX = "hf:"
_SAVED_BY_DATASETS = ("dataset_dict.json", "state.json")
_SHARD_NUMBER = re.compile(r"[-_.]?\d+(-of-\d+)?(-[0-9a-f]{16})?$")
_RANK_NAME = re.compile(r"(\d+(?:\.\d+)?)(?:[ _-].*)?")


def read_groups(
    source: str | os.PathLike[str] | Iterable[object],
    format: str = "auto",  # noqa: A002 (what the user calls it)
    *,
    images: str | os.PathLike[str] | None = None,
    split: str | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    exclusions: Exclusions | None = None,
) -> Iterator[RankedGroup]:
    """Read the ranked groups of a data set one by one.

    Args:
        source: One of

            - a file: ``.jsonl``, ``.json`` (an array), ``.parquet`` or ``.tar`` (WebDataset);
            - a folder of such files (its shards, in order of name), a folder saved by the
              `datasets` library, or a folder of images ``PROMPT/RANK.png``;
            - ``"hf:user/repository"`` or ``"hf:user/repository:configuration"``, streamed from
              the Hugging Face hub;
            - a `datasets` object, or any iterable of rows.
        format: The data set, one of `FORMATS`; ``"auto"`` tells it from the first row's keys.
        images: Folder where relative image paths start. By default the file's own folder; for
            foreign data sets also its subfolders ``images`` and that with the file's name (as
            ``test/`` beside ``test.json``), whichever holds an image of the first group.
        split: The split, where a `datasets` source has several, or a folder has files of several:
            ``"test"`` for ``test.json``, ``metadata-test.parquet`` or ``test-00000-of-00004.tar``.
        on_error: ``"raise"`` stops at an entry that is not valid; ``"skip"`` counts it in
            ``exclusions`` and goes on.
        exclusions: Told what was left out: entries without a label, prompts with one image, and
            with ``on_error="skip"`` those that are not valid.

    Returns:
        An iterator over the groups. Images are not opened.

    Raises:
        ValueError: If ``format`` or ``on_error`` is unknown or the source holds nothing readable.
        FileNotFoundError: If the file or folder does not exist.
        DataError: While iterating, at an entry that is not valid: it names the place in the file.
        ImportError: If the data needs a library that is not installed; it names the extra.
    """
    if format not in FORMATS:
        raise ValueError(f"format is {format!r}; expected one of: {', '.join(FORMATS)}")
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error is {on_error!r}; expected 'raise' or 'skip'")
    left_out = Exclusions() if exclusions is None else exclusions
    root = None if images is None else Path(images)
    keep_going = on_error == "skip"
    if isinstance(source, str) and source.startswith(_HUB_PREFIX):
        rows = dataset_rows(hub_rows(source.removeprefix(_HUB_PREFIX), split))
        return _groups(rows, source, format, (), root, left_out, keep_going)
    if not isinstance(source, (str, os.PathLike)):
        rows = dataset_rows(choose_split(source, "the data set", split))
        return _groups(rows, "the data set", format, (), root, left_out, keep_going)
    path = Path(source)
    folders: tuple[Path, ...]
    if not path.exists():
        raise FileNotFoundError(f"no such file or folder: {path} (hub data sets start with 'hf:')")
    if path.is_file():
        folders = (path.parent, path.parent / path.stem, path.parent / "images")
        return _groups(_file_rows(path), str(path), format, folders, root, left_out, keep_going)
    if any((path / name).is_file() for name in _SAVED_BY_DATASETS):
        rows = dataset_rows(hub_rows(str(path), split))
        return _groups(rows, str(path), format, (path,), root, left_out, keep_going)
    shards = [] if format == "folder" else _shards(path, split)
    if shards:
        rows = chain.from_iterable(_named_rows(shard) for shard in shards)
        folders = (path, path / "images")
        return _groups(rows, str(path), format, folders, root, left_out, keep_going)
    if format not in ("auto", "folder"):
        raise ValueError(f"{path} holds no {', '.join(ROW_READERS)} file, so no {format} data")
    return read_folder(path, on_error=on_error, exclusions=left_out)


def read_folder(
    path: str | os.PathLike[str],
    *,
    on_error: Literal["raise", "skip"] = "raise",
    exclusions: Exclusions | None = None,
) -> Iterator[RankedGroup]:
    """Read a folder of images, ``PROMPT/RANK.png``: one subfolder for each prompt.

    An image's name begins with its rank, a number, alone or followed by a space, ``_`` or ``-`` and
    anything: ``1.png``, ``2_seed7.jpg``. Equal ranks are ties. The prompt is the subfolder's name,
    or the text of a file ``prompt.txt`` in it. Hidden files and files of other kinds are passed by.

    Args:
        path: The folder.
        on_error: As for `read_groups`.
        exclusions: As for `read_groups`.

    Yields:
        The groups in the order of the subfolders' names.

    Raises:
        ValueError: If there is no subfolder with images.
        DataError: If an image's name has no rank or a subfolder has a single image.
    """
    path = Path(path)
    left_out = Exclusions() if exclusions is None else exclusions
    found = False
    for folder in sorted(item for item in path.iterdir() if item.is_dir()):
        files = sorted(item for item in folder.iterdir() if _is_image(item))
        found = found or bool(files)
        if folder.name.startswith(".") or not files:
            continue
        try:
            yield _folder_group(folder, files)
        except ValueError as error:
            if on_error == "raise":
                raise DataError(path, f"folder {folder.name}", str(error)) from error
            left_out.add(str(error), f"folder {folder.name}")
    if not found:
        raise ValueError(
            f"{path}: nothing to read; expected {', '.join(ROW_READERS)} files, or subfolders "
            "named after prompts with images named after ranks, such as 'a red circle/1.png'"
        )


def _groups(
    rows: Rows,
    name: str,
    format: str,  # noqa: A002
    folders: tuple[Path, ...],
    root: Path | None,
    exclusions: Exclusions,
    keep_going: bool,
) -> Iterator[RankedGroup]:
    """Turn rows into groups; `folders` are the candidates for where images are."""
    if format == "folder":
        raise ValueError(f"{name} is not a folder of images; give another format or 'auto'")
    schema_name, rows = _detected(rows, name) if format == "auto" else (format, rows)
    schema = SCHEMAS[schema_name]
    if schema.merge is not None:
        rows = schema.merge(rows)
    guess = root is None
    if guess and folders:
        root = folders[0]
        # The project's own format is defined by the file's folder; others have their layouts.
        guess = schema_name != "stablepref"
    place = None
    for place, row in rows:
        try:
            if isinstance(row, ValueError):
                raise row
            if guess:
                root = _image_root(schema, row, folders)
                guess = False
            group = schema.convert(row, root)
        except LeftOutError as error:
            exclusions.add(str(error), f"{name}, {place}")
        except ValueError as error:
            if not keep_going:
                raise DataError(name, place, str(error)) from error
            exclusions.add(str(error), f"{name}, {place}")
        else:
            yield group
    if place is None:
        raise ValueError(f"{name} is empty; expected at least one group")


def _detected(rows: Rows, name: str) -> tuple[str, Rows]:
    """Tell the schema from the first row that can be read, and give back all rows."""
    seen = []
    for place, row in rows:
        seen.append((place, row))
        if isinstance(row, ValueError):
            continue
        try:
            return detect_schema(row), chain(seen, rows)
        except ValueError as error:
            raise DataError(name, place, str(error)) from error
    if seen:
        raise DataError(name, seen[0][0], str(seen[0][1]))
    raise ValueError(f"{name} is empty; expected at least one group")


def _image_root(
    schema: Schema, row: Mapping[str, object], folders: tuple[Path, ...]
) -> Path | None:
    for folder in folders:
        images = schema.convert(row, folder).images
        if any(isinstance(image, Path) and image.is_file() for image in images):
            return folder
    return folders[0] if folders else None


def _file_rows(path: Path) -> Rows:
    reader = ROW_READERS.get(path.suffix.lower())
    if reader is None:
        known = ", ".join(ROW_READERS)
        raise ValueError(f"{path}: files ending in {path.suffix!r} are not read; known are {known}")
    return reader(path)


def _shards(path: Path, split: str | None) -> list[Path]:
    """The files of a folder that hold one data set: one kind, and names that differ by number."""
    files = [
        item
        for item in sorted(path.iterdir())
        if item.is_file() and item.suffix.lower() in ROW_READERS
    ]
    parts: dict[str, list[Path]] = {}
    for file in files:
        parts.setdefault(_SHARD_NUMBER.sub("", file.stem) + file.suffix.lower(), []).append(file)
    chosen = [
        name for name in parts if split is None or split in re.split(r"[-.]", name.lower())[:-1]
    ]
    if files and len(chosen) != 1:
        raise ValueError(
            f"{path} holds {', '.join(sorted(parts))} and split is {split!r}; name one file, or "
            "the split of one of them"
        )
    return parts[chosen[0]] if files else []


def _named_rows(path: Path) -> Rows:
    for place, row in _file_rows(path):
        yield f"{path.name}, {place}", row


def _is_image(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != "."


def _folder_group(folder: Path, files: list[Path]) -> RankedGroup:
    ranks = []
    for file in files:
        match = _RANK_NAME.fullmatch(file.stem)
        if match is None:
            raise ValueError(f"{file.name} does not begin with a rank, as 1.png or 2_seed7.png do")
        ranks.append(float(match[1]))
    text = folder / "prompt.txt"
    prompt = text.read_text(encoding="utf-8").strip() if text.is_file() else folder.name
    return RankedGroup(prompt, tuple(files), tuple(ranks), id=folder.name)
