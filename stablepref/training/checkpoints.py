"""Checkpoints that are whole or not there: written beside their place, hashed, then renamed."""

from __future__ import annotations

import hashlib
import json
import shutil
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from safetensors import SafetensorError

from stablepref.output.durable import WRITING, sync

if TYPE_CHECKING:
    from pathlib import Path

    from accelerate import Accelerator

STATE_FILE: Final = "state.json"
_PREFIX: Final = "step-"


class Checkpoint(NamedTuple):
    """A whole checkpoint.

    Attributes:
        path: Its folder.
        step: Optimiser steps done.
        state: What the trainer remembers beside weights, optimiser and random states.
    """

    path: Path
    step: int
    state: dict[str, Any]


def save_checkpoint(
    accelerator: Accelerator, folder: Path, *, step: int, state: dict[str, Any], keep: int
) -> Path:
    """Write model, optimiser, random states and `state`; then delete all but the newest `keep`.

    Every process must call it. A kill at any moment leaves the checkpoints from before. Checkpoints
    of later steps are deleted too: the training came back from them because they are damaged.

    Raises:
        OSError: The disk is full, say; nothing of the half-written checkpoint stays.
    """
    final = folder / f"{_PREFIX}{step:08d}"
    staging = folder / f".{final.name}{WRITING}"
    if accelerator.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(staging, ignore_errors=True)
    accelerator.wait_for_everyone()
    try:
        accelerator.save_state(str(staging))
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            _seal(staging, step, state)
            shutil.rmtree(final, ignore_errors=True)
            staging.replace(final)
            sync(folder)
            for old in _superseded(folder, final, keep):
                shutil.rmtree(old)
    # safetensors and torch report a full disk in exceptions of their own.
    except (OSError, RuntimeError, SafetensorError) as error:
        msg = f"cannot write the checkpoint of step {step} to {final}: {error}"
        raise OSError(msg) from error
    finally:
        # In its place by now, unless something failed; then the disk may need the room.
        if accelerator.is_main_process:
            shutil.rmtree(staging, ignore_errors=True)
    accelerator.wait_for_everyone()
    return final


def newest_checkpoint(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest whole checkpoint, if there is one, and what is wrong with newer ones."""
    problems: list[str] = []
    for path in reversed(_folders(folder)):
        try:
            sealed = json.loads((path / STATE_FILE).read_text())
            damaged = [n for n, digest in sealed["files"].items() if _digest(path / n) != digest]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            problems.append(f"{path} is damaged: {error}")
            continue
        if damaged:
            problems.append(f"{path} is damaged: {', '.join(damaged)} changed since it was written")
            continue
        return Checkpoint(path, sealed["step"], sealed["state"]), problems
    return None, problems


def _folders(folder: Path) -> list[Path]:
    """Checkpoints from the oldest to the newest."""
    return sorted(folder.glob(f"{_PREFIX}[0-9]*")) if folder.is_dir() else []


def _superseded(folder: Path, newest: Path, keep: int) -> list[Path]:
    """All checkpoints but `newest` and the `keep` - 1 before it."""
    older = [path for path in _folders(folder) if path < newest]
    newer = [path for path in _folders(folder) if path > newest]
    return older[: max(0, len(older) + 1 - keep)] + newer


def _seal(staging: Path, step: int, state: dict[str, Any]) -> None:
    """Flush every file to the disk and write down their hashes."""
    files = sorted(path for path in staging.rglob("*") if path.is_file())
    for path in files:
        sync(path)
    names = {str(path.relative_to(staging)): _digest(path) for path in files}
    sealed = staging / STATE_FILE
    sealed.write_text(json.dumps({"step": step, "state": state, "files": names}, indent=1))
    sync(sealed)
    sync(staging)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
