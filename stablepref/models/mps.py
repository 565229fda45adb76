"""MPS: CLIP's image tokens attend to those words of the prompt that a condition is about."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self, final

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from torch.nn import functional

from stablepref.models.backbone import clip_network, clip_tokenizer
from stablepref.models.clip import (
    MAX_LOG_SCALE,
    clean_as_transformers,
    image_tokens,
    norm_wide,
    run_blocks,
    token_ids,
    warn_of_truncation,
)
from stablepref.models.convert import mps_to_ours
from stablepref.models.entry import LOGIT
from stablepref.models.openclip.towers import image_tower, text_tower
from stablepref.preprocess.preprocess import Preprocess
from stablepref.runtime.precision import kept_exact, unit, widen
from stablepref.scorer import Scorer
from stablepref.scoring.towers import Towers
from stablepref.weights.files import assign_weights, read_weights
from stablepref.weights.literals import read_literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from stablepref.models.entry import Entry

HEAD_WIDTH: Final = 64
LAYERS: Final = 4
MLP_RATIO: Final = 4
ROTARY_BASE: Final = 10_000.0
CONDITION: Final = "condition"
"""What the official evaluation scripts call the text that names what people look at."""

Scope = Literal["prompt", "batch"]


class Attend(nn.Module):
    """Image tokens attend to text tokens, beside an MLP; one key and value for all heads.

    Args:
        width: Width of both kinds of tokens, a multiple of 64.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, bias=False)
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * HEAD_WIDTH, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, 2 * MLP_RATIO * width, bias=False)
        self.down = nn.Linear(MLP_RATIO * width, width, bias=False)

    def forward(self, x: Tensor, text: Tensor, seen: Tensor) -> Tensor:
        """What is added to `x`; `seen` is True at the text tokens that count, `(batch, text)`."""
        x = norm_wide(self.norm, x)
        key, value = _linear(self.key_value, text).chunk(2, dim=-1)
        attended = _attention(_linear(self.query, x), key, value, seen[:, None, None, :])
        return _linear(self.out, attended) + _linear(self.down, _swiglu(_linear(self.up, x)))


class Reflect(nn.Module):
    """Image tokens attend to each other, beside an MLP; one key and value for all heads.

    Args:
        width: Width of the tokens, a multiple of 64.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.parts = [width, HEAD_WIDTH, HEAD_WIDTH, 2 * MLP_RATIO * width]
        self.norm = nn.LayerNorm(width, bias=False)
        self.fused = nn.Linear(width, sum(self.parts), bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.down = nn.Linear(MLP_RATIO * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """What is added to `x`."""
        query, key, value, gated = _linear(self.fused, norm_wide(self.norm, x)).split(
            self.parts, dim=-1
        )
        attended = _attention(query, key, value, rotate=True)
        return _linear(self.out, attended) + _linear(self.down, _swiglu(gated))


class CrossLayer(nn.Module):
    """Attention to the text, then to the image itself, each added to the tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attend = Attend(width)
        self.reflect = Reflect(width)

    def forward(self, x: Tensor, text: Tensor, seen: Tensor) -> Tensor:
        """Transform image tokens `(batch, tokens, width)`."""
        x = x + self.attend(x, text, seen)
        return x + self.reflect(x)


@final
class MPSScorer(Scorer):
    """MPS (Zhang et al. 2024, CVPR, "Multi-dimensional Human Preference").

    Score = logit_scale x cosine of the prompt's end token and the image's class token, after that
    has attended to the prompt's words. Words count whose similarity to the condition, divided by
    the largest one, lies above the threshold.

    Args:
        backbone: Keyword arguments of open_clip's `CLIP`.
        preprocess: Preprocessing at the image tower's size.
        condition: What is looked at, in words; the official scripts have one for overall taste.
        name: What `stablepref.load` calls the model.
        threshold: 0.3 in the official evaluation scripts, 0.01 in the official model's `forward`.
        scope: Among what the largest similarity is sought: "prompt" looks at each prompt alone;
            "batch", as the official `forward`, at all prompts that are scored at once, so that a
            score depends on its neighbours.
        preference_scale: As in `Scorer`.

    Raises:
        ValueError: `scope` is neither.
    """

    kind = "mps"
    preprocess: Preprocess

    def __init__(
        self,
        backbone: Mapping[str, Any],
        *,
        preprocess: Preprocess,
        condition: str,
        name: str,
        threshold: float = 0.3,
        scope: Scope = "prompt",
        preference_scale: float | None = 1.0,
    ) -> None:
        if scope not in ("prompt", "batch"):
            msg = f"scope is {scope!r}; expected 'prompt' or 'batch'"
            raise ValueError(msg)
        super().__init__(
            name=name, unit=LOGIT, preprocess=preprocess, preference_scale=preference_scale
        )
        self.backbone = {"quick_gelu": False, **backbone}
        self.condition, self.threshold, self.scope = condition, threshold, scope
        self.clip = clip_network(self.backbone)
        self.cross = nn.ModuleList(CrossLayer(self.backbone["embed_dim"]) for _ in range(LAYERS))
        self.tokenizer = clip_tokenizer(None)
        self.tokenizer.clean_fn = clean_as_transformers
        self._truncation_shown = False

    @property
    def log_scale(self) -> nn.Parameter:
        """The logarithm of the logit scale, the weight that is trained."""
        scale: nn.Parameter = self.clip.logit_scale
        return scale

    def towers(self) -> Towers:
        """Both towers of CLIP; the cross-attention ends that of the image."""
        image = image_tower(self.clip.visual, self.name)
        image = image._replace(last=(self.clip.visual.proj, self.cross))
        return Towers(image, text_tower(self.clip, self.name))

    def checkpoint_activations(self) -> None:
        """In both towers of CLIP, by open_clip's own means."""
        self.clip.set_grad_checkpointing()

    @torch.no_grad()
    def after_step(self) -> None:
        """Keep the logarithmic logit scale within [0, ln 100], as CLIP's training does."""
        self.log_scale.clamp_(0, MAX_LOG_SCALE)

    def encode_inputs(self, inputs: Tensor) -> Tensor:
        """Projected image tokens `(batch, 1 + patches, dim)`, float32, the class token first."""
        visual = self.clip.visual
        return image_tokens(visual, inputs) @ widen(visual.proj)

    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Text tokens and what they have to do with the condition, `(batch, 1 + context, 1 + dim)`.

        The first row is the prompt's end token, the last column each token's largest similarity to
        a token of the condition.
        """
        ids = self.tokenize([*prompts, self.condition])
        tokens = self._text_tokens(ids.to(self.device))
        text, condition = tokens[:-1], tokens[-1]
        similarity = (text @ condition.T).amax(dim=-1, keepdim=True)
        ends = ids[:-1].argmax(dim=1).to(text.device)
        end = text[torch.arange(len(text), device=text.device), ends]
        rows = torch.cat([text, similarity], dim=-1)
        return torch.cat([functional.pad(end, (0, 1))[:, None], rows], dim=1)

    def match(self, image_features: Tensor, prompt_features: Tensor) -> Tensor:
        """logit_scale x cosine `(batch,)`, computed in float32 with autocast off."""
        with torch.autocast(image_features.device.type, enabled=False):
            end, text = prompt_features[:, 0, :-1], prompt_features[:, 1:, :-1]
            similarity = prompt_features[:, 1:, -1]
            alone = self.scope == "prompt"
            largest = similarity.amax(dim=1, keepdim=True) if alone else similarity.amax()
            seen = similarity / largest > self.threshold
            x = image_features
            for layer in self.cross:
                x = layer(x, text, seen)
            scale = self.clip.logit_scale.to(x.dtype).exp()
            return scale * (unit(end) * unit(x[:, 0])).sum(-1)

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """Token ids `(batch, context)`, int64 on the CPU, filled with the end token.

        A prompt longer than the context is cut, its end token kept, with one warning.
        """
        context = self.clip.context_length
        padding = self.tokenizer.eot_token_id
        ids, cut = token_ids(self.tokenizer, prompts, context=context, padding=padding)
        if cut is not None and not self._truncation_shown:
            self._truncation_shown = True
            warn_of_truncation(self.name, cut, context=context)
        return ids

    def config(self) -> dict[str, Any]:
        """The JSON configuration that `from_config` reads."""
        return {
            "scorer": self.kind,
            "name": self.name,
            "protocol": self.protocol,
            "preprocess": self.preprocess.config(),
            "backbone": self.backbone,
            "condition": self.condition,
            "threshold": self.threshold,
            "scope": self.scope,
            "preference_scale": self.preference_scale,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], folder: Path) -> Self:
        """The model that `config` describes, its weights still to be loaded."""
        del folder  # it holds no other files
        given = {k: v for k, v in config.items() if k not in ("scorer", "protocol", "preprocess")}
        return cls(preprocess=Preprocess(config["protocol"], **config["preprocess"]), **given)

    def save_files(self, folder: Path) -> None:
        """Write nothing: the weights and the configuration are all."""

    def _text_tokens(self, ids: Tensor) -> Tensor:
        """Projected text tokens `(batch, context, dim)`, float32 or wider."""
        clip = self.clip
        x = widen(clip.token_embedding(ids)) + widen(clip.positional_embedding)
        x = run_blocks(clip.transformer, x, clip.transformer.get_cast_dtype(), clip.attn_mask)
        return norm_wide(clip.ln_final, x) @ widen(clip.text_projection)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move or cast the module, but keep the logit scale in float32."""
        with kept_exact(lambda: [self.clip.logit_scale]):
            super()._apply(fn, recurse)
        return self


def build_mps(entry: Entry, files: Sequence[Path]) -> MPSScorer:
    """The scorer of MPS's weights and of the official script that has the condition.

    Raises:
        WeightsError: Names the missing and unexpected keys, and shapes that differ; or the script
            does not have the condition.
    """
    sizes = dict(entry.sizes)
    own = {key: sizes.pop(key) for key in ("threshold", "scope", "condition_sha256")}
    condition = read_literal(Path(files[1]), CONDITION, sha256=own["condition_sha256"])
    with init_empty_weights(include_buffers=False):
        scorer = MPSScorer(
            sizes,
            preprocess=Preprocess(entry.protocol, size=sizes["vision_cfg"]["image_size"]),
            condition=condition,
            name=entry.name,
            threshold=own["threshold"],
            scope=own["scope"],
            preference_scale=entry.preference_scale,
        )
    ours = mps_to_ours(read_weights(files[0]), source=files[0])
    assign_weights(scorer, ours, source=files[0])
    return scorer.eval()


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """The layer's product in its own number type, given back in float32 or wider."""
    return widen(functional.linear(x.to(layer.weight.dtype), layer.weight))


def _swiglu(x: Tensor) -> Tensor:
    """One half of the channels times SiLU of the other (Shazeer 2020, arXiv:2002.05202)."""
    value, gate = x.chunk(2, dim=-1)
    return functional.silu(gate) * value


def _attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, *, rotate: bool = False
) -> Tensor:
    """Multi-query attention: `query` `(batch, tokens, width)`, key and value of one head."""
    heads = query.unflatten(-1, (-1, HEAD_WIDTH)).transpose(1, 2)
    key, value = key[:, None], value[:, None]
    if rotate:
        heads, key = _rotated(heads), _rotated(key)
    shape = (*heads.shape[:2], *key.shape[2:])
    attended = functional.scaled_dot_product_attention(
        heads, key.expand(shape), value.expand(shape), attn_mask=mask
    )
    return attended.transpose(1, 2).flatten(-2)


def _rotated(x: Tensor) -> Tensor:
    """Rotary position embedding (Su et al. 2021, arXiv:2104.09864) of `(..., tokens, 64)`."""
    even = torch.arange(0, HEAD_WIDTH, 2, device=x.device, dtype=torch.float32)
    positions = torch.arange(x.shape[-2], device=x.device, dtype=torch.float32)
    angles = torch.outer(positions, 1.0 / ROTARY_BASE ** (even / HEAD_WIDTH)).repeat(1, 2)
    low, high = x.chunk(2, dim=-1)
    return x * angles.cos().to(x.dtype) + torch.cat((-high, low), dim=-1) * angles.sin().to(x.dtype)
