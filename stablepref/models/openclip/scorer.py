"""A scorer on any model of open_clip, with that model's own preprocessing, tokenizer and unit."""

from __future__ import annotations

import copy
import functools
import json
import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, final

import timm
import torch
from accelerate import init_empty_weights
from huggingface_hub.constants import ENDPOINT
from open_clip.coca_model import CoCa
from open_clip.convert import convert_state_dict
from open_clip.hf_configs import arch_dict
from open_clip.hf_model import HFTextEncoder
from open_clip.model import CLIP, CustomTextCLIP, convert_to_custom_text_state_dict
from open_clip.tokenizer import HFTokenizer
from torch import Tensor, nn

from stablepref.models.backbone import Tokenizer
from stablepref.models.clip import MAX_LOG_SCALE, encode_tokens, warn_of_truncation
from stablepref.models.entry import LOGIT
from stablepref.models.openclip.source import TEXT_CONFIG, TEXT_FILE, find
from stablepref.models.openclip.towers import image_tower, text_tower
from stablepref.preprocess.preprocess import Preprocess
from stablepref.runtime.precision import kept_exact, unit
from stablepref.scorer import Scorer
from stablepref.scoring.prompts import cut_prompt
from stablepref.scoring.towers import Towers, checkpoint_blocks
from stablepref.weights.errors import WeightsError
from stablepref.weights.files import assign_weights, read_weights
from stablepref.weights.hub import UnavailableError
from stablepref.weights.network import first_line, require_network

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from stablepref.models.entry import Entry
    from stablepref.models.openclip.source import Source

PROTOCOLS: Final = {
    ("shortest", "bicubic"): "clip",
    ("shortest", "bilinear"): "clip-bilinear",
    ("squash", "bicubic"): "squash",
    ("squash", "bilinear"): "squash-bilinear",
}
"""The protocol of open_clip's resize_mode and interpolation."""


@final
class OpenCLIPScorer(Scorer):
    """logit_scale x cosine of a model of open_clip, plus its logit_bias where it has one (SigLIP).

    Args:
        architecture: open_clip's configuration: embed_dim, vision_cfg, text_cfg and so on.
        preprocess: Preprocessing at the image tower's size.
        name: What `stablepref.load` calls the model.
        tokenizer: Folder or hub repository of a tokenizer of transformers, where the model has one.
        preference_scale: 1.0 for a model trained on preferences, None for a zero-shot model.

    Raises:
        ValueError: The architecture names a model that open_clip would fetch from elsewhere.
        ImportError: It needs transformers, which is not installed.
    """

    kind = "open_clip"
    preprocess: Preprocess

    def __init__(
        self,
        architecture: Mapping[str, Any],
        *,
        preprocess: Preprocess,
        name: str,
        tokenizer: str | Path | None = None,
        preference_scale: float | None = None,
    ) -> None:
        super().__init__(
            name=name, unit=LOGIT, preprocess=preprocess, preference_scale=preference_scale
        )
        self.architecture = copy.deepcopy(dict(architecture))
        self.model = network(self.architecture)
        if self.model.logit_bias is not None:
            self.unit = f"{LOGIT} + logit_bias"
        self.tokenizer = make_tokenizer(self.architecture["text_cfg"], tokenizer)
        self._truncation_shown = False

    @property
    def log_scale(self) -> nn.Parameter:
        """The logarithm of the logit scale, the weight that is trained."""
        scale: nn.Parameter = self.model.logit_scale
        return scale

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the encoders' weights."""
        return next(weight.dtype for weight in self.model.visual.parameters())

    def towers(self) -> Towers:
        """Both towers, each with its projection."""
        return Towers(image_tower(self.model.visual, self.name), text_tower(self.model, self.name))

    def checkpoint_activations(self) -> None:
        """In both towers, by open_clip's own means; transformers' own need training mode."""
        self.model.set_grad_checkpointing()
        if isinstance(getattr(self.model, "text", None), HFTextEncoder):
            checkpoint_blocks(self.towers().text)

    @torch.no_grad()
    def after_step(self) -> None:
        """Keep the logarithmic logit scale within [0, ln 100], as CLIP's training does.

        Models of the sigmoid loss, which have a bias, are trained without an upper bound.
        """
        self.log_scale.clamp_(0, MAX_LOG_SCALE if self.model.logit_bias is None else math.inf)

    def encode_inputs(self, inputs: Tensor) -> Tensor:
        """Unit vectors `(batch, dim)`, float32, of normalised inputs `(batch, 3, S, S)`."""
        return unit(self.model.encode_image(inputs.to(self.dtype), normalize=False))

    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Unit vectors `(batch, dim)`, float32, of prompts.

        A prompt longer than the text tower's context is cut, with one warning.
        """
        tokens = self.tokenize(prompts)
        if isinstance(self.model, CLIP):
            return unit(encode_tokens(self.model, tokens))
        return unit(self.model.encode_text(tokens.to(self.device), normalize=False))

    def match(self, image_features: Tensor, prompt_features: Tensor) -> Tensor:
        """Scores `(batch,)`, computed in float32 with autocast off."""
        with torch.autocast(image_features.device.type, enabled=False):
            scale, bias = self.model.logit_scale, self.model.logit_bias
            cosine = (image_features * prompt_features).sum(-1)
            scores = scale.to(cosine.dtype).exp() * cosine
            return scores if bias is None else scores + bias.to(cosine.dtype)

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """Token ids `(batch, context)`, int64 on the CPU, by the model's own tokenizer."""
        context = int(self.tokenizer.context_length)
        texts = [cut_prompt(prompt, context) for prompt in prompts]
        if not self._truncation_shown:
            self._warn_of_truncation(texts, context)
        ids: Tensor = self.tokenizer(texts)
        return ids

    def config(self) -> dict[str, Any]:
        """The JSON configuration that `from_config` reads."""
        return {
            "scorer": self.kind,
            "name": self.name,
            "protocol": self.protocol,
            "preprocess": self.preprocess.config(),
            "architecture": self.architecture,
            "preference_scale": self.preference_scale,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], folder: Path) -> Self:
        """The model that `config` describes, its weights still to be loaded."""
        own = config["architecture"]["text_cfg"].get("hf_tokenizer_name")
        return cls(
            config["architecture"],
            preprocess=Preprocess(config["protocol"], **config["preprocess"]),
            name=config["name"],
            tokenizer=folder if own else None,
            preference_scale=config["preference_scale"],
        )

    def save_files(self, folder: Path) -> None:
        """Write the tokenizer, where it is not CLIP's."""
        if isinstance(self.tokenizer, HFTokenizer):
            self.tokenizer.save_pretrained(str(folder))

    def _warn_of_truncation(self, texts: Sequence[str], context: int) -> None:
        for text in texts:
            if len(text.encode()) < context - 2:  # a token has a byte or more
                continue
            count = count_tokens(self.tokenizer, text)
            if count > context:
                self._truncation_shown = True
                warn_of_truncation(self.name, (text, str(count)), context=context)
                return

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move or cast the module, but keep scale and bias in float32."""
        with kept_exact(self._unit_weights):
            super()._apply(fn, recurse)
        return self

    def _unit_weights(self) -> list[nn.Parameter]:
        both = self.model.logit_scale, self.model.logit_bias
        return [weight for weight in both if weight is not None]


def build_open_clip(entry: Entry, files: Sequence[Path]) -> OpenCLIPScorer:
    """The scorer of a name such as "open_clip:ViT-B-16-SigLIP2/webli"; see `source.find`.

    Args:
        entry: Its name says which model.
        files: A file with other weights of that model, or none.
    """
    weights = files[0] if files else None
    return open_clip_from(find(entry.name, weights=weights), name=entry.name)


def open_clip_from(source: Source, *, name: str) -> OpenCLIPScorer:
    """The scorer of a model's configuration, weights and tokenizer.

    Raises:
        ValueError: Its preprocessing or a tower is of a kind that is not supported.
        WeightsError: The weights do not fit the architecture.
        UnavailableError: Its tokenizer is not here and cannot be downloaded.
        ImportError: It needs transformers, which is not installed.
    """
    architecture = copy.deepcopy(source.architecture)
    text = architecture["text_cfg"]
    if text.get("hf_model_name") and TEXT_CONFIG not in text:
        text[TEXT_CONFIG] = _hub_text_config(text["hf_model_name"])
    with init_empty_weights(include_buffers=False):
        scorer = OpenCLIPScorer(
            architecture,
            preprocess=_preprocess(architecture, source.preprocess, name),
            name=name,
            tokenizer=source.tokenizer or text.get("hf_tokenizer_name"),
        )
    state = _converted(scorer.model, read_weights(source.weights))
    assign_weights(scorer.model, state, source=source.weights)
    return scorer.eval()


def network(architecture: Mapping[str, Any]) -> Any:  # noqa: ANN401 - one of three classes
    """open_clip's model of a configuration, with random weights; nothing is downloaded for it.

    Raises:
        ValueError: A tower is named that is not timm's or transformers' own.
        ImportError: It needs transformers, which is not installed.
    """
    given = copy.deepcopy(dict(architecture))
    custom = given.pop("custom_text", False)
    vision, text = given["vision_cfg"], given["text_cfg"]
    trunk = vision.get("timm_model_name")
    if trunk is not None:
        if not isinstance(trunk, str) or not timm.is_model(trunk):
            msg = f"the image tower is {trunk!r}; expected the name of an architecture of timm"
            raise ValueError(msg)
        vision["timm_model_pretrained"] = False
    config = text.pop(TEXT_CONFIG, None)
    if not text.get("hf_model_name"):
        kind = CoCa if "multimodal_cfg" in given else CustomTextCLIP if custom else CLIP
        return kind(**given)
    transformers = _transformers(text["hf_model_name"])
    if not isinstance(config, dict) or config.get("model_type") not in arch_dict:
        msg = f"the text tower has no configuration of one of {', '.join(arch_dict)}"
        raise ValueError(msg)
    text["hf_model_pretrained"] = False
    with tempfile.TemporaryDirectory() as folder:  # where open_clip looks for a configuration
        (Path(folder) / "config.json").write_text(json.dumps(config))
        transformers.AutoConfig.from_pretrained(folder)
        text["hf_model_name"] = folder
        kind = CoCa if "multimodal_cfg" in given else CustomTextCLIP
        return kind(**given)


def make_tokenizer(text: Mapping[str, Any], where: str | Path | None) -> Any:  # noqa: ANN401
    """The tokenizer that open_clip gives a model.

    Args:
        text: The model's text_cfg.
        where: Folder or hub repository of a tokenizer of transformers.

    Raises:
        UnavailableError: It is not here and cannot be downloaded.
        ImportError: It needs transformers, which is not installed.
    """
    context = text.get("context_length", 77)
    options = dict(text.get("tokenizer_kwargs", {}))
    if not text.get("hf_tokenizer_name"):
        return Tokenizer(context_length=context, **options)
    _transformers(str(text["hf_tokenizer_name"]))
    options |= {"context_length": context, "tokenizer_mode": text.get("tokenizer_mode")}
    try:
        return here_first(str(where), functools.partial(HFTokenizer, str(where), **options))
    except (OSError, ValueError) as error:
        msg = (
            f"cannot read the tokenizer {where} ({first_line(error)}); put its tokenizer.json and "
            "tokenizer_config.json beside the weights"
        )
        raise UnavailableError(msg) from error


def here_first(where: str, load: Callable[..., Any]) -> Any:  # noqa: ANN401 - what `load` gives
    """What one of transformers' loaders gives: from a folder or the cache, else from the hub.

    Args:
        where: Folder or hub repository.
        load: Takes `local_files_only`.

    Raises:
        OSError: It is not here, and the hub cannot be reached or does not have it.
        ValueError: What is here is of another form.
    """
    try:
        return load(local_files_only=True)
    except OSError:
        if Path(where).is_dir():
            raise
    require_network(ENDPOINT)
    return load()


def count_tokens(tokenizer: Any, text: str) -> int:  # noqa: ANN401 - of either kind
    """Tokens of a prompt before it is cut, start and end included."""
    if isinstance(tokenizer, HFTokenizer):
        return len(tokenizer.tokenizer(tokenizer.clean_fn(text)).input_ids)
    return len(tokenizer.encode(text)) + 2


def _preprocess(architecture: Mapping[str, Any], found: Mapping[str, Any], name: str) -> Preprocess:
    key = found["resize_mode"], found["interpolation"]
    size = architecture["vision_cfg"].get("image_size", 224)
    if isinstance(size, (list, tuple)) and len(set(size)) == 1:
        size = size[0]
    if key not in PROTOCOLS or not isinstance(size, int):
        known = "; ".join(" and ".join(pair) for pair in PROTOCOLS)
        msg = (
            f"{name} is shown pictures of {size} by resize mode and interpolation "
            f"{' and '.join(map(str, key))}; expected a square and one of {known}"
        )
        raise ValueError(msg)
    mean, std = (
        [value] * 3 if isinstance(value, (int, float)) else list(value)
        for value in (found["mean"], found["std"])
    )
    return Preprocess(PROTOCOLS[key], size, mean=mean, std=std)


def _converted(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights under the names of this architecture, as open_clip's `load_checkpoint` does it."""
    state = dict(convert_state_dict(model, state))
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    for key in ("logit_scale", "logit_bias"):
        own = getattr(model, key, None)
        if key in state and own is not None:
            state[key] = state[key].reshape(own.shape)
    state.pop("text.transformer.embeddings.position_ids", None)
    return state


def _transformers(needed_for: str) -> Any:  # noqa: ANN401 - the package
    try:
        import transformers  # noqa: PLC0415 - an extra
    except ImportError as error:
        msg = f"{needed_for} needs transformers: pip install 'stablepref[vlm]'"
        raise ImportError(msg) from error
    return transformers


def _hub_text_config(name: str) -> dict[str, Any]:
    """The configuration of a text tower of transformers, from its folder or the hub."""
    load = _transformers(name).AutoConfig.from_pretrained
    try:
        found: dict[str, Any] = here_first(name, functools.partial(load, name)).to_dict()
    except (OSError, ValueError) as error:
        msg = (
            f"cannot get the configuration of the text tower {name} ({first_line(error)}); put its "
            f"{TEXT_FILE} beside the weights"
        )
        raise UnavailableError(msg) from error
    if found.get("model_type") not in arch_dict:
        msg = f"{name} is a {found.get('model_type')}; expected one of {', '.join(arch_dict)}"
        raise WeightsError(msg)
    return found
