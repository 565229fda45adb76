"""Prompts out of a file or folder: tables, JSON in its usual forms, a line each, a file each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final, final

from stablepref.data.groups import DataError, shown
from stablepref.data.json_values import json_document, json_text
from stablepref.data.rows import find_column, read_values
from stablepref.images.paths import natural_key

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PROMPT_COLUMNS: Final = ("prompt", "prompts", "caption", "text")
"""Columns that hold prompts, in any case of letters; the first of them that a row has is taken."""
LABEL_COLUMNS: Final = ("category", "challenge", "style", "tag")
"""Columns by which prompts are grouped, in any case of letters."""
QUESTION_COLUMNS: Final = ("question", "question_natural_language", "proposition_id")
"""Columns of tables with a row for each question about a prompt: DSG, DPG-Bench, TIFA."""
ID_COLUMNS: Final = ("item_id", "prompt_id", "id")
"""Columns that name the prompt of a question."""
SUFFIXES: Final = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet", ".txt")


@final
@dataclass(frozen=True)
class ListedPrompt:
    """One prompt of a list.

    Attributes:
        key: Its place, which also names its image files: "00012", or "anime/00012" in a list of
            several styles; its id or its file's name where the list gives one. Equal prompts have
            places of their own.
        prompt: The words, exactly as in the file.
        labels: What it is grouped by, such as {"category": "Colors"}.
    """

    key: str
    prompt: str
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)


def read_prompt_file(path: Path, *, styles: Sequence[str] = ()) -> tuple[ListedPrompt, ...]:
    """All prompts of a file, in its order; repeated prompts stay, as official protocols keep them.

    - `.csv`, `.tsv` and `.parquet`: a column of `PROMPT_COLUMNS`, and any of `LABEL_COLUMNS`. A
      table with a row for each question (`QUESTION_COLUMNS`) gives each of its prompts once.
    - `.jsonl`: objects with such keys, or prompts, a line each.
    - `.json`: a list of such objects or of prompts; an object of such objects by their ids, as MJHQ
      and GenAI-Bench have it; or `{"style": [prompt, ...], ...}` as in the benchmark of HPD v2.
    - `.txt`: a prompt a line; empty lines are left out.
    - A folder of `.json` files that hold lists of prompts, a style each, or of `.txt` files that
      hold a prompt each.

    Args:
        path: The file or folder.
        styles: Of a folder, only these; all of them without any.

    Raises:
        DataError: The file is damaged, or a row has no prompt; it names the place.
        ValueError: The file has another suffix, or holds no prompt.
        OSError: It cannot be read.
    """
    suffix = path.suffix.lower()
    if path.is_dir():
        prompts = _of_folder(path, styles)
    elif suffix == ".json" and json_text(path).lstrip().startswith("{"):
        prompts = _of_object(path, json_document(path))
    elif suffix == ".txt":
        prompts = prompts_of_rows(path, _lines(path))
    elif suffix in SUFFIXES:
        prompts = prompts_of_rows(path, read_values(path))
    else:
        msg = f"{path} is not a file of prompts: expected one of {', '.join(SUFFIXES)}"
        raise ValueError(msg)
    if not prompts:
        msg = f"{path} holds no prompt"
        raise ValueError(msg)
    return prompts


def prompts_of_rows(
    source: str | Path, rows: Iterable[tuple[str, object]]
) -> tuple[ListedPrompt, ...]:
    """Prompts of rows with their places, from a file or from elsewhere, such as `datasets`.

    Raises:
        DataError: A row has no prompt; it names the place.
    """
    prompts: list[ListedPrompt] = []
    asked: dict[tuple[str, str], int] = {}
    for place, row in rows:
        try:
            prompt, labels = _parsed(row)
            about = _asked_about(row)
        except (ValueError, RecursionError) as error:
            raise DataError(source, place, str(error)) from error
        if about is None:
            prompts.append(ListedPrompt(f"{len(prompts):05d}", prompt, labels))
            continue
        before = asked.setdefault((about, prompt), len(prompts))
        if before == len(prompts):
            key = about if _names_a_file(about) else f"{before:05d}"
            prompts.append(ListedPrompt(key, prompt, labels))
        else:  # a label of all questions is one of the prompt
            same = prompts[before].labels.items() & labels.items()
            prompts[before] = ListedPrompt(prompts[before].key, prompt, dict(sorted(same)))
    _check_keys(source, prompts)
    return tuple(prompts)


def _lines(path: Path) -> Iterator[tuple[str, object]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                yield f"line {number}", ValueError(f"not UTF-8 text ({error})")
            else:
                if text.strip():
                    yield f"line {number}", text


def _of_folder(path: Path, styles: Sequence[str]) -> tuple[ListedPrompt, ...]:
    files = [path / f"{style}.json" for style in styles] or sorted(path.glob("*.json"))
    if files:
        return _of_styles(path, {file.stem: json_document(file) for file in files})
    texts = sorted(path.glob("*.txt"), key=natural_key)
    if not texts:
        msg = (
            f"{path} is a folder without .json and .txt files; expected a list of prompts for each "
            "style, or a text for each prompt"
        )
        raise ValueError(msg)
    prompts = []
    for file in texts:
        try:
            prompt, _ = _parsed(file.read_text(encoding="utf-8-sig").strip())
        except ValueError as error:
            raise DataError(file, "text", str(error)) from error
        prompts.append(ListedPrompt(file.stem, prompt))
    return tuple(prompts)


def _of_object(path: Path, found: object) -> tuple[ListedPrompt, ...]:
    """Prompts of a JSON object: lists of prompts by style, or objects by id."""
    assert isinstance(found, Mapping), "the text begins with a brace"
    if not found or not all(isinstance(one, Mapping) for one in found.values()):
        return _of_styles(path, found)
    prompts = []
    for key, row in found.items():
        try:
            prompt, labels = _parsed(row)
            if not _names_a_file(key):
                msg = f"the id {shown(key)} cannot name a file"
                raise ValueError(msg)
        except ValueError as error:
            raise DataError(path, f"entry {shown(key)}", str(error)) from error
        prompts.append(ListedPrompt(key, prompt, labels))
    return tuple(prompts)


def _of_styles(path: Path, styles: Mapping[str, object]) -> tuple[ListedPrompt, ...]:
    """Prompts of several lists, each numbered by itself."""
    prompts: list[ListedPrompt] = []
    for style, listed in styles.items():
        if not isinstance(listed, list) or not _names_a_file(style):
            msg = f"{path}: {shown(style)} is not a style with a list of prompts"
            raise ValueError(msg)
        rows = ((f"entry {number} of {style}", row) for number, row in enumerate(listed, start=1))
        prompts += [
            ListedPrompt(f"{style}/{one.key}", one.prompt, {"style": style, **one.labels})
            for one in prompts_of_rows(path, rows)
        ]
    return tuple(prompts)


def _names_a_file(key: str) -> bool:
    """Whether images can go to a file or folder of this name."""
    return (
        key not in {"", ".."}
        and PurePosixPath(key).name == key
        and len(key.encode("utf-8", "replace")) < 200
        and key.isprintable()
    )


def _check_keys(source: object, prompts: Sequence[ListedPrompt]) -> None:
    keys = [one.key for one in prompts]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        msg = f"{source}: the id {twice!r} stands for several prompts"
        raise ValueError(msg)


def _parsed(row: object) -> tuple[str, dict[str, str]]:
    """A row's prompt and its labels."""
    if isinstance(row, ValueError):
        raise row
    labels: dict[str, str] = {}
    prompt = row
    if isinstance(row, Mapping):
        column = find_column(row, PROMPT_COLUMNS)
        if column is None:
            there = ", ".join(map(str, row)) or "none"
            msg = f"no column of {', '.join(PROMPT_COLUMNS)}; there are: {there}"
            raise ValueError(msg)
        prompt = row[column]
        for name in LABEL_COLUMNS:
            found = find_column(row, [name])
            if found is not None and isinstance(row[found], (str, int, float)) and row[found]:
                labels[name] = str(row[found]).strip()
    if not isinstance(prompt, str) or not prompt.strip():
        msg = f"the prompt is {shown(prompt)}; expected words"
        raise ValueError(msg)
    return prompt, labels


def _asked_about(row: object) -> str | None:
    """The id of the prompt that a row asks a question about; None where it asks none."""
    if not isinstance(row, Mapping) or find_column(row, QUESTION_COLUMNS) is None:
        return None
    column = find_column(row, ID_COLUMNS)
    value = None if column is None else row[column]
    return str(value).strip() if isinstance(value, (str, int)) else ""
