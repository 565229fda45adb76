"""The named preprocessing protocols: what sets them apart, and their geometry.

| protocol | resize | then | used by |
| --- | --- | --- | --- |
| ``clip`` | PIL bicubic, shortest side | centre crop | CLIP, HPS v1, LAION aesthetic |
| ``imagereward`` | the same | the same | ImageReward, its BLIP baseline |
| ``pickscore`` | the same | centre crop, rounded down | PickScore |
| ``hps`` | tensor bicubic, longest side | black padding | HPS v2 and v2.1 |
| ``squash`` | PIL bicubic, both sides | | SigLIP, SigLIP 2, aesthetic predictor v2.5 |
| ``squash-bilinear`` | PIL bilinear, both sides | | CLIPA, PE |
| ``clip-bilinear`` | PIL bilinear, shortest side | centre crop | MobileCLIP |
"""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

# The constants of OpenAI's CLIP (openai/CLIP, clip/clip.py), which most models share.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Protocol:
    """What sets one protocol apart; see the module's table.

    Attributes:
        fit: Which side becomes the model's size: the shortest (the rest is cropped away), the
            longest (the rest is filled with black), or both (the picture's shape is lost).
        crop: Rounding of half a pixel in the centre crop: ``even`` as torchvision, ``down`` as
            transformers.
        clamp: Whether values stay in [0, 1] as in Pillow's 8-bit arithmetic. Without it the
            overshoot of bicubic resampling at sharp edges reaches the model.
        filter: How pixels are resampled.
    """

    fit: Literal["shortest", "longest", "both"]
    crop: Literal["even", "down"]
    clamp: bool
    filter: Literal["bicubic", "bilinear"] = "bicubic"


PROTOCOLS = MappingProxyType(
    {
        "clip": Protocol(fit="shortest", crop="even", clamp=True),
        "imagereward": Protocol(fit="shortest", crop="even", clamp=True),
        "pickscore": Protocol(fit="shortest", crop="down", clamp=True),
        "hps": Protocol(fit="longest", crop="even", clamp=False),
        "squash": Protocol(fit="both", crop="even", clamp=True),
        "squash-bilinear": Protocol(fit="both", crop="even", clamp=True, filter="bilinear"),
        "clip-bilinear": Protocol(fit="shortest", crop="even", clamp=True, filter="bilinear"),
    }
)


def fit_sides(sides: Tensor, size: int, protocol: Protocol) -> tuple[Tensor, Tensor]:
    """Resized sides, and where the model's window begins in them (negative: in the padding).

    Args:
        sides: Heights and widths in pixels, float64 ``(n, 2)``; fractions are allowed for boxes.
        size: Side of the window.
        protocol: The protocol.

    Returns:
        Two float64 tensors ``(n, 2)`` that hold integers.
    """
    if protocol.fit == "both":
        return torch.full_like(sides, size), torch.zeros_like(sides)
    if protocol.fit == "shortest":
        # As torchvision's Resize: the long side is cut to a whole number, not rounded. The last
        # term undoes rounding errors in the sides of fractional boxes, too small for whole sides.
        short = sides.amin(dim=1, keepdim=True)
        lengths = (size * sides / short + 1e-9).floor()
        spare = lengths - size
        # torch.round, as Python's, rounds halves to the even neighbour.
        offsets = (spare / 2).floor() if protocol.crop == "down" else (spare / 2).round()
        return lengths, offsets
    lengths = (sides * (size / sides.amax(dim=1, keepdim=True))).round()
    if bool((lengths < 1).any()):
        height, width = (float(n) for n in sides[(lengths < 1).any(dim=1)][0])
        raise ValueError(
            f"a picture or view of {width:g} x {height:g} has no pixels left at size {size}; crop "
            "it to a shape closer to a square first"
        )
    return lengths, -((size - lengths) / 2).floor()
