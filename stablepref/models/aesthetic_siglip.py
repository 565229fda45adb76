"""Aesthetic predictor v2.5: a head on the image embeddings of SigLIP SO400M."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Self, final

import torch
from accelerate import init_empty_weights
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from stablepref.models.aesthetic import apply_wide
from stablepref.models.convert import siglip_vision_to_timm
from stablepref.preprocess.preprocess import Preprocess
from stablepref.runtime.precision import unit
from stablepref.scorer import Scorer
from stablepref.weights.files import assign_weights, read_weights

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from stablepref.models.entry import Entry

HALF: Final = (0.5, 0.5, 0.5)
"""Mean and standard deviation of SigLIP's pixels."""
OFFICIAL_PREFIX: Final = "scoring_head."
EPSILON: Final = 1e-6


class DropoutHead(nn.Module):
    """Five linear layers without activations between them: width, 1024, 128, 64, 16, 1.

    The dropouts, which act in training mode only, give the layers the numbers of the official file.

    Args:
        width: Width of the features.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, 1024),
            nn.Dropout(0.5),
            nn.Linear(1024, 128),
            nn.Dropout(0.5),
            nn.Linear(128, 64),
            nn.Dropout(0.5),
            nn.Linear(64, 16),
            nn.Dropout(0.2),
            nn.Linear(16, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Numbers `(batch,)`, float32 or wider, of features `(batch, width)` of any float type."""
        return apply_wide(self.layers, features)


@final
class SigLIPAestheticScorer(Scorer):
    """How pleasing an image is, whatever the prompt: about 1 to 10, 5.5 and more counts as good.

    Score = head(e / |e|), e the pooled image embedding of SigLIP. Prompts are accepted, as by every
    scorer, and have no effect.
    """

    kind = "aesthetic-siglip"
    needs_prompt = False
    preprocess: Preprocess

    def __init__(self, tower: Mapping[str, int], *, preprocess: Preprocess, name: str) -> None:
        """Build the model with random weights.

        Args:
            tower: Sizes of the image tower: image_size, patch_size, width, depth, heads, mlp_width.
            preprocess: Preprocessing at the image tower's size.
            name: What `stablepref.load` calls the model.
        """
        super().__init__(
            name=name,
            unit="aesthetic rating (about 1 to 10)",
            preprocess=preprocess,
            preference_scale=None,
        )
        self.tower = dict(tower)
        self.visual = siglip_tower(**self.tower)
        self.head = DropoutHead(self.tower["width"])

    def encode_inputs(self, inputs: Tensor) -> Tensor:
        """Unit vectors `(batch, width)`, float32, of normalised inputs `(batch, 3, S, S)`."""
        return unit(self.visual(inputs.to(self.dtype)))

    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Empty features `(batch, 0)`: the score does not depend on the prompt."""
        return torch.empty(len(prompts), 0, device=self.device)

    def match(self, image_features: Tensor, prompt_features: Tensor) -> Tensor:
        """Ratings `(batch,)`, computed in float32."""
        return self.head(image_features)

    def config(self) -> dict[str, Any]:
        """The JSON configuration that `from_config` reads."""
        return {
            "scorer": self.kind,
            "name": self.name,
            "protocol": self.protocol,
            "preprocess": self.preprocess.config(),
            "tower": self.tower,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], folder: Path) -> Self:
        """The model that `config` describes, its weights still to be loaded."""
        del folder  # it holds no other files
        preprocess = Preprocess(config["protocol"], **config["preprocess"])
        return cls(config["tower"], preprocess=preprocess, name=config["name"])

    def save_files(self, folder: Path) -> None:
        """Write nothing: the weights and the configuration are all."""


def siglip_tower(
    *, image_size: int, patch_size: int, width: int, depth: int, heads: int, mlp_width: int
) -> VisionTransformer:
    """SigLIP's image tower as transformers has it: GELU by its tanh form, pooled by attention."""
    tower = VisionTransformer(
        img_size=image_size,
        patch_size=patch_size,
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        mlp_ratio=(mlp_width + 0.5) / width,  # timm cuts the product to a whole number
        class_token=False,
        global_pool="map",
        num_classes=0,
        norm_layer=lambda size, **where: nn.LayerNorm(size, eps=EPSILON, **where),
    )
    for block in (*tower.blocks, tower.attn_pool):
        block.mlp.act = nn.GELU(approximate="tanh")
    return tower


def build_siglip_aesthetic(entry: Entry, files: Sequence[Path]) -> SigLIPAestheticScorer:
    """The scorer of the official head and of SigLIP's file with transformers' names.

    Raises:
        WeightsError: Names the missing and unexpected keys, and shapes that differ.
    """
    preprocess = Preprocess(entry.protocol, entry.sizes["image_size"], mean=HALF, std=HALF)
    with init_empty_weights(include_buffers=False):
        scorer = SigLIPAestheticScorer(entry.sizes, preprocess=preprocess, name=entry.name)
    visual = siglip_vision_to_timm(read_weights(files[1]), source=files[1])
    assign_weights(scorer.visual, visual, source=files[1])
    head = {
        f"layers.{key.removeprefix(OFFICIAL_PREFIX)}": value
        for key, value in read_weights(files[0]).items()
    }
    assign_weights(scorer.head, head, source=files[0])
    return scorer.eval()
