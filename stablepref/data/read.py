"""Read ranked groups of any known data set, from any known kind of file, lazily.

The kind of file follows from its suffix (`stablepref.data.rows`), the data set from the keys of its
first row (`stablepref.data.formats`).
"""

import os
import re
import warnings
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Literal

from stablepref.data.convert import Format, LeftOutError
from stablepref.data.formats import FORMATS, detect_format, named_format
from stablepref.data.groups import DataError, Exclusions, RankedGroup
from stablepref.data.hub import choose_split, dataset_rows, hub_rows
from stablepref.data.rows import READERS, Row, Rows, read_rows
from stablepref.images.paths import image_files

_HUB_PREFIX = "hf:"
_SAVED_BY_DATASETS = ("dataset_dict.json", "state.json")
_SHARD_NUMBER = re.compile(r"[-_.]?\d+(-of-\d+)?(-[0-9a-f]{16})?$")
_RANK_NAME = re.compile(r"(\d+(?:\.\d+)?)(?:[ _-].*)?")
_PROMPT_FILE = "prompt.txt"
# What a format's own code raises at a row that it does not expect.
_FAULTS = (TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)


def format_names() -> tuple[str, ...]:
    """What `format` may be: detection, the data sets of `FORMATS`, folders of images."""
    return ("auto", *FORMATS, "folder")


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

            - a file: ``.jsonl``, ``.json`` (an array), ``.csv``, ``.tsv``, ``.parquet`` or ``.tar``
              (WebDataset);
            - a folder of such files (its shards, in order of name), a folder saved by the
              `datasets` library, or a folder of images ``PROMPT/RANK.png``;
            - ``"hf:user/repository"`` or ``"hf:user/repository:configuration"``, streamed from
              the Hugging Face hub;
            - a `datasets` object, or any iterable of rows.
        format: The data set, one of `format_names`; ``"auto"`` recognises it by its first row's
            keys.
        images: Folder where relative image paths start. By default the file's own folder; for
            foreign data sets also its subfolders ``images`` and that with the file's name (as
            ``test/`` beside ``test.json``), whichever holds an image of the first group.
        split: The split, where a `datasets` source has several, or a folder has files of several:
            ``"test"`` for ``test.json``, ``metadata-test.parquet`` or ``test-00000-of-00004.tar``.
        on_error: ``"raise"`` stops at an entry that is not valid; ``"skip"`` counts it in
            ``exclusions`` and continues.
        exclusions: Counts what is excluded: entries without a label, prompts with one image, and
            with ``on_error="skip"`` those that are not valid.

    Returns:
        An iterator over the groups. Images are not opened.

    Raises:
        ValueError: If ``format`` or ``on_error`` is unknown or the source holds nothing readable.
        FileNotFoundError: If the file or folder does not exist.
        DataError: While iterating, at an entry that is not valid: it names the place in the file.
        ImportError: If the data needs a library that is not installed; it names the extra.
    """
    if format not in format_names():
        raise ValueError(f"format is {format!r}; expected one of: {', '.join(format_names())}")
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
        return _groups(read_rows(path), str(path), format, folders, root, left_out, keep_going)
    if any((path / name).is_file() for name in _SAVED_BY_DATASETS):
        rows = dataset_rows(hub_rows(str(path), split))
        return _groups(rows, str(path), format, (path,), root, left_out, keep_going)
    shards = [] if format == "folder" else _shards(path, split)
    if shards:
        rows = chain.from_iterable(_named_rows(shard) for shard in shards)
        folders = (path, path / "images")
        return _groups(rows, str(path), format, folders, root, left_out, keep_going)
    if format not in ("auto", "folder"):
        raise ValueError(f"{path} holds no {', '.join(READERS)} file, so no {format} data")
    if format == "auto":
        _require_evidence(path)
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
    or the text of a file ``prompt.txt`` in it. Hidden files are left out; other files that are not
    images are counted and named in a warning.

    Args:
        path: The folder.
        on_error: ``"raise"`` stops at a subfolder that is not valid; ``"skip"`` counts it.
        exclusions: Counts the subfolders that are not valid with ``on_error="skip"``.

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
        if folder.name.startswith("."):
            continue
        others = (item for item in folder.iterdir() if item.name != _PROMPT_FILE)
        files = sorted(image_files(others, where=folder))
        found = found or bool(files)
        if not files:
            continue
        try:
            yield _folder_group(folder, files)
        except ValueError as error:
            if on_error == "raise":
                raise DataError(path, f"folder {folder.name}", str(error)) from error
            left_out.add(str(error), f"folder {folder.name}")
    if not found:
        raise ValueError(
            f"{path}: nothing to read; expected {', '.join(READERS)} files, or subfolders "
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
    """Turn rows into groups; `folders` are where images may be."""
    if format == "folder":
        raise ValueError(f"{name} is not a folder of images; give another format or 'auto'")
    chosen, rows = _detected(rows, name) if format == "auto" else (format, rows)
    reader = named_format(chosen)
    if reader.merge is not None:
        rows = reader.merge(rows)
    guess = root is None
    if guess and folders:
        root = folders[0]
        # The project's own format is defined by the file's folder; others have their layouts.
        guess = chosen != "stablepref"
    place = None
    for place, row in rows:
        try:
            if isinstance(row, ValueError):
                raise row
            if guess:
                root = _image_root(reader, row, folders)
                guess = False
            group = reader.convert(row, root)
        except LeftOutError as error:
            exclusions.add(str(error), f"{name}, {place}")
        except (ValueError, *_FAULTS) as error:
            reason = str(error)
            if not isinstance(error, ValueError):
                reason = f"not a row of the format {chosen} ({type(error).__name__}: {error})"
            if not keep_going:
                raise DataError(name, place, reason) from error
            exclusions.add(reason, f"{name}, {place}")
        else:
            yield group
    if place is None:
        raise ValueError(f"{name} is empty; expected at least one group")


def _detected(rows: Rows, name: str) -> tuple[str, Rows]:
    """The format by the first row that can be read, and all rows."""
    seen = []
    for place, row in rows:
        seen.append((place, row))
        if isinstance(row, ValueError):
            continue
        try:
            return detect_format(row), chain(seen, rows)
        except ValueError as error:
            raise DataError(name, place, str(error)) from error
    if seen:
        raise DataError(name, seen[0][0], str(seen[0][1]))
    raise ValueError(f"{name} is empty; expected at least one group")


def _image_root(reader: Format, row: Row, folders: tuple[Path, ...]) -> Path | None:
    for folder in folders:
        if any(map(_is_file, reader.convert(row, folder).images)):
            return folder
    return folders[0] if folders else None


def _is_file(image: object) -> bool:
    try:
        return isinstance(image, Path) and image.is_file()
    except OSError:  # a name that is too long, say
        return False


def _shards(path: Path, split: str | None) -> list[Path]:
    """The files of a folder that hold one data set: one kind, and names that differ by number."""
    files = [
        item for item in sorted(path.iterdir()) if item.is_file() and item.suffix.lower() in READERS
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
    for place, row in read_rows(path):
        yield f"{path.name}, {place}", row


def _require_evidence(path: Path) -> None:
    """Refuse to take numbers for ranks where nothing else says that they are.

    Folders named after prompts hold a `prompt.txt` or have names of several words; file numbers are
    written with zeros in front.

    Raises:
        ValueError: If there is no such evidence.
    """
    for folder in sorted(item for item in path.iterdir() if item.is_dir()):
        if folder.name.startswith("."):
            continue
        with warnings.catch_warnings():  # the reader itself reports what it skips
            warnings.simplefilter("ignore")
            files = image_files(folder.iterdir(), where=folder)
        numbers = [match[1] for file in files if (match := _RANK_NAME.fullmatch(file.stem))]
        phrase = (folder / _PROMPT_FILE).is_file() or len(folder.name.split()) > 1
        padded = any(number.isdecimal() and number != str(int(number)) for number in numbers)
        if numbers and (padded or not phrase):
            raise ValueError(
                f"{path}: nothing but their numbers says that the images of {folder.name} are "
                f"ranked ({files[0].name}, ...); if {folder.name} is a prompt and the numbers are "
                "ranks, 1 the best, give the format 'folder'"
            )


def _folder_group(folder: Path, files: list[Path]) -> RankedGroup:
    ranks = []
    for file in files:
        match = _RANK_NAME.fullmatch(file.stem)
        if match is None:
            raise ValueError(f"{file.name} does not begin with a rank, as 1.png or 2_seed7.png do")
        ranks.append(float(match[1]))
    text = folder / _PROMPT_FILE
    prompt = text.read_text(encoding="utf-8-sig").strip() if text.is_file() else folder.name
    return RankedGroup(prompt, tuple(files), tuple(ranks), id=folder.name)
