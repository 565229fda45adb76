"""Dual-tower scorers on open_clip: CLIP itself, HPS, PickScore and Stable Preference models.

The towers are run as open_clip runs them, with what costs nothing and helps:

- **Text without padding.** Attention in the text tower is causal and a prompt's feature is read
  at its end token, so what comes after the longest prompt's end cannot change any feature.
  Prompts are padded to 77 tokens, and most people write 10 to 30.
- **A float32 residual stream.** With weights in half precision, open_clip also rounds pixels,
  embeddings, the sum that runs through all blocks, twice in each, and the feature. Here only the
  blocks' matrix products are in half precision, and everything around them, a small part of the
  work, in float32, so that scores stay nearer to those of float32 weights.
"""

from __future__ import annotations

import math
import shutil
import unicodedata
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from torch.nn import functional

from stablepref.assets import ASSETS
from stablepref.models.attention import patch_products
from stablepref.models.backbone import clip_network, clip_tokenizer, widest_bytes
from stablepref.models.convert import OPENAI_UNUSED, pickscore_to_open_clip
from stablepref.models.entry import LOGIT, MAX_LOGIT_SCALE
from stablepref.models.openclip.towers import image_tower, text_tower
from stablepref.preprocess.preprocess import Preprocess
from stablepref.runtime.precision import REDUCED, kept_exact, unit, widen
from stablepref.scorer import Scorer
from stablepref.scoring.prompts import LONGEST_PROMPT, cut_prompt
from stablepref.scoring.towers import Towers
from stablepref.weights.files import assign_weights, read_weights
from stablepref.weights.folder import load_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from open_clip.model import CLIP
    from open_clip.tokenizer import SimpleTokenizer
    from open_clip.transformer import ResidualAttentionBlock, Transformer, VisionTransformer

    from stablepref.models.entry import Entry

MAX_LOG_SCALE: Final = math.log(MAX_LOGIT_SCALE)
TOGETHER: Final = 64
"""Prompts that are encoded at once."""
FLOAT32_STREAM: Final = REDUCED
"""Number types of weights around which the towers compute in float32."""


@final
class CLIPScorer(Scorer):
    """The scaled cosine of an image tower and a text tower.

    Args:
        backbone: Keyword arguments of open_clip's `CLIP`: embed_dim, vision_cfg, text_cfg and, for
            OpenAI's own weights, quick_gelu.
        preprocess: Preprocessing at the image tower's size.
        name: What `stablepref.load` calls the model.
        preference_scale: 1.0 for a model trained on preferences by cross-entropy on its scores,
            None for a zero-shot model.
        vocabulary: Gzipped byte-pair merges; None for OpenAI's, which come with open_clip.
    """

    kind = "clip"
    preprocess: Preprocess

    def __init__(
        self,
        backbone: Mapping[str, Any],
        *,
        preprocess: Preprocess,
        name: str,
        preference_scale: float | None,
        vocabulary: Path | None = None,
    ) -> None:
        super().__init__(
            name=name, unit=LOGIT, preprocess=preprocess, preference_scale=preference_scale
        )
        self.backbone = {"quick_gelu": False, **backbone}
        self.model = clip_network(self.backbone)
        self.vocabulary = vocabulary
        self.tokenizer = clip_tokenizer(vocabulary)
        if preprocess.protocol == "pickscore":
            self.tokenizer.clean_fn = clean_as_transformers
        if self.tokenizer.vocab_size != self.model.vocab_size:
            msg = (
                f"the vocabulary has {self.tokenizer.vocab_size} tokens, "
                f"the text tower {self.model.vocab_size}"
            )
            raise ValueError(msg)
        self._truncation_shown = False

    @property
    def logit_scale(self) -> Tensor:
        """The factor between cosine and score, a float32 scalar; about 100 in published models."""
        return self.model.logit_scale.float().exp()

    @property
    def log_scale(self) -> nn.Parameter:
        """The logarithm of the logit scale, the weight that is trained."""
        scale: nn.Parameter = self.model.logit_scale
        return scale

    @property
    def widest_bytes(self) -> int:
        """Of the activations in the middle of a block's MLP, for one image."""
        return widest_bytes(self.model)

    def towers(self) -> Towers:
        """Both towers, the projections at their ends."""
        return Towers(image_tower(self.model.visual, self.name), text_tower(self.model, self.name))

    def checkpoint_activations(self) -> None:
        """In both towers, by open_clip's own means."""
        self.model.set_grad_checkpointing()

    @torch.no_grad()
    def after_step(self) -> None:
        """Keep the logarithmic logit scale within [0, ln 100], as CLIP's training does."""
        self.log_scale.clamp_(0, MAX_LOG_SCALE)

    def encode_inputs(self, inputs: Tensor) -> Tensor:
        """Unit vectors `(batch, dim)`, float32, of normalised inputs `(batch, 3, S, S)`."""
        return unit(encode_pixels(self.model.visual, inputs))

    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Unit vectors `(batch, dim)`, float32, of prompts.

        A prompt longer than the text tower's context is cut, its end token kept, with one warning.
        """
        return unit(encode_tokens(self.model, self.tokenize(prompts)))

    def match(self, image_features: Tensor, prompt_features: Tensor) -> Tensor:
        """logit_scale x cosine `(batch,)`, computed in float32 with autocast off."""
        with torch.autocast(image_features.device.type, enabled=False):
            scale = self.model.logit_scale.to(image_features.dtype).exp()
            return scale * (image_features * prompt_features).sum(-1)

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """Token ids `(batch, context)`, int64 on the CPU, zero-padded after the end token."""
        ids, cut = token_ids(self.tokenizer, prompts, context=self.model.context_length)
        if cut is not None and not self._truncation_shown:
            self._truncation_shown = True
            warn_of_truncation(self.name, cut, context=self.model.context_length)
        return ids

    def config(self) -> dict[str, Any]:
        """The JSON configuration that `from_config` reads."""
        return {
            "scorer": self.kind,
            "name": self.name,
            "protocol": self.protocol,
            "preprocess": self.preprocess.config(),
            "backbone": self.backbone,
            "vocabulary": self.vocabulary and self.vocabulary.name,
            "unit": self.unit,
            "preference_scale": self.preference_scale,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], folder: Path) -> CLIPScorer:
        """The model that `config` describes, its weights still to be loaded."""
        vocabulary = config["vocabulary"]
        return cls(
            config["backbone"],
            preprocess=Preprocess(config["protocol"], **config["preprocess"]),
            name=config["name"],
            preference_scale=config["preference_scale"],
            vocabulary=vocabulary and folder / Path(vocabulary).name,
        )

    def save_files(self, folder: Path) -> None:
        """Copy an own vocabulary to `folder`."""
        if self.vocabulary is not None:
            shutil.copyfile(self.vocabulary, folder / self.vocabulary.name)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> CLIPScorer:
        """Move or cast the module, but keep the logit scale in float32."""
        with kept_exact(lambda: [self.model.logit_scale]):
            super()._apply(fn, recurse)
        return self


def build_clip(entry: Entry, files: Sequence[Path]) -> CLIPScorer:
    """The scorer of an official file with open_clip's or OpenAI's own names of weights."""
    return _built(entry, read_weights(files[0]), source=files[0])


def build_transformers_clip(entry: Entry, files: Sequence[Path]) -> CLIPScorer:
    """The scorer of an official file with transformers' names of weights, as PickScore's."""
    weights = pickscore_to_open_clip(read_weights(files[0]), source=files[0])
    return _built(entry, weights, source=files[0])


def build_bundled(entry: Entry, files: Sequence[Path]) -> Scorer:
    """The scorer in the folder of the entry's name that comes with this package."""
    del files  # the entry has none
    return load_folder(ASSETS / entry.name, Scorer.of_kind)


def as_clip(scorer: Scorer) -> CLIPScorer:
    """The scorer itself, where code needs open_clip's towers as they are.

    Raises:
        ValueError: It is not a CLIP model.
    """
    if not isinstance(scorer, CLIPScorer):
        msg = f"{scorer.name} is a {type(scorer).__name__}; expected a CLIP model"
        raise ValueError(msg)
    return scorer


def _built(entry: Entry, weights: Mapping[str, Tensor], *, source: Path) -> CLIPScorer:
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


def token_ids(
    tokenizer: SimpleTokenizer, prompts: Sequence[str], *, context: int, padding: int = 0
) -> tuple[Tensor, tuple[str, str] | None]:
    """Token ids `(batch, context)`, int64 on the CPU, each prompt between start and end token.

    Args:
        tokenizer: OpenAI's, or one with other merges.
        prompts: The texts; too long ones lose what is before the end token.
        context: Tokens of each row.
        padding: The id after the end.

    Returns:
        The ids, and the first prompt that was cut with its number of tokens, or None.
    """
    start, end = tokenizer.sot_token_id, tokenizer.eot_token_id
    ids = torch.full((len(prompts), context), padding, dtype=torch.long, device="cpu")
    cut: tuple[str, str] | None = None
    for row, prompt in zip(ids, prompts, strict=True):
        tokens = [start, *tokenizer.encode(cut_prompt(prompt, context)), end]
        if len(tokens) > context:
            more = "more than " if len(prompt) > LONGEST_PROMPT else ""
            cut = cut or (prompt, f"{more}{len(tokens)}")
            tokens = [*tokens[: context - 1], end]
        row[: len(tokens)] = torch.tensor(tokens, device="cpu")
    return ids, cut


def warn_of_truncation(name: str, cut: tuple[str, str], *, context: int) -> None:
    """Warn that a model reads only the first tokens of a prompt."""
    prompt, tokens = cut
    warnings.warn(
        f"{name} reads {context} tokens and this prompt has {tokens}: the rest is cut, the end "
        f"token kept (shown once for this model): {prompt[:60]!r}...",
        stacklevel=3,
    )


def clean_as_transformers(text: str) -> str:
    """The prompt as transformers' CLIP tokenizer reads it, with which PickScore was trained.

    Unicode's composed form (NFC), single spaces, lower case; unlike open_clip it neither
    straightens quotes nor resolves HTML entities.
    """
    return " ".join(unicodedata.normalize("NFC", text).split()).lower()


def encode_pixels(visual: VisionTransformer, inputs: Tensor) -> Tensor:
    """Features `(batch, dim)`, not normalised, of normalised inputs `(batch, 3, S, S)`.

    Those of `visual(inputs)`; with weights in half precision nearer to float32, and in float32.
    A tower that pools by attention is run as it is.
    """
    conv = visual.conv1
    dtype = conv.weight.dtype
    plain = visual.attn_pool is None and visual.pool_type in ("tok", "avg")
    if dtype not in FLOAT32_STREAM or not plain:
        features: Tensor = visual(inputs.to(dtype))
        return features
    # What `VisionTransformer.forward` of open_clip 3.3 does.
    x = image_tokens(visual, inputs)
    average = visual.pool_type == "avg"
    if average and not visual.final_ln_after_pool:
        pooled = norm_wide(visual.ln_post, x[:, 1:]).mean(dim=1)
    else:
        pooled = norm_wide(visual.ln_post, x[:, 1:].mean(dim=1) if average else x[:, 0])
    return pooled if visual.proj is None else pooled @ visual.proj.float()


def image_tokens(visual: VisionTransformer, inputs: Tensor) -> Tensor:
    """What leaves the last block, `(batch, 1 + patches, width)`, the class token first.

    In float32 or wider, whatever the weights are in; before the last norm and the projection.
    """
    conv = visual.conv1
    weight, bias = widen(conv.weight), None if conv.bias is None else widen(conv.bias)
    x = patch_products(inputs.to(weight.dtype), weight, bias)
    x = x.flatten(2).transpose(1, 2)
    first = widen(visual.class_embedding).expand(len(x), 1, -1)
    x = torch.cat([first, x], dim=1) + widen(visual.positional_embedding)
    x = norm_wide(visual.ln_pre, visual.patch_dropout(x))
    return run_blocks(visual.transformer, x, conv.weight.dtype)


def encode_tokens(model: CLIP, tokens: Tensor) -> Tensor:
    """Features `(batch, dim)` of prompts, not normalised, on the model's device.

    Those of `model.encode_text(tokens)` but for rounding; with weights in half precision nearer to
    float32, and in float32. Many prompts are encoded in groups of like length.

    Args:
        model: open_clip's CLIP. One whose attention looks ahead, or that reads its feature
            elsewhere than at the end token, is run as it is.
        tokens: Token ids `(batch, context)`, best on the CPU; the end token has the largest.
    """
    device = model.positional_embedding.device
    if model.attn_mask is None or model.text_pool_type != "argmax":
        features: Tensor = model.encode_text(tokens.to(device))
        return features
    lengths = tokens.argmax(dim=1) + 1
    if len(tokens) <= TOGETHER:
        return _encode(model, tokens.to(device), int(lengths.max()))
    order = lengths.argsort()
    parts = [
        _encode(model, tokens[rows].to(device), int(lengths[rows].max()))
        for rows in order.split(TOGETHER)
    ]
    return torch.cat(parts)[order.argsort().to(device)]


def _encode(model: CLIP, tokens: Tensor, length: int) -> Tensor:
    """What `encode_text` of open_clip 3.3 gives for the first `length` tokens of each prompt."""
    tokens = tokens[:, :length]
    dtype = model.transformer.get_cast_dtype()
    x = widen(model.token_embedding(tokens)) + widen(model.positional_embedding[:length])
    x = run_blocks(model.transformer, x, dtype, model.attn_mask[:length, :length])
    ends = x[torch.arange(len(x), device=x.device), tokens.argmax(dim=1)]
    pooled = norm_wide(model.ln_final, ends)
    projection = model.text_projection
    if isinstance(projection, nn.Linear):
        bias = None if projection.bias is None else widen(projection.bias)
        return functional.linear(pooled, widen(projection.weight), bias)
    return pooled if projection is None else pooled @ widen(projection)


def run_blocks(
    transformer: Transformer, x: Tensor, dtype: torch.dtype, attn_mask: Tensor | None = None
) -> Tensor:
    """`transformer(x, attn_mask)`; if `dtype`, that of its weights, is reduced, then in float32.

    Activation checkpointing is for training, whose weights are float32.
    """
    if dtype not in FLOAT32_STREAM or transformer.grad_checkpointing or not transformer.batch_first:
        return widen(transformer(x.to(dtype), attn_mask=attn_mask))
    for block in transformer.resblocks:
        x = _block(block, x, dtype, attn_mask)
    return x


def _block(
    block: ResidualAttentionBlock, x: Tensor, dtype: torch.dtype, attn_mask: Tensor | None
) -> Tensor:
    """`ResidualAttentionBlock.forward` of open_clip 3.3; `x` is float32, the weights `dtype`."""
    attended = block.attention(norm_wide(block.ln_1, x).to(dtype), attn_mask=attn_mask)
    x = x + block.ls_1(attended)
    return x + block.ls_2(block.mlp(norm_wide(block.ln_2, x).to(dtype)))


def norm_wide(norm: nn.Module, x: Tensor) -> Tensor:
    """A layer norm, or nothing where a tower has none, of float32 or wider values."""
    if not isinstance(norm, nn.LayerNorm):
        return x
    bias = None if norm.bias is None else widen(norm.bias)
    return functional.layer_norm(x, norm.normalized_shape, widen(norm.weight), bias, norm.eps)
