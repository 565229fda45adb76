"""CycleReward: ImageReward's network with another head, trained on how well images fit texts."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final, final

from accelerate import init_empty_weights
from torch import nn

from stablepref.models.aesthetic import apply_wide
from stablepref.models.bert import read_vocabulary
from stablepref.models.blip import BLIPReader, check_sizes, sizes_of
from stablepref.models.convert import GELU_LAYERS, imagereward_to_ours
from stablepref.weights.files import assign_weights, read_weights

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from stablepref.models.entry import Entry

MAX_LENGTH: Final = 128
"""Tokens of every prompt, as `CycleReward.score` of the cyclereward package pads them."""


class GELUHead(nn.Module):
    """Five linear layers with GELU between them: width, 1024, 128, 64, 16, 1.

    Args:
        width: Width of the features.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        sizes = (width, 1024, 128, 64, 16)
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.GELU()]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], 1))

    def forward(self, features: Tensor) -> Tensor:
        """Numbers `(batch,)`, float32 or wider, of features `(batch, width)` of any float type."""
        return apply_wide(self.layers, features)


@final
class CycleRewardScorer(BLIPReader):
    """CycleReward (Bahng et al. 2025, arXiv:2506.02095): how well image and text tell each other.

    Score = head(BERT(prompt, image tokens)), without ImageReward's mean and deviation. It was
    trained by the sigmoid of differences, on pairs of which that one counts as preferred from which
    another model rebuilds the prompt, or the image, more closely; no person ranked them.
    """

    kind = "cyclereward"

    def __init__(
        self,
        vocabulary: Sequence[str],
        *,
        name: str = "cyclereward-combo",
        preference_scale: float | None = 1.0,
        vision_width: int = 1024,
        vision_depth: int = 24,
        text_width: int = 768,
        text_depth: int = 12,
    ) -> None:
        """Build the model with random weights.

        Args:
            vocabulary: Tokens of bert-base-uncased, or others of the same form.
            name: What `stablepref.load` calls the model.
            preference_scale: The factor that turns a difference of scores into log-odds.
            vision_width: Width of the vision transformer, a multiple of 64 as all widths.
            vision_depth: Number of its blocks.
            text_width: Width of BERT.
            text_depth: Number of its layers.

        Raises:
            ValueError: The vocabulary lacks BERT's special tokens, or a width is no multiple of 64.
        """
        super().__init__(
            vocabulary,
            name=name,
            unit="reward",
            preference_scale=preference_scale,
            max_length=MAX_LENGTH,
            vision_width=vision_width,
            vision_depth=vision_depth,
            text_width=text_width,
            text_depth=text_depth,
        )
        self.text = self.reading_text()
        self.head = GELUHead(text_width)

    def match(self, image_features: Tensor, prompt_features: Tensor) -> Tensor:
        """Rewards `(batch,)`; the head in float32."""
        return self.head(self.text(prompt_features, image_features))


def build_cyclereward(entry: Entry, files: Sequence[Path]) -> CycleRewardScorer:
    """The scorer of CycleReward's official file and BERT's vocabulary.

    Raises:
        WeightsError: Names the missing and unexpected keys, and shapes that differ.
        ValueError: The vocabulary cannot be used.
    """
    ours = imagereward_to_ours(read_weights(files[0]), source=files[0], layers=GELU_LAYERS)
    with init_empty_weights(include_buffers=False):
        scorer = CycleRewardScorer(read_vocabulary(files[1]), name=entry.name, **sizes_of(ours))
    assign_weights(scorer, ours, source=files[0])
    check_sizes(entry, scorer.config(), source=files[0])
    return scorer.eval()
