"""What may stand for a pipeline or for LoRA weights, checked before torch is imported."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from stablepref.assets import PIPELINES
from stablepref.models.registry import DTYPES
from stablepref.weights.network import require_repository

from .single_file import SUFFIXES, refuse_single_file

INDEX: Final = "model_index.json"
"""What makes a folder a pipeline's."""
REPOSITORY: Final = re.compile(r"[\w.\-]+/[\w.\-]+")
"""A repository of the hub, "user/name"."""


def check_pipeline(name: str, dtype: str | None = None) -> None:
    """Refuse what cannot be a pipeline or its number type, before diffusers is imported.

    Raises:
        ValueError: The name is neither a bundled pipeline's, nor a pipeline's folder, nor that of a
            repository; or the number type is unknown.
        OSError: It is a repository's, which is not in the cache, and the hub cannot be reached.
    """
    check_pipeline_dtype(dtype)
    if name in PIPELINES:
        return
    place = Path(name).expanduser()
    refuse_single_file(str(place))
    if place.is_dir():
        if not (place / INDEX).is_file():
            msg = f"the folder {name} is not a pipeline: it has no {INDEX}"
            raise ValueError(msg)
        return
    bundled = ", ".join(PIPELINES)
    _check_repository(name, "pipeline", f"{bundled} (bundled), a folder, or a hub repository")


def check_lora(path: str) -> None:
    """Refuse what cannot be LoRA weights.

    Raises:
        ValueError: The path is neither a file's, nor a folder's, nor that of a repository.
        OSError: As `check_pipeline`.
    """
    if not Path(path).expanduser().exists():
        _check_repository(path, "LoRA", "a file, a folder, or a hub repository")


def check_pipeline_dtype(dtype: str | None) -> None:
    """Refuse a number type that no pipeline has.

    Raises:
        ValueError: It is unknown.
    """
    if dtype not in (None, *DTYPES):
        msg = f"--pipeline-dtype {dtype}: expected float32, bfloat16 or float16"
        raise ValueError(msg)


def _check_repository(name: str, what: str, expected: str) -> None:
    """Refuse what is no repository, or one that cannot be had.

    A name of a folder that is here, followed by one that is not, is taken for a mistyped path, as
    are names of files.
    """
    parent = Path(name).expanduser().parent
    typed = Path(name).suffix in SUFFIXES or (parent != Path() and parent.is_dir())
    if typed or not REPOSITORY.fullmatch(name):
        msg = f"there is no {what} {name!r}: expected {expected} such as user/name"
        if typed:
            msg += f" (in {parent} there is no {Path(name).name})"
        raise ValueError(msg)
    try:
        require_repository(name)
    except OSError as error:
        msg = f"there is no {what} {name!r} here, and as a hub repository {error}"
        raise OSError(msg) from error
