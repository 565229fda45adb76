"""The architectures of official models in numbers, in open_clip's words for CLIP."""

from __future__ import annotations

from typing import Any, Final

from stablepref.weights.remote import RemoteFile

VIT_L_14: Final[dict[str, Any]] = {
    "embed_dim": 768,
    "vision_cfg": {"image_size": 224, "layers": 24, "width": 1024, "patch_size": 14},
    "text_cfg": {
        "context_length": 77,
        "vocab_size": 49408,
        "width": 768,
        "heads": 12,
        "layers": 12,
    },
    "quick_gelu": True,
}
VIT_H_14: Final[dict[str, Any]] = {
    "embed_dim": 1024,
    "vision_cfg": {
        "image_size": 224,
        "layers": 32,
        "width": 1280,
        "head_width": 80,
        "patch_size": 14,
    },
    "text_cfg": {
        "context_length": 77,
        "vocab_size": 49408,
        "width": 1024,
        "heads": 16,
        "layers": 24,
    },
    "quick_gelu": False,
}
BLIP_LARGE: Final[dict[str, Any]] = {
    "vision_width": 1024,
    "vision_depth": 24,
    "text_width": 768,
    "text_depth": 12,
}

BERT_VOCABULARY: Final = RemoteFile("vocab.txt", repo="google-bert/bert-base-uncased")
SIGLIP_SO400M: Final[dict[str, Any]] = {
    "image_size": 384,
    "patch_size": 14,
    "width": 1152,
    "depth": 27,
    "heads": 16,
    "mlp_width": 4304,
}
QWEN2_VL_7B: Final[dict[str, Any]] = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "mrope_section": [16, 24, 24],
    "vision": {"depth": 32, "embed_dim": 1280, "num_heads": 16},
}
