"""The laboratory's CLIP: its size, its forward pass in training, and its folder on disk."""

import copy
import math
from pathlib import Path
from typing import Any

import torch
from open_clip.model import CLIP
from torch import Tensor

from stablepref.models.clip import CLIPScorer
from stablepref.preprocess.preprocess import Preprocess
from stablepref.weights.folder import save_folder

from ..world.drawing import IMAGE_SIZE
from ..world.vocabulary import CONTEXT_LENGTH

# OpenAI's CLIP constants, as in open_clip.constants, so that the `clip` protocol applies as it is.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)

# Standard deviation of the first position vectors, about that of the patches' own.
_POSITION_SPREAD = 0.15


def backbone_config(vocab_size: int) -> dict[str, Any]:
    """open_clip's model configuration: 3.7 million parameters, 7.4 MB in half precision.

    Patches of 8 pixels are about the size of a small object. Average pooling rather than a class
    token learns faster at this size.
    """
    return {
        "embed_dim": 192,
        "quick_gelu": False,
        "vision_cfg": {
            "image_size": IMAGE_SIZE,
            "patch_size": 8,
            "layers": 6,
            "width": 192,
            "head_width": 32,
            "pool_type": "avg",
        },
        "text_cfg": {
            "context_length": CONTEXT_LENGTH,
            "vocab_size": vocab_size,
            "layers": 4,
            "width": 128,
            "heads": 4,
        },
    }


def build_model(config: dict[str, Any], *, seed: int) -> CLIP:
    """A CLIP with random weights that depend on the seed alone.

    The image tower's position vectors begin as smooth functions of the place. From open_clip's
    independent random vectors it did not learn to distinguish left and right in 3,000 steps.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CLIP(**copy.deepcopy(config))
        with torch.no_grad():
            positions = model.visual.positional_embedding
            positions[1:] = _smooth_positions(len(positions) - 1, positions.shape[1])
    return model


def _smooth_positions(places: int, width: int) -> Tensor:
    """Position vectors `(places, width)` of a square grid, random mixtures of slow waves."""
    side = math.isqrt(places)
    axis = (torch.arange(side) + 0.5) / side * 2 - 1
    y, x = (grid.flatten() for grid in torch.meshgrid(axis, axis, indexing="ij"))
    waves = [x, y]
    for along in (x, y):
        for turns in (0.25, 0.5):
            angle = 2 * math.pi * turns * along
            waves += [angle.sin(), angle.cos()]
    basis = torch.stack(waves, dim=1)
    mixed = (basis / basis.std(dim=0)) @ torch.randn(len(waves), width)
    return mixed / mixed.std() * _POSITION_SPREAD


def normalise(images: Tensor) -> Tensor:
    """RGB `(batch, 3, H, W)` in [0, 1] to the model's input, as the `clip` protocol does."""
    mean = torch.tensor(MEAN, device=images.device).view(3, 1, 1)
    std = torch.tensor(STD, device=images.device).view(3, 1, 1)
    return (images - mean) / std


def save_model(model: CLIP, config: dict[str, Any], vocabulary: Path, folder: Path) -> None:
    """Write a folder that `stablepref.load` opens: half-precision weights, configuration, words."""
    scorer = CLIPScorer(
        config,
        preprocess=Preprocess("clip", IMAGE_SIZE, mean=MEAN, std=STD),
        name="shapes-clip",
        preference_scale=None,
        vocabulary=vocabulary,
    )
    scorer.model.load_state_dict(model.state_dict())
    save_folder(scorer.half(), folder)
