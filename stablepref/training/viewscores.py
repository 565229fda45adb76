"""A scorer as it is trained: pictures and weak views in, one score for each view out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stablepref.scorer import Scorer

TOGETHER: Final = 64 * 512 * 512
"""Pixels padded and preprocessed together: a batch of ordinary pictures, 200 MB in float32."""


@final
class ViewScores(nn.Module):
    """The module that distributed engines wrap: all encoding happens inside its `forward`.

    Args:
        scorer: The model.
    """

    def __init__(self, scorer: Scorer) -> None:
        super().__init__()
        self.scorer = scorer

    def forward(
        self, pixels: Sequence[Tensor], prompts: Sequence[str], boxes: Tensor, flips: Tensor
    ) -> Tensor:
        """Scores `(images, views)`, float32; each distinct prompt is encoded once.

        Preprocessing pads pictures to the largest: it takes them in runs of bounded memory, so
        that a single huge picture does not make every other one huge.

        Args:
            pixels: For each image uint8 or float in [0, 1], `(3, H, W)`, of any sizes.
            prompts: For each image its prompt.
            boxes: `(images, views, 4)`, fractions of width and height, on the CPU.
            flips: Bool `(images, views)`, on the CPU.
        """
        parts = [
            self._inputs(pixels[run.start : run.stop], boxes[run.start : run.stop],
                         flips[run.start : run.stop])
            for run in padded_together(pixels)
        ]  # fmt: skip
        inputs = parts[0] if len(parts) == 1 else torch.cat(parts)
        features = self.scorer.encode_inputs(inputs.flatten(0, 1))
        row = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}
        rows = [row[prompt] for prompt in prompts for _ in range(boxes.shape[1])]
        return self.scorer.match(features, self.scorer.encode_prompts(list(row))[rows]).view(
            boxes.shape[:2]
        )

    def _inputs(self, pixels: Sequence[Tensor], boxes: Tensor, flips: Tensor) -> Tensor:
        """Preprocessed views `(images, views, 3, S, S)`."""
        device = self.scorer.device
        pictures = [_as_float(picture.to(device, non_blocking=True)) for picture in pixels]
        return self.scorer.preprocess(pictures, boxes, flips)


def padded_together(pixels: Sequence[Tensor], most: int = TOGETHER) -> list[range]:
    """Runs of consecutive pictures that take at most `most` pixels when padded to equal sides.

    A picture that is larger alone is a run of its own.
    """
    runs: list[range] = []
    first = height = width = 0
    for index, picture in enumerate(pixels):
        height, width = max(height, picture.shape[1]), max(width, picture.shape[2])
        if index > first and height * width * (index + 1 - first) > most:
            runs.append(range(first, index))
            first, (height, width) = index, picture.shape[1:]
    return [*runs, range(first, len(pixels))]


def _as_float(picture: Tensor) -> Tensor:
    return picture if picture.is_floating_point() else picture.float().div_(255)
