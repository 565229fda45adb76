"""A small scorer with fixed random weights, for tests that need a model but not its taste."""

import torch

from stablepref.models.clip import CLIPScorer
from stablepref.preprocess.preprocess import Preprocess


def tiny_clip(
    *,
    protocol: str = "clip",
    quick_gelu: bool = False,
    preference_scale: float | None = 1.0,
    name: str = "tiny",
) -> CLIPScorer:
    """Two blocks a tower at 64 pixels, in evaluation mode; equal weights on every call."""
    backbone = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "patch_size": 16},
        "text_cfg": {"width": 64, "heads": 1, "layers": 2},
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
