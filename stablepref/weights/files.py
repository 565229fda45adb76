"""Files of weights: state dicts out of every format that projects publish, and into a module.

Nothing in a file is run: checkpoints are read with `weights_only=True`, TorchScript archives and
pickled modules as data, and the rest is safetensors.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from stablepref.weights.bounds import check_archive, declares_more, require_file
from stablepref.weights.errors import DAMAGE, WeightsError
from stablepref.weights.pickled_module import read_pickled_module
from stablepref.weights.torchscript import is_torchscript, read_torchscript

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor, nn

WRAPPERS = ("state_dict", "model")
LFS_POINTER = "version https://git-lfs.github.com/spec/"
TEXT_SEEN = 1024  # bytes from which it is seen that a file is text; a pointer of Git LFS has 130


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict in a `.safetensors` file or a PyTorch checkpoint, without running its code.

    A TorchScript archive, the form of OpenAI's own files, is read for its tensors alone, and so is
    a whole module that was pickled, the form of MPS's.

    Raises:
        WeightsError: The file is missing, truncated, needs code to be run, or holds no tensors.
    """
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    size = require_file(path)
    refuse_text(path)
    try:
        if is_zip(path):
            check_archive(path)
        if is_torchscript(path):
            return _checked(read_torchscript(path), path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip(path))
    except WeightsError:
        raise
    except pickle.UnpicklingError as error:
        whole = read_pickled_module(path) if is_zip(path) else None
        if whole is not None:
            return _checked(whole, path)
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
    except MemoryError as error:
        msg = f"{path} has {size:,} bytes and declares tensors that do not fit into memory"
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
    state = {key.removeprefix("module."): value for key, value in content.items()}
    return _checked(state, path)


def _checked(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The state dict, if each of its tensors is what it says it is.

    Raises:
        WeightsError: One is no plain tensor of numbers, or declares more of them than the file has.
    """
    for key, value in state.items():
        plain = value.layout is torch.strided and not value.is_quantized and not value.is_meta
        if not plain or value.is_complex():
            kind = value.dtype if value.is_complex() else f"{value.layout}, {value.dtype}"
            msg = f"{path} holds {key} as {kind}; expected a plain tensor of real numbers"
            raise WeightsError(msg)
        if declares_more(value):
            msg = (
                f"{path} holds {key} as {tuple(value.shape)}, more numbers than there are in the "
                "file: it is damaged, or made to fill the memory"
            )
            raise WeightsError(msg)
    return state


def _fault(content: object) -> str | None:
    """What keeps a checkpoint's content from being a state dict, or None."""
    if not isinstance(content, dict):
        return f"one {type(content).__name__}"
    for key, value in content.items():
        if not isinstance(key, str) or not torch.is_tensor(value):
            return f"{type(value).__name__} under {key!r}"
    return None


def refuse_text(path: Path) -> None:
    """Name a text that stands in the place of weights for what it is; other files pass.

    Raises:
        WeightsError: The file is a pointer of Git LFS, JSON, or a page that a server sent instead.
    """
    try:
        with path.open("rb") as file:
            start = file.read(TEXT_SEEN)
        text = start.decode("utf-8-sig").lstrip()
    except (OSError, UnicodeDecodeError):  # what reads it says why; a text may be cut in a letter
        return
    if not text or "\0" in text:
        return
    if text.startswith(LFS_POINTER):
        size = re.search(r"^size (\d+)$", text, re.MULTILINE)
        of = f" of a file of {int(size[1]):,} bytes" if size else ""
        msg = (
            f"{path} is a pointer of Git LFS{of}, not the weights: run `git lfs pull` in its "
            "repository, or download the file itself"
        )
    elif text[0] in "{[":
        msg = f"{path} is JSON text, such as a configuration or an index of shards, not weights"
    elif text[:15].lower().startswith(("<!doctype", "<html", "<?xml")):
        msg = (
            f"{path} is a web page, not weights: the server sent it in the file's place; download "
            "the file again from its own address"
        )
    else:
        return
    raise WeightsError(msg)


def is_zip(path: Path) -> bool:
    """Whether the file has PyTorch's zip layout, which can be mapped into memory."""
    return path.is_file() and zipfile.is_zipfile(path)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file, with a clear error for a missing or truncated one."""
    require_file(path)
    refuse_text(path)
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        msg = f"cannot read {path}: {error}; it may be truncated: download or copy it again"
        raise WeightsError(msg) from error


def assign_weights(module: nn.Module, state: Mapping[str, Tensor], *, source: object) -> None:
    """Put `state` into `module`, built with empty weights, without a copy.

    Raises:
        WeightsError: Names the missing and unexpected keys, the shapes that differ, integers in
            the place of weights, and weights that are not finite.
    """
    own = module.state_dict()
    missing = sorted(own.keys() - state.keys())
    unexpected = sorted(state.keys() - own.keys())
    shapes = [
        f"{key} is {tuple(state[key].shape)}, expected {tuple(own[key].shape)}"
        for key in own.keys() & state.keys()
        if own[key].shape != state[key].shape
    ]
    if missing or unexpected or shapes:
        parts = [
            _listed("missing", missing),
            _listed("unexpected", unexpected),
            _listed("of another shape", sorted(shapes)),
        ]
        msg = f"{source} does not fit the model: keys {'; '.join(p for p in parts if p)}"
        raise WeightsError(msg)
    _check_numbers(own, state, source)
    floats = {k: v for k, v in state.items() if v.is_floating_point()}
    dtypes = {v.dtype for v in floats.values()}
    if len(dtypes) > 1:  # one dtype for all, the widest; scorers keep what must stay float32
        widest = max(dtypes, key=lambda dtype: torch.finfo(dtype).bits)
        state = {**state, **{k: v.to(widest) for k, v in floats.items()}}
    module.load_state_dict(state, strict=True, assign=True)


def _check_numbers(own: Mapping[str, Tensor], state: Mapping[str, Tensor], source: object) -> None:
    """Refuse tensors of another kind of number, and numbers that are not finite."""
    kinds = [
        f"{key} is {str(value.dtype).removeprefix('torch.')}"
        for key, value in state.items()
        if value.is_floating_point() != own[key].is_floating_point() or value.is_complex()
    ]
    if kinds:
        msg = f"{source} does not hold weights as floating point: {_listed('found', sorted(kinds))}"
        raise WeightsError(msg)
    wrong = [key for key, value in state.items() if not _finite(value)]
    if wrong:
        msg = (
            f"{source} has weights that are not finite, so that every score would be NaN: "
            f"{_listed('in', sorted(wrong))}; its training diverged, or the file is damaged"
        )
        raise WeightsError(msg)
    for key, value in state.items():
        if key.endswith("logit_scale") and not _finite(value.float().exp()):
            msg = f"{source} has {key} = {value.item():g}, whose exponential is not finite"
            raise WeightsError(msg)


def _finite(values: Tensor) -> bool:
    """Whether all are; in one pass without a copy."""
    if not values.is_floating_point() or not values.numel() or values.is_meta:
        return True
    extremes = torch.stack(torch.aminmax(values.float() if values.itemsize < 2 else values))
    return bool(extremes.isfinite().all())


def _listed(label: str, items: list[str], most: int = 5) -> str:
    if not items:
        return ""
    rest = f" and {len(items) - most} more" if len(items) > most else ""
    return f"{label}: {', '.join(items[:most])}{rest}"
