"""Readers of the official files: from what each project publishes to a scorer."""

from __future__ import annotations

import pickle
import re
import zipfile
from typing import TYPE_CHECKING, Any

import torch
from accelerate import init_empty_weights

from stablepref.assets import ASSETS
from stablepref.models.aesthetic import build_aesthetic
from stablepref.models.blip import build_blip, build_imagereward
from stablepref.models.clip import CLIPScorer
from stablepref.models.convert import OPENAI_UNUSED, pickscore_to_open_clip
from stablepref.preprocess.preprocess import Preprocess
from stablepref.weights.folder import (
    DAMAGE,
    WeightsError,
    assign_weights,
    load_folder,
    read_safetensors,
)
from stablepref.weights.torchscript import is_torchscript, read_torchscript

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from stablepref.models.catalog import Entry
    from stablepref.scorer import Scorer

WRAPPERS = ("state_dict", "model")


def build(entry: Entry, files: Sequence[Path]) -> Scorer:
    """The scorer of `entry` from its official files, on the CPU, in their dtype, in eval mode.

    Args:
        entry: Which model the files hold; its `sizes` are what they must fit.
        files: Local paths in the order of `entry.files`.

    Raises:
        WeightsError: A file is truncated, of a foreign format, or does not fit the architecture;
            missing and unexpected keys are named.
    """
    if entry.family == "folder":
        return load_folder(ASSETS / entry.name)
    weights = read_weights(files[0])
    if entry.family == "aesthetic":
        return build_aesthetic(weights, _clip(entry, read_weights(files[1]), source=files[1]))
    if entry.family in ("imagereward", "blip"):
        make = build_imagereward if entry.family == "imagereward" else build_blip
        scorer = make(weights, files[1], name=entry.name, source=files[0])
        _check_sizes(entry, scorer.config(), source=files[0])
        return scorer
    if entry.family == "transformers_clip":
        weights = pickscore_to_open_clip(weights, source=files[0])
    return _clip(entry, weights, source=files[0])


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict in a `.safetensors` file or a PyTorch checkpoint, without running its code.

    A TorchScript archive, the form of OpenAI's own files, is read for its tensors alone.

    Raises:
        WeightsError: The file is missing, truncated, needs code to be run, or holds no tensors.
    """
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    if is_torchscript(path):
        return read_torchscript(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip(path))
    except FileNotFoundError as error:
        msg = f"there is no weights file {path}"
        raise WeightsError(msg) from error
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        which = f" ({named[1]})" if named else ""
        msg = (
            f"{path} is no plain file of weights: it is truncated, of another kind, or holds "
            f"objects{which} whose loading would run code, which is refused; save the model's "
            "state_dict() alone"
        )
        raise WeightsError(msg) from error
    except PermissionError as error:
        msg = f"cannot read {path}: {error.strerror}"
        raise WeightsError(msg) from error
    except DAMAGE as error:
        msg = f"cannot read {path}: it seems truncated or not a PyTorch file; download it again"
        raise WeightsError(msg) from error
    for key in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    fault = _fault(content)
    if fault is not None:
        msg = f"{path} holds {fault}, expected a dict of named tensors"
        raise WeightsError(msg)
    return {key.removeprefix("module."): value for key, value in content.items()}


def _fault(content: object) -> str | None:
    """What keeps a checkpoint's content from being a state dict, or None."""
    if not isinstance(content, dict):
        return f"one {type(content).__name__}"
    for key, value in content.items():
        if not isinstance(key, str) or not torch.is_tensor(value):
            return f"{type(value).__name__} under {key!r}"
    return None


def is_zip(path: Path) -> bool:
    """Whether the file has PyTorch's zip layout, which can be mapped into memory."""
    return path.is_file() and zipfile.is_zipfile(path)


def _clip(entry: Entry, weights: dict[str, Tensor], *, source: Path) -> CLIPScorer:
    with init_empty_weights(include_buffers=False):
        scorer = CLIPScorer(
            entry.sizes,
            preprocess=Preprocess(entry.protocol, size=entry.sizes["vision_cfg"]["image_size"]),
            name=entry.name,
            preference_scale=entry.preference_scale,
        )
    weights = {key: value for key, value in weights.items() if key not in OPENAI_UNUSED}
    assign_weights(scorer.model, weights, source=source)
    return scorer.eval()


def _check_sizes(entry: Entry, config: dict[str, Any], *, source: Path) -> None:
    """A file that lost whole blocks would otherwise pass for a shallower model."""
    wrong = {k: config[k] for k, v in entry.sizes.items() if config[k] != v}
    if wrong:
        expected = {k: entry.sizes[k] for k in wrong}
        msg = f"{source} does not fit {entry.name}: it has {wrong}, expected {expected}"
        raise WeightsError(msg)
