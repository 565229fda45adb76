"""LAION's aesthetic predictors: a linear head on the image embeddings of OpenAI's CLIP ViT-L/14."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Self, final

import torch
from accelerate import init_empty_weights
from open_clip.model import CLIP

from stablepref.models.heads import LinearHead, MLPHead
from stablepref.models.towers import encode_pixels
from stablepref.preprocess.preprocess import Preprocess
from stablepref.runtime.precision import unit
from stablepref.scorer import Scorer
from stablepref.weights.folder import assign_weights

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from stablepref.models.clip import CLIPScorer

HEADS: Final = {"linear": LinearHead, "mlp": MLPHead}
NAMES: Final = {"linear": "laion-aesthetic-v1", "mlp": "laion-aesthetic-v2"}


@final
class AestheticScorer(Scorer):
    """How pleasing an image is, whatever the prompt: about 1 to 10, learned from human ratings.

    Score = head(e / |e|), e the image embedding of the CLIP that the head was trained on. Prompts
    are taken, as by every scorer, and have no effect.
    """

    def __init__(
        self, backbone: Mapping[str, Any], *, head: str, preprocess: Preprocess, name: str
    ) -> None:
        """Build the model with random weights.

        Args:
            backbone: Keyword arguments of open_clip's `CLIP`, of which the image tower is kept.
            head: "linear" (LAION aesthetic v1) or "mlp" (v2).
            preprocess: Preprocessing at the image tower's size.
            name: What `stablepref.load` calls the model.

        Raises:
            ValueError: `head` is neither.
        """
        if head not in HEADS:
            msg = f"the head is {head!r}; expected one of {', '.join(map(repr, HEADS))}"
            raise ValueError(msg)
        super().__init__(
            name=name,
            unit="aesthetic rating (about 1 to 10)",
            preprocess=preprocess,
            preference_scale=None,
        )
        self.backbone = dict(backbone)
        self.head_kind = head
        self.visual = CLIP(**self.backbone).visual
        self.head = HEADS[head](self.backbone["embed_dim"])

    def encode_inputs(self, inputs: Tensor) -> Tensor:
        """Unit vectors `(batch, dim)`, float32, of normalised inputs `(batch, 3, S, S)`."""
        return unit(encode_pixels(self.visual, inputs))

    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Empty features `(batch, 0)`: the score does not depend on the prompt."""
        return torch.empty(len(prompts), 0, device=self.device)

    def match(self, image_features: Tensor, prompt_features: Tensor) -> Tensor:
        """Ratings `(batch,)`, computed in float32."""
        return self.head(image_features)

    def config(self) -> dict[str, Any]:
        """The JSON configuration that `from_config` reads."""
        return {
            "scorer": "aesthetic",
            "name": self.name,
            "head": self.head_kind,
            "protocol": self.protocol,
            "preprocess": self.preprocess.config(),
            "backbone": self.backbone,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], folder: Path) -> Self:
        """The model that `config` describes, its weights still to be loaded."""
        del folder  # it holds no other files
        return cls(
            config["backbone"],
            head=config["head"],
            preprocess=Preprocess(config["protocol"], **config["preprocess"]),
            name=config["name"],
        )

    def save_files(self, folder: Path) -> None:
        """Write nothing: the weights and the configuration are all."""


def build_aesthetic(
    head_state: Mapping[str, Tensor],
    clip: CLIPScorer,
    *,
    name: str | None = None,
    source: object = "the aesthetic head",
) -> AestheticScorer:
    """The scorer of an official head on the image tower of `clip`, which it shares.

    Args:
        head_state: State dict of LAION's file: "weight" and "bias" (v1), or "layers.0.weight" and
            so on (v2).
        clip: OpenAI's ViT-L/14, with its QuickGELU, for LAION's own heads.
        name: What `stablepref.load` calls the model; None for the name of the official one.
        source: What error messages call the state dict.

    Raises:
        WeightsError: Names the missing and unexpected keys, and shapes that differ, as for a head
            of another CLIP.
    """
    head = "linear" if "weight" in head_state else "mlp"
    prefix = "head.layer." if head == "linear" else "head."
    with init_empty_weights(include_buffers=False):
        scorer = AestheticScorer(
            clip.backbone, head=head, preprocess=clip.preprocess, name=name or NAMES[head]
        )
    scorer.visual = clip.model.visual
    names = {f"{prefix}{key}".removeprefix("head."): value for key, value in head_state.items()}
    assign_weights(scorer.head, names, source=source)
    return scorer.eval()
