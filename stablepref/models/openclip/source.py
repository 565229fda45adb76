"""Where a model of open_clip is: its configuration, preprocessing, weights and tokenizer.

Names are open_clip's own: "NAME/TAG" of its table, "NAME/PATH" for a file of yours,
"hf-hub:user/repo", or a folder that is laid out as such a repository.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, final

import open_clip
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.constants import ENDPOINT
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from open_clip.hf_configs import arch_dict

from stablepref.weights.errors import WeightsError
from stablepref.weights.hub import UnavailableError, fetch
from stablepref.weights.network import first_line, require_network
from stablepref.weights.remote import RemoteFile

PREFIX: Final = "open_clip:"
HUB: Final = "hf-hub:"
CONFIG: Final = "open_clip_config.json"
WEIGHTS: Final = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)
TEXT_FILE: Final = "config.json"
"""Beside the weights: the configuration of a text tower of transformers."""
TEXT_CONFIG: Final = "hf_config"
"""Key of text_cfg under which an architecture holds that configuration."""
TOKENIZER: Final = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
PAGE: Final = "https://github.com/mlfoundations/open_clip"
DEFAULTS: Final = {
    "mean": open_clip.OPENAI_DATASET_MEAN,
    "std": open_clip.OPENAI_DATASET_STD,
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}
"""What open_clip's `PreprocessCfg` has where a model says nothing."""


@final
@dataclass(frozen=True)
class Source:
    """What a model is made of.

    Attributes:
        architecture: open_clip's configuration: embed_dim, vision_cfg, text_cfg and so on.
        preprocess: Its mean, std, interpolation and resize_mode.
        weights: The file of weights.
        tokenizer: Folder with a tokenizer of transformers; None where the architecture's own words
            say which one, or where it is CLIP's.
    """

    architecture: dict[str, Any]
    preprocess: dict[str, Any]
    weights: Path
    tokenizer: Path | None = None


def find(name: str, *, weights: Path | None = None) -> Source:
    """What a name such as "open_clip:ViT-B-16-SigLIP2/webli" stands for; downloaded if need be.

    Args:
        name: NAME/TAG, NAME/PATH, a hub repository or a folder, after "open_clip:".
        weights: A file that takes the place of the weights, which are then not looked for; "NAME"
            is enough of a name.

    Raises:
        ValueError: open_clip has no such model or tag; the message lists near ones.
        UnavailableError: It cannot be downloaded.
        WeightsError: A folder does not have the files that it should.
    """
    rest = name.removeprefix(PREFIX)
    if rest.startswith(HUB):
        return _of_folder(_downloaded(rest.removeprefix(HUB), name, weights), weights)
    if Path(rest).expanduser().is_dir():
        return _of_folder(Path(rest).expanduser(), weights)
    model, slash, tag = rest.partition("/")
    architecture = open_clip.get_model_config(model)
    if architecture is None:
        near = get_close_matches(model, open_clip.list_models(), n=5, cutoff=0.5)
        msg = (
            f"{name}: open_clip has no architecture {model!r}{_perhaps(near)}; expected NAME/TAG "
            f"as in open_clip.list_pretrained(), NAME/PATH, {HUB}user/repo or a folder with "
            f"{CONFIG}"
        )
        raise ValueError(msg)
    if slash and (own := Path(tag).expanduser()).is_file():
        preprocess = _published(model)
        return _beside(own.parent, architecture, preprocess, own)
    if weights is not None and not tag:
        return _beside(weights.parent, architecture, _published(model), weights)
    found = open_clip.get_pretrained_cfg(model, tag) if tag else {}
    if not found:
        tags = open_clip.list_pretrained_tags_by_model(model)
        msg = (
            f"{name}: {tag!r} is neither a file nor a tag of {model}; expected one of "
            f"{', '.join(tags) or 'none, as it has no published weights'}"
        )
        raise ValueError(msg)
    if "quick_gelu" in found and found["quick_gelu"] != architecture.get("quick_gelu", False):
        architecture["quick_gelu"] = found["quick_gelu"]  # OpenAI's weights under the plain name
    if weights is not None:
        return _beside(weights.parent, architecture, _preprocess(found), weights)
    return Source(architecture, _preprocess(found), _fetched(found, name))


def _published(model: str) -> dict[str, Any]:
    """The preprocessing of a model's published weights, where all of them share one."""
    tags = open_clip.list_pretrained_tags_by_model(model)
    found = [_preprocess(open_clip.get_pretrained_cfg(model, tag)) for tag in tags]
    return found[0] if found and all(one == found[0] for one in found) else dict(DEFAULTS)


def _preprocess(found: dict[str, Any]) -> dict[str, Any]:
    return DEFAULTS | {key: found[key] for key in DEFAULTS if found.get(key) is not None}


def _fetched(found: dict[str, Any], name: str) -> Path:
    """The file of weights of a tag of open_clip's table."""
    if repository := found.get("hf_hub"):
        user, _, rest = repository.partition("/")
        repo, _, filename = rest.partition("/")
        names = (filename,) if filename else WEIGHTS
        return _first_of(f"{user}/{repo}", names, name)
    url = found["url"]
    return fetch(RemoteFile(url.rpartition("/")[2], url=url), model=name, page=PAGE)


def _first_of(repository: str, names: tuple[str, ...], model: str) -> Path:
    """The first of several files that a repository of the hub has."""
    for filename in names:
        cached = try_to_load_from_cache(repository, filename)
        if isinstance(cached, str):
            return Path(cached)
    try:
        require_network(ENDPOINT)
        for filename in names:
            try:
                return Path(hf_hub_download(repository, filename))
            except LocalEntryNotFoundError:
                raise
            except EntryNotFoundError:
                continue
    except OSError as error:
        msg = f"cannot download {repository} for {model} ({first_line(error)})"
        raise UnavailableError(msg) from error
    msg = f"{repository} on the hub has none of {', '.join(names)}"
    raise WeightsError(msg)


def _downloaded(repository: str, name: str, weights: Path | None) -> Path:
    """The folder of a repository of the hub, with what a model needs."""
    config = _first_of(repository, (CONFIG,), name)
    if weights is None:
        _first_of(repository, WEIGHTS, name)
    text = _read_config(config)[0].get("text_cfg", {})
    if isinstance(text, dict) and text.get("hf_tokenizer_name"):
        for filename in TOKENIZER[:2]:
            _first_of(repository, (filename,), name)
    return config.parent


def _of_folder(folder: Path, weights: Path | None = None) -> Source:
    architecture, preprocess = _read_config(folder / CONFIG)
    here = (folder / name for name in WEIGHTS if (folder / name).is_file())
    weights = weights or next(here, None)
    if weights is None:
        msg = f"{folder} has none of {', '.join(WEIGHTS)}, the weights of its {CONFIG}"
        raise WeightsError(msg)
    return _beside(folder, architecture, preprocess, weights)


def _read_config(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        architecture, preprocess = config["model_cfg"], config.get("preprocess_cfg", {})
        known = all(key in architecture for key in ("embed_dim", "vision_cfg", "text_cfg"))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        msg = f"cannot read {path} as a configuration of open_clip: {error!r}"
        raise WeightsError(msg) from error
    if not known:
        msg = f"{path} has no model_cfg with embed_dim, vision_cfg and text_cfg"
        raise WeightsError(msg)
    return architecture, _preprocess(preprocess)


def _beside(
    folder: Path, architecture: dict[str, Any], preprocess: dict[str, Any], weights: Path
) -> Source:
    """A model with the tokenizer and the text tower's configuration that its folder has."""
    tokenizer = folder if (folder / TOKENIZER[0]).is_file() else None
    text = architecture["text_cfg"]
    path = folder / TEXT_FILE
    if text.get("hf_model_name") and TEXT_CONFIG not in text and path.is_file():
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            msg = f"cannot read {path}, the configuration of the text tower: {error}"
            raise WeightsError(msg) from error
        if isinstance(config, dict) and config.get("model_type") in arch_dict:
            architecture = {**architecture, "text_cfg": {**text, TEXT_CONFIG: config}}
    return Source(architecture, preprocess, weights, tokenizer)


def _perhaps(near: list[str]) -> str:
    return f" (near it: {', '.join(near)})" if near else ""
