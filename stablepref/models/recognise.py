"""Which official model a file or a folder holds, by names alone; nothing of it is read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from stablepref.models.catalog import ENTRIES
from stablepref.weights.errors import WeightsError
from stablepref.weights.folder import CONFIG_FILE

if TYPE_CHECKING:
    from pathlib import Path

    from stablepref.models.entry import Entry

COMMON: Final = frozenset(
    ("model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin", "model.pth")
)
"""Names of files that many models have: the folder that they lie in says whose they are."""
USUAL: Final = {"model.safetensors": "pickscore-v1"}
"""What a file of such a name is taken for where nothing says whose it is."""
WITH_FILES: Final = tuple(entry for entry in ENTRIES if entry.files)


def entry_of_file(path: Path) -> Entry | None:
    """The official model that a file of weights is, or None if its name and place do not tell.

    Of models that share a file, as two forms of one do, the first of the table.
    """
    named = [entry for entry in WITH_FILES if path.name in entry.files[0].names]
    if path.name in COMMON:
        placed = [entry for entry in named if _lies_in(path.parent, entry)]
        usual = USUAL.get(path.name)
        named = placed or [entry for entry in named if entry.name == usual]
    return named[0] if named and len({entry.files[0] for entry in named}) == 1 else None


def file_of_folder(folder: Path, like: str | None) -> Path:
    """The file of weights in a folder that is laid out as an official repository.

    Args:
        folder: The folder.
        like: The name of the model that it is, if that was given.

    Raises:
        WeightsError: It holds no official file, or several; the message names the file that would
            load.
    """
    entries = [entry for entry in WITH_FILES if like in (None, entry.name)]
    found = {
        folder / name: entry
        for entry in reversed(entries)
        for name in entry.files[0].names
        if (folder / name).is_file()
    }
    telling = {path: entry for path, entry in found.items() if path.name not in COMMON}
    if like is None and not telling:
        telling = {path: e for path in found if (e := _placed(path)) is not None}
    chosen = telling or (found if like is not None else {})
    if len(chosen) == 1:
        return next(iter(chosen))
    if len(chosen) > 1:
        which = "; ".join(f"{path.name} is {entry.name}" for path, entry in sorted(chosen.items()))
        msg = f"{folder} holds the files of several models: {which}. Give one of the files"
        raise WeightsError(msg)
    raise WeightsError(_nothing_in(folder, found, like))


def _placed(path: Path) -> Entry | None:
    """The model whose repository a file of a common name lies in."""
    named = (e for e in WITH_FILES if path.name in e.files[0].names)
    return next((entry for entry in named if _lies_in(path.parent, entry)), None)


def _lies_in(folder: Path, entry: Entry) -> bool:
    """Whether the folder, or one above it, is named after the repository of the entry's file.

    The hub's cache writes user and name with two hyphens between.
    """
    repo = entry.files[0].repo
    if repo is None:
        return False
    name = repo.rpartition("/")[2].lower()
    parts = (part.lower() for part in folder.resolve().parts)
    return any(part == name or part.endswith(f"--{name}") for part in parts)


def _nothing_in(folder: Path, found: dict[Path, Entry], like: str | None) -> str:
    """Why a folder does not load, and which file would."""
    if like is not None:
        (entry,) = (entry for entry in WITH_FILES if entry.name == like)
        wanted = " or ".join(entry.files[0].names)
        return f"{folder} does not hold {wanted}, the weights of {like}"
    if found:
        path = min(found)
        kind = _model_type(folder)
        of = f" of a {kind} model" if kind else ""
        could = ", ".join(repr(e.name) for e in WITH_FILES if path.name in e.files[0].names)
        return (
            f"{folder} holds {path.name}{of}, and nothing says whose it is: pass the file {path} "
            f"with like= and one of {could}"
        )
    names = dict.fromkeys(name for e in WITH_FILES for name in e.files[0].names)
    return (
        f"{folder} holds no model: neither a {CONFIG_FILE} that save_pretrained wrote nor one of "
        f"the official files {', '.join(names)}"
    )


def _model_type(folder: Path) -> str | None:
    """What transformers' configuration in a folder says it is of."""
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    found = config.get("model_type") if isinstance(config, dict) else None
    return found if isinstance(found, str) else None
