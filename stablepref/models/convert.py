"""State dicts of other libraries, renamed to our modules with every key accounted for.

Each function takes a state dict with official names and returns one with ours. Keys that are
missing, or that nobody knows, raise; keys that the official file carries without need for them
here are listed by name and dropped.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch

from stablepref.weights.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor

PARAMETERS = ("weight", "bias")
LISTED = 5  # keys that an error names of each kind

# transformers' CLIPModel -> open_clip's CLIP. Query, key and value are separate there, fused here.
TRANSFORMERS_CLIP = {
    "logit_scale": "logit_scale",
    "text_projection.weight": "text_projection",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "visual_projection.weight": "visual.proj",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
}
TRANSFORMERS_CLIP_NORMS = {
    "text_model.final_layer_norm": "ln_final",
    "vision_model.pre_layrnorm": "visual.ln_pre",  # the missing letter is theirs
    "vision_model.post_layernorm": "visual.ln_post",
}
TRANSFORMERS_CLIP_TOWERS = {
    "text_model.encoder.layers": "transformer.resblocks",
    "vision_model.encoder.layers": "visual.transformer.resblocks",
}
TRANSFORMERS_CLIP_BLOCK = {
    "self_attn.q_proj": "q",
    "self_attn.k_proj": "k",
    "self_attn.v_proj": "v",
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
TRANSPOSED = ("text_projection", "visual.proj")

# BLIP's BERT -> stablepref.models.bert, and its vision transformer, whose names are timm's.
BERT_EMBEDDINGS = {
    "embeddings.word_embeddings.weight": "word_embeddings.weight",
    "embeddings.position_embeddings.weight": "position_embeddings.weight",
    "embeddings.LayerNorm.weight": "norm.weight",
    "embeddings.LayerNorm.bias": "norm.bias",
}
BERT_LAYER = {
    "attention.self.query": "self_attention.query",
    "attention.self.key": "self_attention.key",
    "attention.self.value": "self_attention.value",
    "attention.output.dense": "self_attention.out",
    "attention.output.LayerNorm": "self_norm",
    "intermediate.dense": "up",
    "output.dense": "down",
    "output.LayerNorm": "norm",
}
BERT_CROSS_ATTENTION = {
    "crossattention.self.query": "cross_attention.query",
    "crossattention.self.key": "cross_attention.key",
    "crossattention.self.value": "cross_attention.value",
    "crossattention.output.dense": "cross_attention.out",
    "crossattention.output.LayerNorm": "cross_norm",
}
VIT = ("cls_token", "pos_embed")
VIT_MODULES = ("patch_embed.proj", "norm")
VIT_BLOCK = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
MLP_LAYERS = (0, 2, 4, 6, 7)
GELU_LAYERS = (0, 2, 4, 6, 8)

# The image tower of transformers' SiglipModel -> timm's vision transformer.
SIGLIP = {
    "vision_model.embeddings.position_embedding.weight": "pos_embed",
    "vision_model.head.probe": "attn_pool.latent",
    "vision_model.head.attention.in_proj_weight": "attn_pool.in_proj_weight",
    "vision_model.head.attention.in_proj_bias": "attn_pool.in_proj_bias",
}
SIGLIP_MODULES = {
    "vision_model.embeddings.patch_embedding": "patch_embed.proj",
    "vision_model.post_layernorm": "norm",
    "vision_model.head.attention.out_proj": "attn_pool.proj",
    "vision_model.head.layernorm": "attn_pool.norm",
    "vision_model.head.mlp.fc1": "attn_pool.mlp.fc1",
    "vision_model.head.mlp.fc2": "attn_pool.mlp.fc2",
}
SIGLIP_BLOCK = {
    "self_attn.q_proj": "q",
    "self_attn.k_proj": "k",
    "self_attn.v_proj": "v",
    "self_attn.out_proj": "attn.proj",
    "layer_norm1": "norm1",
    "layer_norm2": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
SIGLIP_UNUSED = (r".*\.position_ids", r"text_model\..*", r"logit_(scale|bias)")

# MPS's cross-attention: attention to the text beside an MLP, then attention to itself beside one.
MPS_LAYER = {
    "0.fn.norm": "attend.norm",
    "0.fn.to_q": "attend.query",
    "0.fn.to_kv": "attend.key_value",
    "0.fn.to_out": "attend.out",
    "0.fn.ff.0": "attend.up",
    "0.fn.ff.2": "attend.down",
    "1.fn.norm": "reflect.norm",
    "1.fn.fused_attn_ff_proj": "reflect.fused",
    "1.fn.attn_out": "reflect.out",
    "1.fn.ff_out.1": "reflect.down",
}

# What the official files hold beside the model that scores.
OPENAI_UNUSED = ("input_resolution", "context_length", "vocab_size")  # sizes, as buffers
POSITION_IDS = r".*\.position_ids"
IMAGEREWARD_UNUSED = (POSITION_IDS, r"blip\.(vision|text)_proj\..*")
MPS_UNUSED = (r".*\.rotary_emb\.inv_freq", r".*\.norm\.bias", r".*\.pos_emb")
BLIP_UNUSED = (
    POSITION_IDS,
    r"text_encoder\..*\.crossattention\..*",
    r"itm_head\..*",  # image-text matching
    r"text_decoder\..*",  # captioning
    r"(visual_encoder|text_encoder|vision_proj|text_proj)_m\..*",  # momentum copies
    r"(image_queue|text_queue|queue_ptr|ptr_queue|temp)",  # state of the contrastive loss
)


def pickscore_to_open_clip(
    state: Mapping[str, Tensor], *, source: object = "the state dict"
) -> dict[str, Tensor]:
    """PickScore's weights, or any of transformers' `CLIPModel`, under open_clip's names.

    Args:
        state: State dict of a `CLIPModel`; `position_ids` of older files are dropped.
        source: What error messages call it.

    Returns:
        State dict of open_clip's `CLIP`, of equal sizes.

    Raises:
        WeightsError: Names the missing and the unexpected keys.
    """
    names = dict(TRANSFORMERS_CLIP) | _with_parameters(TRANSFORMERS_CLIP_NORMS)
    depths = {tower: _depth(state, tower) for tower in TRANSFORMERS_CLIP_TOWERS}
    for tower, target in TRANSFORMERS_CLIP_TOWERS.items():
        names |= _blocks(TRANSFORMERS_CLIP_BLOCK, tower, target, depths[tower])
    ours = _renamed(state, names, unused=(POSITION_IDS,), source=source)
    for tower, target in TRANSFORMERS_CLIP_TOWERS.items():
        for block in range(depths[tower]):
            for parameter in PARAMETERS:
                parts = [ours.pop(f"{target}.{block}.{x}.{parameter}") for x in "qkv"]
                ours[f"{target}.{block}.attn.in_proj_{parameter}"] = torch.cat(parts)
    return ours | {key: ours[key].T.contiguous() for key in TRANSPOSED}


def imagereward_to_ours(
    state: Mapping[str, Tensor],
    *,
    source: object = "the state dict",
    layers: Iterable[int] = MLP_LAYERS,
) -> dict[str, Tensor]:
    """ImageReward's weights under the names of `stablepref.models.blip.ImageRewardScorer`.

    Args:
        state: The flat dict of ImageReward.pt; its unused projections and `position_ids` are
            dropped.
        source: What error messages call it.
        layers: Numbers of the linear layers in the head; CycleReward has `GELU_LAYERS`.

    Raises:
        WeightsError: Names the missing and the unexpected keys.
    """
    names = _vit_names(state, "blip.visual_encoder")
    names |= _bert_names(state, "blip.text_encoder", BERT_LAYER | BERT_CROSS_ATTENTION)
    names |= _with_parameters({f"mlp.layers.{i}": f"head.layers.{i}" for i in layers})
    return _renamed(state, names, unused=IMAGEREWARD_UNUSED, source=source)


def blip_to_ours(
    state: Mapping[str, Tensor], *, source: object = "the state dict"
) -> dict[str, Tensor]:
    """BLIP's pre-trained weights under the names of `stablepref.models.blip.BLIPScorer`.

    Args:
        state: The dict under the key "model" of model_large.pth; the decoder, the momentum copies
            and all else that the similarity does not need is dropped.
        source: What error messages call it.

    Raises:
        WeightsError: Names the missing and the unexpected keys.
    """
    names = _vit_names(state, "visual_encoder")
    names |= _bert_names(state, "text_encoder", BERT_LAYER)
    names |= _with_parameters({"vision_proj": "vision_projection", "text_proj": "text_projection"})
    return _renamed(state, names, unused=BLIP_UNUSED, source=source)


def mps_to_ours(
    state: Mapping[str, Tensor], *, source: object = "the state dict"
) -> dict[str, Tensor]:
    """MPS's weights under the names of `stablepref.models.mps.MPSScorer`.

    Args:
        state: Weights of its CLIP under "model." in transformers' names and of its cross-attention
            under "cross_model."; all of it may lie under "mps.". The frequencies of the rotary
            embedding and the norms' biases, which are no weights, are dropped.
        source: What error messages call it.

    Raises:
        WeightsError: Names the missing and the unexpected keys, or a norm's bias that is not zero.
    """
    state = {key.removeprefix("mps."): value for key, value in state.items()}
    clip = {k.removeprefix("model."): v for k, v in state.items() if not k.startswith("cross_")}
    cross = {k: v for k, v in state.items() if k.startswith("cross_")}
    depth = _depth(cross, "cross_model.layers")
    biased = [k for k, v in cross.items() if k.endswith("norm.bias") and bool(v.any())]
    if biased:
        msg = f"{source} has {biased[0]} that is not zero; expected norms without bias"
        raise WeightsError(msg)
    names = {
        f"cross_model.layers.{i}.{theirs}.weight": f"cross.{i}.{ours}.weight"
        for i in range(depth)
        for theirs, ours in MPS_LAYER.items()
    }
    ours = pickscore_to_open_clip(clip, source=source)
    return {f"clip.{key}": value for key, value in ours.items()} | _renamed(
        cross, names, unused=MPS_UNUSED, source=source
    )


def siglip_vision_to_timm(
    state: Mapping[str, Tensor], *, source: object = "the state dict"
) -> dict[str, Tensor]:
    """The image tower of transformers' `SiglipModel` under the names of timm's vision transformer.

    Args:
        state: State dict of a `SiglipModel` or `SiglipVisionModel`; the text tower is dropped.
        source: What error messages call it.

    Returns:
        State dict of a `VisionTransformer` that pools by attention, of equal sizes.

    Raises:
        WeightsError: Names the missing and the unexpected keys.
    """
    layers = "vision_model.encoder.layers"
    depth = _depth(state, layers)
    names = dict(SIGLIP) | _with_parameters(SIGLIP_MODULES)
    names |= _blocks(SIGLIP_BLOCK, layers, "blocks", depth)
    ours = _renamed(state, names, unused=SIGLIP_UNUSED, source=source)
    for block in range(depth):
        for parameter in PARAMETERS:
            parts = [ours.pop(f"blocks.{block}.{x}.{parameter}") for x in "qkv"]
            ours[f"blocks.{block}.attn.qkv.{parameter}"] = torch.cat(parts)
    for parameter in PARAMETERS:
        fused = ours.pop(f"attn_pool.in_proj_{parameter}")
        width = len(fused) // 3
        ours[f"attn_pool.q.{parameter}"] = fused[:width].contiguous()
        ours[f"attn_pool.kv.{parameter}"] = fused[width:].contiguous()
    return ours | {"pos_embed": ours["pos_embed"][None]}


def _vit_names(state: Mapping[str, Tensor], prefix: str) -> dict[str, str]:
    names = {f"{prefix}.{key}": f"vision.{key}" for key in VIT}
    names |= _with_parameters({f"{prefix}.{key}": f"vision.{key}" for key in VIT_MODULES})
    blocks = f"{prefix}.blocks"
    same = {key: key for key in VIT_BLOCK}
    return names | _blocks(same, blocks, "vision.blocks", _depth(state, blocks))


def _bert_names(
    state: Mapping[str, Tensor], prefix: str, layer: Mapping[str, str]
) -> dict[str, str]:
    names = {f"{prefix}.{theirs}": f"text.{ours}" for theirs, ours in BERT_EMBEDDINGS.items()}
    layers = f"{prefix}.encoder.layer"
    return names | _blocks(layer, layers, "text.layers", _depth(state, layers))


def _with_parameters(modules: Mapping[str, str]) -> dict[str, str]:
    return {f"{theirs}.{p}": f"{ours}.{p}" for theirs, ours in modules.items() for p in PARAMETERS}


def _blocks(table: Mapping[str, str], tower: str, target: str, depth: int) -> dict[str, str]:
    return _with_parameters(
        {
            f"{tower}.{i}.{theirs}": f"{target}.{i}.{ours}"
            for i in range(depth)
            for theirs, ours in table.items()
        }
    )


def _depth(state: Iterable[str], tower: str) -> int:
    """Number of blocks of a tower: at least one, so that a file without any shows what it lacks."""
    pattern = re.compile(re.escape(tower) + r"\.(\d+)\.")
    found = (pattern.match(key) for key in state)
    return max((int(match[1]) + 1 for match in found if match), default=1)


def _renamed(
    state: Mapping[str, Tensor],
    names: Mapping[str, str],
    *,
    unused: Iterable[str],
    source: object,
) -> dict[str, Tensor]:
    """`state` under new names, or an error that accounts for every key."""
    dropped = re.compile("|".join(f"(?:{pattern})" for pattern in unused))
    missing = [key for key in names if key not in state]
    unexpected = [key for key in state if key not in names and not dropped.fullmatch(key)]
    if missing or unexpected:
        parts = [
            f"{label} {len(keys)} keys ({', '.join(keys[:LISTED])}{', ...' * (len(keys) > LISTED)})"
            for label, keys in (("lacks", missing), ("has unexpected", unexpected))
            if keys
        ]
        msg = f"{source} {' and '.join(parts)}; expected the names of the official file"
        raise WeightsError(msg)
    return {ours: state[theirs] for theirs, ours in names.items()}
