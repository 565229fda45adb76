"""Which configurations of open_clip's CLIP are built: keys and values on a list, within bounds.

A folder from elsewhere says how its towers are built. open_clip would load other packages' models
for some keys (`timm_model_name`, `hf_model_name`), ask the hub for them, or take all memory for
others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import copy
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Self

from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer

from stablepref.models.attention import use_products
from stablepref.weights.bounds import check_vocabulary

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import nn

MOST_NUMBERS: Final = 2**26
"""Numbers in one table of a tower but that of tokens: 16 times those of the largest CLIP."""
_Check = tuple[str, "Callable[[Any], bool]"]


def _whole(most: int) -> _Check:
    return f"a whole number from 1 to {most}", lambda x: type(x) is int and 1 <= x <= most


def _real(low: float, high: float) -> _Check:
    return (
        f"a number from {low:g} to {high:g}",
        lambda x: type(x) in (int, float) and math.isfinite(x) and low <= x <= high,
    )


def _one_of(*values: object) -> _Check:
    return f"one of {', '.join(map(repr, values))}", lambda x: any(
        x == value and type(x) is type(value) for value in values
    )


def _optional(check: _Check) -> _Check:
    return f"{check[0]}, or null", lambda x: x is None or check[1](x)


def _is_norm(value: object) -> bool:
    return value == {} or (
        isinstance(value, Mapping) and list(value) == ["eps"] and _real(1e-12, 0.1)[1](value["eps"])
    )


_SWITCH: Final = _one_of(True, False)
_ACTIVATIONS: Final = ({"approximate": "none"}, {"approximate": "tanh"})
_BLOCKS: Final[dict[str, _Check]] = {
    "layers": _whole(256),
    "width": _whole(8192),
    "mlp_ratio": _real(0.01, 16),
    "ls_init_value": _optional(_real(0, 100)),
    "final_ln_after_pool": _SWITCH,
    "output_tokens": _one_of(False),
    "act_kwargs": _optional(
        ('{"approximate": "none" or "tanh"}', lambda x: x in ({}, *_ACTIVATIONS))
    ),
    "norm_kwargs": _optional(
        ('{"eps": a number from 1e-12 to 0.1}', _is_norm),
    ),
    "block_type": _one_of(None, "default", "custom"),
    **dict.fromkeys(("qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner"), _SWITCH),
    **dict.fromkeys(("scale_attn", "scale_fc"), _SWITCH),
}
_VISION: Final[dict[str, _Check]] = {
    **_BLOCKS,
    "head_width": _whole(8192),
    "patch_size": _whole(4096),
    "image_size": _whole(4096),
    "patch_dropout": _real(0, 0.99),
    "attentional_pool": _one_of(True, False, "parallel", "cascade"),
    "attn_pooler_queries": _whole(4096),
    "attn_pooler_heads": _whole(256),
    "no_ln_pre": _SWITCH,
    "pos_embed_type": _one_of("learnable", "sin_cos_2d"),
    "pool_type": _one_of("tok", "avg"),
}
_TEXT: Final[dict[str, _Check]] = {
    **_BLOCKS,
    "context_length": _whole(4096),
    "vocab_size": _whole(2**20),
    "heads": _whole(256),
    "embed_cls": _SWITCH,
    "pad_id": ("a token's number", lambda x: type(x) is int and 0 <= x < 2**20),
    "eos_id": ("a token's number", lambda x: type(x) is int and 0 <= x < 2**20),
    "no_causal_mask": _SWITCH,
    "pool_type": _one_of("first", "last", "argmax", "eos"),
    "proj_bias": _SWITCH,
    "proj_type": _one_of("linear", "none"),
}
_WHOLE: Final[dict[str, _Check]] = {
    "embed_dim": _whole(8192),
    "vision_cfg": ("an object", lambda x: isinstance(x, Mapping)),
    "text_cfg": ("an object", lambda x: isinstance(x, Mapping)),
    "quick_gelu": _SWITCH,
}


def clip_network(backbone: Mapping[str, Any]) -> CLIP:
    """open_clip's CLIP of a configuration, with random weights.

    Args:
        backbone: embed_dim, vision_cfg, text_cfg and quick_gelu, in open_clip's words.

    Raises:
        ValueError: A key or a value is not on the list, or a tower would be out of all proportion.
    """
    _check(backbone, _WHOLE, "backbone")
    missing = [key for key in ("embed_dim", "vision_cfg", "text_cfg") if key not in backbone]
    if missing:
        msg = f"the backbone has no {', '.join(missing)}"
        raise ValueError(msg)
    vision, text = backbone["vision_cfg"], backbone["text_cfg"]
    _check(vision, _VISION, "vision_cfg")
    _check(text, _TEXT, "text_cfg")
    patches = (vision.get("image_size", 224) // vision.get("patch_size", 16)) ** 2
    numbers = (1 + patches) * vision.get("width", 768)
    if numbers > MOST_NUMBERS:
        msg = f"vision_cfg has {patches:,} patches, {numbers:,} numbers; at most {MOST_NUMBERS:,}"
        raise ValueError(msg)
    # Copies, since open_clip keeps what it is given.
    model = CLIP(**{**backbone, "vision_cfg": dict(vision), "text_cfg": dict(text)})
    use_products(model)
    return model


def widest_bytes(model: CLIP) -> int:
    """Of the activations in the middle of an MLP of the image tower, for one image."""
    visual = model.visual
    first: nn.Linear = visual.transformer.resblocks[0].mlp.c_fc
    return visual.positional_embedding.shape[0] * first.out_features * first.weight.element_size()


class Tokenizer(SimpleTokenizer):
    """open_clip's, whose copies share its tables, which nothing ever changes."""

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        """Copying 49,408 entries in Python takes longer than copying a small model's weights."""
        return copy(self)


def clip_tokenizer(vocabulary: Path | None) -> Tokenizer:
    """open_clip's tokenizer with OpenAI's merges, or with those of a gzipped file.

    Raises:
        WeightsError: The file is too large when it is unpacked, or cannot be read.
    """
    if vocabulary is None:
        return copy(_openai_tokenizer())
    check_vocabulary(vocabulary)
    return Tokenizer(str(vocabulary))


@cache
def _openai_tokenizer() -> Tokenizer:
    """Read once in a process, which takes a tenth of a second; its users get copies."""
    return Tokenizer()


def _check(given: Mapping[str, Any], known: Mapping[str, _Check], where: str) -> None:
    for key, value in given.items():
        if key not in known:
            msg = (
                f"{where} has the key {key!r}; expected only {', '.join(known)}: towers of other "
                "packages and of the hub are not loaded"
            )
            raise ValueError(msg)
        expected, fits = known[key]
        if not fits(value):
            msg = f"{where} has {key} = {value!r}; expected {expected}"
            raise ValueError(msg)
