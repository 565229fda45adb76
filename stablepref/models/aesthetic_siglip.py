"""Aesthetic predictor v2.5: a head on the image embeddings of SigLIP SO400M."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Self, final

from accelerate import init_empty_weights
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from stablepref.models.aesthetic import AestheticBase, MLPHead
from stablepref.models.convert import siglip_vision_to_timm
from stablepref.preprocess.preprocess import Preprocess
from stablepref.runtime.precision import unit
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
DROPOUTS: Final = (0.5, 0.5, 0.5, 0.2)
"""The official head's, which give its layers their numbers."""


@final
class SigLIPAestheticScorer(AestheticBase):
    """How pleasing an image is: about 1 to 10, 5.5 and more counts as good.

    Score = head(e / |e|), e the pooled image embedding of SigLIP.
    """

    kind = "aesthetic-siglip"

    def __init__(self, tower: Mapping[str, int], *, preprocess: Preprocess, name: str) -> None:
        """Build the model with random weights.

        Args:
            tower: Sizes of the image tower: image_size, patch_size, width, depth, heads, mlp_width.
            preprocess: Preprocessing at the image tower's size.
            name: What `stablepref.load` calls the model.
        """
        super().__init__(preprocess=preprocess, name=name)
        self.tower = dict(tower)
        self.visual = siglip_tower(**self.tower)
        self.head = MLPHead(self.tower["width"], DROPOUTS)

    def encode_inputs(self, inputs: Tensor) -> Tensor:
        """Unit vectors `(batch, width)`, float32, of normalised inputs `(batch, 3, S, S)`."""
        return unit(self.visual(inputs.to(self.dtype)))

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
