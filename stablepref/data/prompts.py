"""Prompts out of a file: tables, JSON in its usual forms, or a line each."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final, Literal, final

from stablepref.data.groups import DataError
from stablepref.data.jsonl import jsonl_rows

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PROMPT_COLUMNS: Final = ("prompt", "prompts", "caption", "text")
LABEL_COLUMNS: Final = ("category", "challenge", "style", "tag")
"""Columns by which prompts are grouped, in any case of letters."""
SUFFIXES: Final = (".csv", ".tsv", ".json", ".jsonl", ".txt")


@final
@dataclass(frozen=True)
class BenchPrompt:
    """One prompt of a set.

    Attributes:
        key: Its place, which also names its image files: "00012", or "anime/00012" in a set of
            several styles. Equal prompts have places of their own.
        prompt: The words, exactly as in the file.
        labels: What it is grouped by, such as {"category": "Colors"}.
    """

    key: str
    prompt: str
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)


def read_prompt_file(path: Path, *, styles: Sequence[str] = ()) -> tuple[BenchPrompt, ...]:
    """All prompts of a file, in its order; repeated prompts stay, as official protocols keep them.

    - `.csv` and `.tsv`: a column of `PROMPT_COLUMNS`, and any of `LABEL_COLUMNS`. A `.tsv` whose
      quotes do not enclose whole fields has none with a meaning, as in the media type
      text/tab-separated-values.
    - `.jsonl`: objects with such keys, a line each.
    - `.json`: a list of such objects or of prompts, or `{"style": [prompt, ...], ...}` as in the
      benchmark of HPD v2.
    - `.txt`: a prompt a line; empty lines are left out.
    - A folder of `.json` files that hold lists of prompts: a style each.

    Args:
        path: The file or folder.
        styles: Of a folder, only these; all if none.

    Raises:
        ValueError: The file has another suffix, no such column, no prompt, or a bad one; it names
            the place.
        OSError: It cannot be read.
    """
    if path.is_dir():
        files = [path / f"{style}.json" for style in styles] or sorted(path.glob("*.json"))
        if not files:
            msg = f"{path} is a folder without .json files; expected one list of prompts a style"
            raise ValueError(msg)
        prompts = _of_styles(path, {file.stem: _json(file) for file in files})
    elif path.suffix.lower() == ".json":
        found = _json(path)
        many = isinstance(found, Mapping)
        prompts = _of_styles(path, found) if many else _of_rows(path, _entries(path, found))
    else:
        prompts = _of_rows(path, _rows(path))
    if not prompts:
        msg = f"{path} holds no prompt"
        raise ValueError(msg)
    return prompts


def prompts_of_rows(name: str, rows: Iterable[object]) -> tuple[BenchPrompt, ...]:
    """Prompts of rows from elsewhere, such as `datasets`.

    Raises:
        ValueError: As `read_prompt_file`.
    """
    return _of_rows(name, ((f"row {number}", row) for number, row in enumerate(rows, start=1)))


def _rows(path: Path) -> Iterator[tuple[str, object]]:
    """Each row of a file with its place."""
    suffix = path.suffix.lower()
    if suffix == ".jsonl":
        yield from jsonl_rows(path)
    elif suffix in {".csv", ".tsv"}:
        yield from _table(path, "," if suffix == ".csv" else "\t")
    elif suffix == ".txt":
        with _text(path), path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield f"line {number}", line.rstrip("\n")
    else:
        msg = f"{path} is no file of prompts: expected one of {', '.join(SUFFIXES)}"
        raise ValueError(msg)


def _table(path: Path, delimiter: str) -> list[tuple[str, object]]:
    with _text(path):
        with path.open(encoding="utf-8-sig", newline="") as file:
            text = file.read()
        try:
            return _cells(text, delimiter, csv.QUOTE_MINIMAL)
        except csv.Error:
            if delimiter == ",":
                raise
            return _cells(text, delimiter, csv.QUOTE_NONE)


def _cells(text: str, delimiter: str, quoting: Literal[0, 3]) -> list[tuple[str, object]]:
    lines = io.StringIO(text, newline="")
    reader = csv.DictReader(lines, delimiter=delimiter, quoting=quoting, strict=True)
    return [(f"line {reader.line_num}", row) for row in reader]


@contextmanager
def _text(path: Path) -> Iterator[None]:
    """Name the file in what is wrong with its text."""
    try:
        yield
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(path, "text", f"not readable as UTF-8 text or a table ({error})") from error


def _json(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise DataError(path, "text", f"not JSON ({error})") from error


def _entries(path: Path, found: object) -> Iterator[tuple[str, object]]:
    if not isinstance(found, list):
        msg = f"{path} holds a {type(found).__name__}; expected a list of prompts or of objects"
        raise ValueError(msg)
    yield from ((f"entry {number}", row) for number, row in enumerate(found, start=1))


def _of_styles(path: Path, styles: object) -> tuple[BenchPrompt, ...]:
    """Prompts of several lists, each numbered by itself."""
    assert isinstance(styles, Mapping)
    prompts: list[BenchPrompt] = []
    for style, listed in styles.items():
        if not isinstance(listed, list) or not _names_a_file(style):
            msg = f"{path}: {style!r} is no style with a list of prompts"
            raise ValueError(msg)
        rows = _of_rows(path, _entries(path, listed))
        prompts += [
            BenchPrompt(f"{style}/{one.key}", one.prompt, {"style": style, **one.labels})
            for one in rows
        ]
    return tuple(prompts)


def _names_a_file(style: str) -> bool:
    """Whether images of a style go to a folder of its own."""
    return style not in {"", ".."} and PurePosixPath(style).name == style


def _of_rows(source: object, rows: Iterable[tuple[str, object]]) -> tuple[BenchPrompt, ...]:
    prompts: list[BenchPrompt] = []
    for place, row in rows:
        try:
            prompt, labels = _parsed(row)
        except ValueError as error:
            msg = f"{source}, {place}: {error}"
            raise ValueError(msg) from error
        prompts.append(BenchPrompt(f"{len(prompts):05d}", prompt, labels))
    return tuple(prompts)


def _parsed(row: object) -> tuple[str, dict[str, str]]:
    """A row's prompt and its labels."""
    if isinstance(row, ValueError):
        raise row
    labels: dict[str, str] = {}
    prompt = row
    if isinstance(row, Mapping):
        by_name = {str(name).strip().lower(): value for name, value in row.items()}
        names = [name for name in PROMPT_COLUMNS if name in by_name]
        if not names:
            there = ", ".join(map(str, row)) or "none"
            msg = f"no column of {', '.join(PROMPT_COLUMNS)}; there are: {there}"
            raise ValueError(msg)
        prompt = by_name[names[0]]
        labels = {name: str(by_name[name]).strip() for name in LABEL_COLUMNS if by_name.get(name)}
    if not isinstance(prompt, str) or not prompt.strip():
        msg = f"the prompt is {prompt!r}; expected words"
        raise ValueError(msg)
    return prompt, labels
