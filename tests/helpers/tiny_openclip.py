"""Tiny models of open_clip's kinds, in the layout of its repositories."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import open_clip
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

if TYPE_CHECKING:
    from pathlib import Path

VIT = {"image_size": 64, "layers": 2, "width": 64, "patch_size": 16, "head_width": 32}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
OWN_WORDS = {
    "vocab_size": 300,
    "hf_tokenizer_name": "made/up",
    "tokenizer_kwargs": {"clean": "canonicalize"},
}
SIGMOID = {"init_logit_scale": 2.5, "init_logit_bias": -3.0, "custom_text": True}
HALF = {"mean": [0.5] * 3, "std": [0.5] * 3}
SQUASH = {**HALF, "interpolation": "bicubic", "resize_mode": "squash"}
SIZES = {
    "vocab_size": 300,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 90,
    "pad_token_id": 0,
}
SEQUENCE = {"vocab_size": 300, "d_model": 32, "pad_token_id": 0, "decoder_start_token_id": 0}
TOWERS: dict[str, dict[str, Any]] = {
    "roberta": {"model_type": "roberta", **SIZES},
    "xlm-roberta": {"model_type": "xlm-roberta", **SIZES},
    "bert": {"model_type": "bert", **SIZES},
    "mt5": {
        "model_type": "mt5",
        **SEQUENCE,
        "d_kv": 16,
        "d_ff": 64,
        "num_layers": 2,
        "num_heads": 2,
    },
    "nllb": {
        "model_type": "m2m_100",
        **SEQUENCE,
        "encoder_layers": 2,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "max_position_embeddings": 90,
    },
}
"""Configurations of transformers' text towers, by kind of model."""
MOBILE = {"mean": [0.0] * 3, "std": [1.0] * 3, "interpolation": "bilinear"}
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "dfn": ({"quick_gelu": True, "vision_cfg": VIT, "text_cfg": TEXT}, {}),
    "long": ({"vision_cfg": VIT, "text_cfg": {**TEXT, "context_length": 248}}, {}),
    "siglip2": (
        {
            **SIGMOID,
            "vision_cfg": {
                "image_size": 160,
                "timm_model_name": "test_vit",
                "timm_pool": "map",
                "timm_proj": "none",
            },
            "text_cfg": {
                **TEXT,
                **OWN_WORDS,
                "context_length": 16,
                "no_causal_mask": True,
                "proj_bias": True,
                "pool_type": "last",
            },
            "embed_dim": 64,
        },
        SQUASH,
    ),
    "eva": (
        {
            "vision_cfg": {
                "image_size": 224,
                "timm_model_name": "eva02_tiny_patch14_224",
                "timm_pool": "avg",
                "timm_proj": "linear",
            },
            "text_cfg": TEXT,
            "custom_text": True,
        },
        {},
    ),
    "coca": (
        {
            "vision_cfg": {
                **VIT,
                "attentional_pool": True,
                "attn_pooler_heads": 2,
                "output_tokens": True,
            },
            "text_cfg": {**TEXT, "context_length": 76, "embed_cls": True, "output_tokens": True},
            "multimodal_cfg": {"context_length": 76, "width": 32, "heads": 2, "layers": 1},
            "custom_text": True,
        },
        {},
    ),
    "mobileclip": (
        {
            "vision_cfg": {
                "image_size": 64,
                "timm_model_name": "fastvit_t8",
                "timm_pool": "avg",
                "timm_proj": None,
            },
            "text_cfg": TEXT,
            "custom_text": True,
        },
        MOBILE,
    ),
    "resnet": (
        {"vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8}, "text_cfg": TEXT},
        {**HALF, "interpolation": "bilinear", "resize_mode": "squash"},
    ),
}


def _with_tower(**text: object) -> tuple[dict[str, Any], dict[str, Any]]:
    """A model whose text tower is one of transformers'."""
    own = {"hf_model_name": "", "hf_tokenizer_name": "made/up", **text}
    return {"vision_cfg": VIT, "text_cfg": own}, {}


KINDS |= {
    "roberta": _with_tower(hf_pooler_type="mean_pooler"),
    "xlm-roberta": _with_tower(hf_pooler_type="mean_pooler", hf_proj_type="linear"),
    "bert": _with_tower(hf_pooler_type="cls_pooler"),
    "mt5": _with_tower(hf_pooler_type="mean_pooler"),
    "nllb": _with_tower(hf_pooler_type="cls_pooler", hf_proj_type="linear"),
}


def write_tokenizer(folder: Path) -> None:
    """A tokenizer in transformers' files: 300 pieces of bytes, an end token, padding by zero."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<pad>", "<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["a red fox asleep under a wooden bridge, portrait"] * 9, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", 1)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>"
    ).save_pretrained(folder)


def write_model(kind: str, folder: Path) -> Path:
    """A folder as of a repository of open_clip: configuration, weights, tokenizer."""
    folder.mkdir(parents=True)
    architecture, preprocess = KINDS[kind]
    architecture = {"embed_dim": 48, **architecture}
    if kind in TOWERS:  # hf_model_name is the name or the folder of the tower's configuration
        architecture["text_cfg"] = {**architecture["text_cfg"], "hf_model_name": str(folder)}
        (folder / "config.json").write_text(json.dumps(TOWERS[kind]))
    config = {"model_cfg": architecture, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    if "hf_tokenizer_name" in architecture["text_cfg"]:
        write_tokenizer(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.create_model(
            f"local-dir:{folder}", load_weights=False, pretrained_text=False
        )
        for name, weight in model.named_parameters():
            if weight.ndim > 1 and "embedding" not in name:
                torch.nn.init.normal_(weight, std=1.5 * weight[0].numel() ** -0.5)
        for buffer in model.buffers():
            if buffer.is_floating_point() and buffer.ndim == 1:
                buffer.add_(0.1)  # running means and variances that are not those of a new model
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors", metadata={"format": "pt"})
    return folder
