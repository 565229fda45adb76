"""A small scorer with fixed random weights, for tests that need a model but not its taste."""

import copy
import functools

import torch

from stablepref.models.clip import CLIPScorer
from stablepref.preprocess.preprocess import Preprocess


def tiny_clip(
    *,
    protocol: str = "clip",
    quick_gelu: bool = False,
    preference_scale: float | None = 1.0,
    name: str = "tiny",
    text_width: int = 64,
) -> CLIPScorer:
    """Two blocks a tower at 64 pixels, in evaluation mode; equal weights on every call.

    Nearly all of its weights are the 49,408 tokens': a narrow text tower is saved, hashed and
    trained several times faster.
    """
    return copy.deepcopy(_made(protocol, quick_gelu, preference_scale, name, text_width))


@functools.cache
def _made(
    protocol: str, quick_gelu: bool, preference_scale: float | None, name: str, text_width: int
) -> CLIPScorer:
    """The scorer of which copies are given: to make one takes longer."""
    backbone = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "patch_size": 16},
        "text_cfg": {"width": text_width, "heads": 1, "layers": 2},
        "quick_gelu": quick_gelu,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        scorer = CLIPScorer(
            backbone,
            preprocess=Preprocess(protocol, 64),
            name=name,
            preference_scale=preference_scale,
        )
    return scorer.eval()
