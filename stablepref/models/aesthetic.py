"""LAION's aesthetic predictors: a head on the image embeddings of OpenAI's CLIP ViT-L/14.

The heads turn a feature into a number in float32; ImageReward has the same one.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, Self, final

import torch
from accelerate import init_empty_weights
from torch import nn
from torch.nn import functional

from stablepref.models.backbone import clip_network
from stablepref.models.clip import build_clip, encode_pixels
from stablepref.preprocess.preprocess import Preprocess
from stablepref.runtime.precision import unit, widen
from stablepref.scorer import Scorer
from stablepref.weights.files import assign_weights, read_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from stablepref.models.clip import CLIPScorer
    from stablepref.models.entry import Entry


class MLPHead(nn.Module):
    """Five linear layers without activations between them: width, 1024, 128, 64, 16, 1.

    The head of LAION aesthetic v2, of ImageReward and, with other dropouts, of aesthetic v2.5. The
    dropouts act in training mode only; with them layers have the numbers of the official files.

    Args:
        width: Width of the features.
        dropouts: Probabilities after the first layers.
    """

    def __init__(self, width: int, dropouts: Sequence[float] = (0.2, 0.2, 0.1)) -> None:
        super().__init__()
        widths = (width, 1024, 128, 64, 16, 1)
        layers: list[nn.Module] = []
        for number, (before, after) in enumerate(pairwise(widths)):
            layers.append(nn.Linear(before, after))
            if number < len(dropouts):
                layers.append(nn.Dropout(dropouts[number]))
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """Numbers `(batch,)`, float32 or wider, of features `(batch, width)` of any float type."""
        return apply_wide(self.layers, features)


class LinearHead(nn.Module):
    """One linear layer: the head of LAION aesthetic v1.

    Args:
        width: Width of the features.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Numbers `(batch,)`, float32 or wider, of features `(batch, width)` of any float type."""
        return apply_wide([self.layer], features)


def apply_wide(layers: Iterable[nn.Module], x: Tensor) -> Tensor:
    """Numbers `(batch,)` of the layers, run in float32 or wider, whatever the weights are in."""
    x = widen(x)
    with torch.autocast(x.device.type, enabled=False):
        for layer in layers:
            if isinstance(layer, nn.Linear):
                x = functional.linear(x, layer.weight.to(x.dtype), layer.bias.to(x.dtype))
            else:
                x = layer(x)
    return x.squeeze(-1)


class AestheticBase(Scorer):
    """How pleasing an image is, whatever the prompt: a head on the feature of an image tower.

    Prompts are accepted, as by every scorer, and have no effect. Subclasses are final.

    Attributes:
        head: Turns features `(batch, width)` into ratings `(batch,)`.
    """

    needs_prompt = False
    preprocess: Preprocess
    head: nn.Module

    def __init__(self, *, preprocess: Preprocess, name: str) -> None:
        super().__init__(
            name=name,
            unit="aesthetic rating (about 1 to 10)",
            preprocess=preprocess,
            preference_scale=None,
        )

    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Empty features `(batch, 0)`: the score does not depend on the prompt."""
        return torch.empty(len(prompts), 0, dtype=torch.float32, device=self.device)

    def match(self, image_features: Tensor, prompt_features: Tensor) -> Tensor:
        """Ratings `(batch,)`, computed in float32."""
        ratings: Tensor = self.head(image_features)
        return ratings

    def save_files(self, folder: Path) -> None:
        """Write nothing: the weights and the configuration are all."""


HEADS: Final[dict[str, Callable[[int], nn.Module]]] = {"linear": LinearHead, "mlp": MLPHead}
NAMES: Final = {"linear": "laion-aesthetic-v1", "mlp": "laion-aesthetic-v2"}


@final
class AestheticScorer(AestheticBase):
    """How pleasing an image is: about 1 to 10, learned from human ratings.

    Score = head(e / |e|), e the image embedding of the CLIP that the head was trained on.
    """

    kind = "aesthetic"

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
        super().__init__(preprocess=preprocess, name=name)
        self.backbone = dict(backbone)
        self.head_kind = head
        self.visual = clip_network(self.backbone).visual
        self.head = HEADS[head](self.backbone["embed_dim"])

    def encode_inputs(self, inputs: Tensor) -> Tensor:
        """Unit vectors `(batch, dim)`, float32, of normalised inputs `(batch, 3, S, S)`."""
        return unit(encode_pixels(self.visual, inputs))

    def config(self) -> dict[str, Any]:
        """The JSON configuration that `from_config` reads."""
        return {
            "scorer": self.kind,
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


def build_aesthetic(entry: Entry, files: Sequence[Path]) -> AestheticScorer:
    """The scorer of an official head and of the CLIP that it was trained on."""
    clip = build_clip(entry, files[1:])
    return with_head(clip, read_weights(files[0]), name=entry.name, source=files[0])


def with_head(
    clip: CLIPScorer,
    head_state: Mapping[str, Tensor],
    *,
    name: str | None = None,
    source: object = "the aesthetic head",
) -> AestheticScorer:
    """The scorer of an official head on the image tower of `clip`, which it shares.

    Args:
        clip: OpenAI's ViT-L/14, with its QuickGELU, for LAION's own heads.
        head_state: State dict of LAION's file: "weight" and "bias" (v1), or "layers.0.weight" and
            so on (v2).
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
