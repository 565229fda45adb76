"""Folders that hold a scorer: configuration, safetensors weights and extra files."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from accelerate import init_empty_weights
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from stablepref.output.durable import SAVING, replace_together, sync, whole
from stablepref.weights.bounds import read_json
from stablepref.weights.errors import WeightsError
from stablepref.weights.files import assign_weights, read_safetensors

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    from torch import Tensor

M = TypeVar("M", bound=nn.Module)

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
READABLE = 0o644  # safetensors writes files that only their owner may read
CARD = """---
{{ card_data }}
---

# A stablepref reward model

Load it with `stablepref.load("hf-hub:user/repo")` or from a folder with `stablepref.load(path)`.

{{ training | default("", true) }}
"""


class Saved(Protocol):
    """What a folder needs of the model that is saved in it."""

    def config(self) -> dict[str, Any]:
        """The configuration, plain JSON values, with the model's kind under "scorer"."""

    def save_files(self, folder: Path) -> None:
        """Write the files other than weights and configuration."""

    def state_dict(self) -> dict[str, Tensor]:
        """The weights."""

    def weights_to_save(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """What of the weights, or made of them, is saved."""


def save_folder(scorer: Saved, folder: Path, *, state: Mapping[str, Tensor] | None = None) -> None:
    """Write `scorer` to `folder`: each file under a temporary name first, then renamed.

    The configuration comes last, so that a folder with one is complete; all of it is on the disk
    when the function returns. If it fails or is interrupted, the model of before is there whole.

    Args:
        scorer: What to write.
        folder: Where to.
        state: The weights, where a distributed engine holds them in pieces; None takes the
            scorer's own.

    Raises:
        OSError: A file cannot be written, for example on a full disk.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=SAVING) as name:
        staging = Path(name)
        saved = scorer.weights_to_save(state or scorer.state_dict())
        weights = {k: v.detach().cpu().contiguous() for k, v in saved.items()}
        try:
            save_file(weights, staging / WEIGHTS_FILE, metadata={"format": "pt"})
        except SafetensorError as error:  # its own, also where the disk is full
            raise OSError(f"cannot write {folder / WEIGHTS_FILE}: {error}") from error
        scorer.save_files(staging)
        config = staging / CONFIG_FILE
        config.write_text(json.dumps(scorer.config(), indent=2) + "\n")
        files = sorted(staging.iterdir(), key=lambda path: path == config)
        for path in files:
            path.chmod(READABLE)
            sync(path)
        replace_together(files, folder)
    sync(folder)


def load_folder(folder: str | os.PathLike[str], class_of: Callable[[object], type[M]]) -> M:
    """Build the model that `save_folder` wrote, on the CPU, in its saved dtype, in eval mode.

    Args:
        folder: Its path.
        class_of: The class of a configuration's kind; a ValueError where it knows none. The class
            has `from_config(config, folder)`.

    Raises:
        WeightsError: The folder holds no such model, or its weights do not fit its configuration.
    """
    folder = whole(Path(folder))
    config, cls = read_config(folder, class_of)
    build: Callable[[Mapping[str, Any], Path], M] = cls.from_config  # type: ignore[attr-defined]
    try:
        with init_empty_weights(include_buffers=False):
            model = build(config, folder)
    except Exception as error:  # whatever constructors raise on numbers that make no sense
        reason = error if isinstance(error, ValueError) else repr(error)
        msg = f"{folder / CONFIG_FILE} describes no {cls.__name__}: {reason}"
        raise WeightsError(msg) from error
    assign_weights(model, read_safetensors(folder / WEIGHTS_FILE), source=folder / WEIGHTS_FILE)
    return model.eval()


def read_config(
    folder: Path, class_of: Callable[[object], type[M]]
) -> tuple[dict[str, Any], type[M]]:
    """The configuration of a saved model, checked to be one, and the class that it names.

    Raises:
        WeightsError: There is no configuration, or `class_of` knows no class for it.
    """
    try:
        config = read_json(folder / CONFIG_FILE)
    except WeightsError as error:
        msg = f"{folder} is not a saved scorer: cannot read its {CONFIG_FILE} ({error})"
        raise WeightsError(msg) from error
    kind = config.get("scorer") if isinstance(config, dict) else type(config).__name__
    try:
        return config, class_of(kind)
    except ValueError as error:
        msg = f"{folder / CONFIG_FILE} names the scorer {kind!r}: {error}"
        raise WeightsError(msg) from error
