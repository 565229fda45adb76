"""BLIP and ImageReward with random weights and a vocabulary of letters."""

import string
from typing import Any

import torch

from stablepref.models.blip import BLIPScorer, ImageRewardScorer
from stablepref.scorer import Scorer

SMALL: dict[str, Any] = {"vision_width": 64, "vision_depth": 2, "text_width": 64, "text_depth": 2}
LETTERS = string.ascii_lowercase
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{c}" for c in LETTERS)]


def small_scorer(kind: type[Scorer]) -> Scorer:
    torch.manual_seed(0)
    if kind is BLIPScorer:
        scorer: Scorer = BLIPScorer(VOCABULARY, projection_width=16, **SMALL)
    else:
        scorer = ImageRewardScorer(VOCABULARY, **SMALL)
    with torch.no_grad():
        for parameter in scorer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return scorer.eval()
