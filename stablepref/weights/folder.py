"""Folders that hold a scorer: configuration, safetensors weights and extra files."""

from __future__ import annotations

import importlib
import json
import os
import struct
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import init_empty_weights
from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.constants import ENDPOINT
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from stablepref.output.durable import SAVING, sync
from stablepref.weights.network import require_network

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from stablepref.scorer import Scorer

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
READABLE = 0o644  # safetensors writes files that only their owner may read
SCORER_CLASSES = {
    "clip": ("stablepref.models.clip", "CLIPScorer"),
    "imagereward": ("stablepref.models.blip", "ImageRewardScorer"),
    "blip": ("stablepref.models.blip", "BLIPScorer"),
    "aesthetic": ("stablepref.models.aesthetic", "AestheticScorer"),
}
# What damaged data raises in the libraries that read checkpoints.
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
    OverflowError,
    EOFError,
    OSError,
)
CARD = """---
{{ card_data }}
---

# A stablepref reward model

Load it with `stablepref.load("hf-hub:user/repo")` or from a folder with `stablepref.load(path)`.

{{ training | default("", true) }}
"""


class WeightsError(ValueError):
    """A weights file or folder is missing, truncated, or of another model."""


def save_folder(scorer: Scorer, folder: Path, *, state: Mapping[str, Tensor] | None = None) -> None:
    """Write `scorer` to `folder`: each file under a temporary name first, then renamed.

    The configuration comes last, so that a folder with one is complete; all is on the disk then.

    Args:
        scorer: What to write.
        folder: Where to.
        state: The weights, where a distributed engine holds them in pieces; None takes the
            scorer's own.

    Raises:
        OSError: A file cannot be written, on a full disk, say.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=SAVING) as name:
        staging = Path(name)
        weights = {
            k: v.detach().cpu().contiguous() for k, v in (state or scorer.state_dict()).items()
        }
        try:
            save_file(weights, staging / WEIGHTS_FILE, metadata={"format": "pt"})
        except SafetensorError as error:  # its own, also where the disk is full
            raise OSError(f"cannot write {folder / WEIGHTS_FILE}: {error}") from error
        scorer.save_files(staging)
        config = staging / CONFIG_FILE
        config.write_text(json.dumps(scorer.config(), indent=2) + "\n")
        for path in sorted(staging.iterdir(), key=lambda path: path == config):
            path.chmod(READABLE)
            sync(path)
            path.replace(folder / path.name)
    sync(folder)


def load_folder(folder: str | os.PathLike[str]) -> Scorer:
    """Build the scorer that `save_folder` wrote, on the CPU, in its saved dtype, in eval mode.

    Raises:
        WeightsError: The folder is no scorer's, or its weights do not fit its configuration.
    """
    folder = Path(folder)
    config = read_config(folder)
    module, name = SCORER_CLASSES[config["scorer"]]
    cls: type[Scorer] = getattr(importlib.import_module(module), name)
    try:
        with init_empty_weights(include_buffers=False):
            scorer = cls.from_config(config, folder)
    except Exception as error:  # whatever constructors raise on numbers that make no sense
        msg = f"{folder / CONFIG_FILE} describes no {name}: {error!r}"
        raise WeightsError(msg) from error
    assign_weights(scorer, read_safetensors(folder / WEIGHTS_FILE), source=folder / WEIGHTS_FILE)
    return scorer.eval()


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration of a saved scorer, checked to be one."""
    try:
        config = json.loads((folder / CONFIG_FILE).read_text())
    except (OSError, ValueError) as error:
        msg = f"{folder} is not a saved scorer: cannot read its {CONFIG_FILE} ({error})"
        raise WeightsError(msg) from error
    if not isinstance(config, dict) or config.get("scorer") not in SCORER_CLASSES:
        kind = config.get("scorer") if isinstance(config, dict) else type(config).__name__
        msg = (
            f"{folder / CONFIG_FILE} names the scorer {kind!r}; "
            f"expected one of {', '.join(map(repr, SCORER_CLASSES))}"
        )
        raise WeightsError(msg)
    return config


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file, with a clear error for a missing or truncated one."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        msg = f"cannot read {path}: {error}; it may be truncated: download or copy it again"
        raise WeightsError(msg) from error


def assign_weights(module: nn.Module, state: Mapping[str, Tensor], *, source: object) -> None:
    """Put `state` into `module`, built with empty weights, without a copy.

    Raises:
        WeightsError: Names the missing and unexpected keys, and the shapes that differ.
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
    floats = {k: v for k, v in state.items() if v.is_floating_point()}
    dtypes = {v.dtype for v in floats.values()}
    if len(dtypes) > 1:  # one dtype for all, the widest; scorers keep what must stay float32
        widest = max(dtypes, key=lambda dtype: torch.finfo(dtype).bits)
        state = {**state, **{k: v.to(widest) for k, v in floats.items()}}
    module.load_state_dict(state, strict=True, assign=True)


def fetch_folder(
    name: str | os.PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
    token: str | bool | None = None,
) -> Path:
    """The local folder itself, or the hub repository `name` downloaded."""
    if Path(name).is_dir():
        return Path(name)
    return download_folder(
        os.fspath(name),
        revision=revision,
        cache_dir=cache_dir,
        force_download=force_download,
        local_files_only=local_files_only,
        token=token,
    )


def download_folder(repository: str, **options: Any) -> Path:  # noqa: ANN401 - the hub's own
    """The local copy of a hub repository of a scorer; `options` are `snapshot_download`'s.

    The configuration comes first, so that another model's weights are not downloaded.

    Raises:
        WeightsError: It is no repository of a scorer.
        OSError: It cannot be downloaded, and is not in the cache.
    """
    offline: OSError | None = None
    try:
        require_network(ENDPOINT)
    except OSError as error:
        offline, options["local_files_only"] = error, True
    try:
        read_config(Path(hf_hub_download(repository, CONFIG_FILE, **options)).parent)
    except LocalEntryNotFoundError as error:
        raise (offline or error) from error
    except (EntryNotFoundError, WeightsError) as error:
        reason = error if isinstance(error, WeightsError) else f"it has no {CONFIG_FILE}"
        msg = f"{repository} on the hub is no scorer that save_pretrained wrote: {reason}"
        raise WeightsError(msg) from error
    patterns = ["*.json", "*.safetensors", "*.txt", "*.gz"]
    return Path(snapshot_download(repository, allow_patterns=patterns, **options))


def _listed(label: str, items: list[str], most: int = 5) -> str:
    if not items:
        return ""
    rest = f" and {len(items) - most} more" if len(items) > most else ""
    return f"{label}: {', '.join(items[:most])}{rest}"
