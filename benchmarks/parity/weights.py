"""Seeded weights: each tensor depends on its official name alone, so that both sides make them."""

from __future__ import annotations

import hashlib
import math
import re
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

LOGIT_SCALE = math.log(100)
EMBEDDINGS = re.compile(r"(positional|token|class|word|position)_embedding|cls_token|pos_embed")
QUERY_OR_KEY = re.compile(r"in_proj_weight|[qk]_proj.weight|qkv.weight|self\.(query|key).weight")
ATTENTION_GAIN = 2.0  # sharp enough that the class token does not just average its image
UNIT_HEAD_GAIN = 10.0
UNIT_HEAD = re.compile(
    r"((layers|scoring_head)\.0\.)?weight"
)  # of the aesthetic heads, on unit vectors


def seeded_state(shapes: Mapping[str, tuple[int, ...]], *, seed: str) -> dict[str, Tensor]:
    """Weights of the given names and shapes, float32.

    Signals keep their size through the layers, and attention is uneven, so that images and prompts
    get scores that differ and a wrong protocol or activation shows.
    """
    return {key: seeded_tensor(key, shape, seed=seed) for key, shape in shapes.items()}


def seeded_tensor(key: str, shape: tuple[int, ...], *, seed: str) -> Tensor:
    """One tensor; matrices have outputs in dimension 0, as in linear layers and convolutions."""
    if key.endswith("logit_scale"):
        return torch.tensor(LOGIT_SCALE)
    digest = hashlib.sha256(f"{seed}/{key}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    noise = torch.randn(shape, generator=generator)
    if EMBEDDINGS.search(key):
        return noise * 0.5
    if len(shape) == 1:  # norms and biases
        return noise * 0.1 + (1.0 if key.endswith("weight") else 0.0)
    if UNIT_HEAD.fullmatch(key):
        return noise * UNIT_HEAD_GAIN
    gain = ATTENTION_GAIN if QUERY_OR_KEY.search(key) else 1.0
    return noise * (gain / math.sqrt(math.prod(shape[1:])))


def state_digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of names and values; it differs where another random generator is at work."""
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(key.encode())
        digest.update(state[key].contiguous().view(-1).numpy().tobytes())
    return digest.hexdigest()
