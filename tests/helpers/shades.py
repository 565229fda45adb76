"""A scorer whose scores are known without running it, and ranked groups for it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import torch
from PIL import Image
from torch import Tensor, nn

from stablepref.data.groups import RankedGroup
from stablepref.preprocess.preprocess import Preprocess
from stablepref.scorer import Scorer


@final
class ShadeScorer(Scorer):
    """The mean grey value of the right half, from 0 to 255; twice that for the prompt "double"."""

    def __init__(self, *, name: str = "shade", preference_scale: float | None = 1.0) -> None:
        super().__init__(
            name=name,
            unit="grey value",
            preprocess=Preprocess("clip", 8),
            preference_scale=preference_scale,
        )
        self.weight = nn.Parameter(torch.tensor(255.0))
        self.encoded = 0

    def encode_inputs(self, inputs: Tensor) -> Tensor:
        self.encoded += len(inputs)
        pixels = inputs * self.preprocess.std + self.preprocess.mean
        return self.weight * pixels[:, :, :, 4:].mean(dim=(1, 2, 3))[:, None]

    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        return torch.tensor([[1.0 + (prompt == "double")] for prompt in prompts])

    def match(self, image_features: Tensor, prompt_features: Tensor) -> Tensor:
        return (image_features * prompt_features)[:, 0]

    def config(self) -> dict[str, Any]:
        raise NotImplementedError

    @classmethod
    def from_config(cls, config: Mapping[str, Any], folder: Path) -> Scorer:
        raise NotImplementedError

    def save_files(self, folder: Path) -> None:
        raise NotImplementedError


def shade(value: int, left: int | None = None) -> Image.Image:
    """A flat grey picture of 8 x 8, its left half perhaps of another grey."""
    image = Image.new("RGB", (8, 8), (value, value, value))
    if left is not None:
        image.paste((left, left, left), (0, 0, 4, 8))
    return image


def shades(
    prompt: str,
    values: Sequence[int],
    ranks: Sequence[float],
    annotations: Sequence[tuple[float, ...]] = (),
) -> RankedGroup:
    """A group of flat grey pictures."""
    pictures = tuple(map(shade, values))
    return RankedGroup(prompt, pictures, tuple(ranks), annotations=tuple(annotations))


# Three groups worked by hand. The scorer prefers the brighter picture.
HAND = [
    # All three untied pairs right.
    shades("p", (30, 20, 10), (1, 2, 3), [(1, 2, 3), (1, 2, 3), (1, 3, 2)]),
    # (0, 1) tied by people; (0, 2) wrong; (1, 2) tied by the scorer.
    shades("q", (40, 50, 50), (1, 1, 2), [(1, 2, 3), (2, 1, 3), (1, 2, 3)]),
    # One pair, wrong.
    shades("r", (1, 2), (1, 2), [(1, 2), (1, 2), (2, 1)]),
]
