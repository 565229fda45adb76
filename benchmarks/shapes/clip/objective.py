"""The losses of the laboratory's CLIP: contrast, and tasks that help it to see."""

import math
from typing import NamedTuple

import torch
from open_clip.model import CLIP
from torch import Tensor
from torch.nn import functional

from stablepref.models.clip import encode_tokens
from stablepref.runtime.precision import unit

from .batches import Batch, crop_pictures
from .model import normalise
from .patches import PatchHead, kind_loss, patch_kinds, patch_places, place_loss
from .scene_code import code_loss, describe_pictures, scene_codes


class Losses(NamedTuple):
    """One step's losses, scalars.

    Attributes:
        contrast: CLIP's symmetric cross-entropy (Radford et al. 2021, figure 3).
        pictures: `code_loss` of the picture features.
        prompts: `code_loss` of the prompt features.
        kinds: `kind_loss` of the patches.
        places: `place_loss` of the patches.
        top1: share of pictures that find their own prompt.
    """

    contrast: Tensor
    pictures: Tensor
    prompts: Tensor
    kinds: Tensor
    places: Tensor
    top1: Tensor

    def total(self, *, code_weight: float, patch_weight: float) -> Tensor:
        """What training minimises."""
        codes = (self.pictures + self.prompts) / 2
        return self.contrast + code_weight * codes + patch_weight * (self.kinds + self.places)


def batch_losses(model: CLIP, head: PatchHead, batch: Batch, *, precision: str) -> Losses:
    """The losses of a batch; features, logits and losses are float32 whatever the precision."""
    images = normalise(crop_pictures(batch.pictures.float() / 255, batch.crops))
    half = torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bf16")
    with half:
        pooled, patches = encode_pictures(model, images)
        features = [pooled, encode_tokens(model, batch.tokens)]
    seen, read = map(unit, features)
    logits = model.logit_scale.exp() * (seen @ read.T)
    read_kinds, read_places = head(patches.float())
    kinds = patch_kinds(batch.objects, math.isqrt(patches.shape[1]))
    described, shown = batch.descriptions, describe_pictures(batch.descriptions, batch.objects)
    own = torch.arange(len(logits), device=logits.device)
    return Losses(
        contrast=(functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own))
        / 2,
        pictures=code_loss(seen, scene_codes(shown, seen.shape[1])),
        prompts=code_loss(read, scene_codes(described, read.shape[1])),
        kinds=kind_loss(read_kinds, kinds),
        places=place_loss(read_places, patch_places(batch.objects, kinds), kinds),
        top1=(logits.argmax(dim=1) == own).float().mean(),
    )


def encode_pictures(model: CLIP, images: Tensor) -> tuple[Tensor, Tensor]:
    """The features `(batch, dim)` and the last block's patches `(batch, patches, width)`."""
    found = model.visual.forward_intermediates(
        images, indices=1, normalize_intermediates=True, output_fmt="NLC"
    )
    return found["image_features"], found["image_intermediates"][0]
