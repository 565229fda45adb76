"""A scorer whose scores can be worked out by hand: the mean of all pixel values, 0 to 1."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, final

import torch
from torch import Tensor, nn

from stablepref.preprocess.preprocess import Preprocess
from stablepref.scorer import Scorer


@final
class Brightness(Scorer):
    """`scale` x mean pixel value; of red alone where the prompt is "red"."""

    def __init__(
        self, scale: float = 1.0, *, unit: str = "brightness", name: str = "bright"
    ) -> None:
        super().__init__(
            name=name,
            unit=unit,
            preprocess=Preprocess("clip", 8, mean=(0, 0, 0), std=(1, 1, 1)),
            preference_scale=None,
        )
        self.scale = nn.Parameter(torch.tensor(float(scale)))

    def encode_inputs(self, inputs: Tensor) -> Tensor:
        return inputs.mean(dim=(2, 3))

    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        red = torch.tensor([1.0, 0.0, 0.0])
        every = torch.full((3,), 1 / 3)
        return torch.stack([red if prompt == "red" else every for prompt in prompts])

    def match(self, image_features: Tensor, prompt_features: Tensor) -> Tensor:
        return self.scale * (image_features * prompt_features).sum(dim=1)

    def config(self) -> dict[str, Any]:
        return {"scorer": "bright"}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], folder: Path) -> Self:
        raise NotImplementedError

    def save_files(self, folder: Path) -> None:
        raise NotImplementedError
