"""What a model and its number type may be called, checked before torch is imported."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from stablepref.models.catalog import BY_NAME, ENTRIES

DEFAULT_MODEL: Final = "hps-v2.1"
HUB_PREFIX: Final = "hf-hub:"
DTYPES: Final = ("float32", "bfloat16", "float16", "float64")


def model_name(name_or_path: str | os.PathLike[str] | None) -> str:
    """The name, path or hub repository that is meant; None is `$STABLEPREF_MODEL` or the default.

    A leading `~` is the home folder.
    """
    name = os.fspath(name_or_path or os.environ.get("STABLEPREF_MODEL") or DEFAULT_MODEL)
    return str(Path(name).expanduser()) if name.startswith("~") else name


def check_model(name: str, like: str | None) -> None:
    """Refuse names under which nothing can be loaded.

    Args:
        name: Of `model_name`.
        like: The zoo name whose architecture a checkpoint file has, if that was said.

    Raises:
        ValueError: Neither a name of the zoo, nor a path, nor a hub repository; or `like` is no
            model that has files, or is said of a name of the zoo. The message lists what is known.
    """
    with_files = [entry.name for entry in ENTRIES if entry.files]
    if like is not None and like not in with_files:
        msg = f"like={like!r} is no model with an official file; known: {', '.join(with_files)}"
        raise ValueError(msg)
    if name.startswith(HUB_PREFIX) or Path(name).exists() or (name in BY_NAME and like is None):
        return
    if name in BY_NAME:
        msg = (
            f"like={like!r} says what a checkpoint file holds, but {name!r} is a model's name and "
            "no file here: leave like out"
        )
        raise ValueError(msg)
    msg = (
        f"unknown model {name!r}: neither a path nor one of {', '.join(BY_NAME)}; "
        f"a hub repository is written {HUB_PREFIX}user/repo"
    )
    raise ValueError(msg)


def check_dtype(dtype: object) -> str:
    """The name of a number type that encoders can have.

    Args:
        dtype: A `torch.dtype` or its name.

    Raises:
        ValueError: It is no such type.
    """
    name = dtype if isinstance(dtype, str) else str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        known = ", ".join(DTYPES)
        msg = (
            f'dtype must be one of {known}, as a torch.dtype or its name, or "auto"; got {dtype!r}'
        )
        raise ValueError(msg)
    return name
