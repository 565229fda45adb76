"""A tiny scorer of every architecture, by name."""

from collections.abc import Callable

from helpers.tiny import tiny_clip
from stablepref.models.aesthetic import AestheticScorer
from stablepref.models.bert import BERT_TOKENS
from stablepref.models.blip import BLIPScorer, ImageRewardScorer
from stablepref.preprocess.preprocess import Preprocess
from stablepref.scorer import Scorer

VOCABULARY = [
    *BERT_TOKENS,
    *"abcdefghijklmnopqrstuvwxyz",
    *(f"##{c}" for c in "abcdefghijklmnopqrs"),
]
SMALL = {"vision_width": 64, "vision_depth": 2, "text_width": 64, "text_depth": 2}


def tiny_aesthetic(head: str) -> AestheticScorer:
    backbone = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "patch_size": 16},
        "text_cfg": {
            "context_length": 77,
            "vocab_size": 49408,
            "width": 64,
            "heads": 1,
            "layers": 1,
        },
        "quick_gelu": True,
    }
    return AestheticScorer(backbone, head=head, preprocess=Preprocess("clip", 64), name="tiny")


BUILDERS: dict[str, Callable[[], Scorer]] = {
    "clip": tiny_clip,
    "hps": lambda: tiny_clip(protocol="hps"),
    "imagereward": lambda: ImageRewardScorer(VOCABULARY, **SMALL),
    "blip": lambda: BLIPScorer(VOCABULARY, projection_width=32, **SMALL),
    "aesthetic-linear": lambda: tiny_aesthetic("linear"),
    "aesthetic-mlp": lambda: tiny_aesthetic("mlp"),
}
