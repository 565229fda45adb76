"""The arithmetic of CLIP's towers, counted by torch on the meta device: nothing is computed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from open_clip.model import CLIP
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from stablepref.models.blip import IMAGE_SIZE, ImageRewardScorer

from ..parity.inputs import made_up_vocabulary

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class TowerFlops(NamedTuple):
    """Floating-point operations of a forward pass.

    Attributes:
        image: Of one image.
        text: Of one prompt, padded to the context length; 0 where each image reads its own.
    """

    image: int
    text: int


def tower_flops(sizes: Mapping[str, Any]) -> TowerFlops:
    """Operations of both towers, by `torch.utils.flop_counter`.

    It counts matrix products, attention and convolutions, a multiplication with its addition as
    two; norms, softmax and activations, under 1 %, are not counted.

    Args:
        sizes: open_clip's configuration: `embed_dim`, `vision_cfg` and `text_cfg`.
    """
    vision, text = sizes["vision_cfg"], sizes["text_cfg"]
    side, length = vision["image_size"], text.get("context_length", 77)
    with torch.device("meta"):
        model = CLIP(sizes["embed_dim"], {**vision}, {**text})
        pixels = torch.zeros(1, 3, side, side)
        tokens = torch.zeros(1, length, dtype=torch.long)
    return TowerFlops(
        _counted(lambda: model.visual(pixels)), _counted(lambda: model.encode_text(tokens))
    )


def imagereward_flops() -> TowerFlops:
    """Operations of ImageReward, whose text is read with each image, padded to 35 tokens.

    Counted as those of CLIP are, see `tower_flops`. Its head, under a thousandth, is left out.
    """
    with torch.device("meta"):
        model = ImageRewardScorer(made_up_vocabulary()).eval()
        pixels = torch.zeros(1, 3, IMAGE_SIZE, IMAGE_SIZE)

    def score() -> None:
        model.text(model.encode_prompts(["a red fox"]), model.encode_inputs(pixels))

    return TowerFlops(_counted(score), 0)


def training_flops(sizes: Mapping[str, Any], image_blocks: int | None) -> float:
    """Operations to train on one image or view: a forward pass, and two more where blocks train.

    Args:
        sizes: open_clip's configuration, see `tower_flops`.
        image_blocks: How many of the image tower's blocks train; None for all.
    """
    layers = sizes["vision_cfg"]["layers"]
    share = 1.0 if image_blocks is None else image_blocks / layers
    return tower_flops(sizes).image * (1 + 2 * share)


def _counted(run: Callable[[], object]) -> int:
    # Plain attention: the counter does not know every fused kernel.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()
