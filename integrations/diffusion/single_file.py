"""Checkpoints that hold a pipeline in one file; needs no torch, to refuse them at once."""

from __future__ import annotations

from pathlib import Path
from typing import Final

SUFFIXES: Final = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf")


def refuse_single_file(source: str) -> None:
    """Refuse a file in place of a pipeline's folder.

    Raises:
        ValueError: It is a file with the suffix of a checkpoint.
    """
    path = Path(source)
    if path.suffix in SUFFIXES and path.is_file():
        msg = (
            f"{source} is a single-file checkpoint; make a folder of it once, by "
            "StableDiffusionPipeline.from_single_file(FILE).save_pretrained(FOLDER), or the class "
            "of its kind, and pass the folder"
        )
        raise ValueError(msg)
