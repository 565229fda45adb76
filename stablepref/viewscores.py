"""A scorer as it is trained: pictures and weak views in, one score for each view out."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stablepref.scorer import Scorer


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

        Args:
            pixels: For each image uint8 or float in [0, 1], `(3, H, W)`, of any sizes.
            prompts: For each image its prompt.
            boxes: `(images, views, 4)`, fractions of width and height, on the CPU.
            flips: Bool `(images, views)`, on the CPU.
        """
        device = self.scorer.device
        pictures = [_as_float(picture.to(device, non_blocking=True)) for picture in pixels]
        inputs = self.scorer.preprocess(pictures, boxes, flips)
        features = self.scorer.encode_inputs(inputs.flatten(0, 1))
        row = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}
        rows = [row[prompt] for prompt in prompts for _ in range(boxes.shape[1])]
        return self.scorer.match(features, self.scorer.encode_prompts(list(row))[rows]).view(
            boxes.shape[:2]
        )


def _as_float(picture: Tensor) -> Tensor:
    return picture if picture.is_floating_point() else picture.float().div_(255)
