"""What the laboratory's CLIP is trained on: contrast, and second tasks that help it to see."""

import math
from typing import Any, NamedTuple

import torch
from open_clip.model import CLIP
from torch import Tensor, nn
from torch.nn import functional

from stablepref.towers import encode_tokens
from stablepref.wide import unit

from .auxiliary import PatchHead, SceneHead, patch_loss, patch_targets, picture_targets, scene_loss
from .batches import Batch, crop_pictures
from .model import normalise


class Losses(NamedTuple):
    """One step's losses, scalars.

    Attributes:
        contrast: CLIP's symmetric cross-entropy (Radford et al. 2021, figure 3).
        pictures: what the picture features say of the scene.
        prompts: what the prompt features say of it.
        patches: what the patches say.
        top1: share of pictures that find their own prompt.
    """

    contrast: Tensor
    pictures: Tensor
    prompts: Tensor
    patches: Tensor
    top1: Tensor

    def total(self, *, scene_weight: float, patch_weight: float) -> Tensor:
        """What training lowers."""
        scene = (self.pictures + self.prompts) / 2
        return self.contrast + scene_weight * scene + patch_weight * self.patches


class Heads(nn.Module):
    """The second tasks' heads, thrown away after training."""

    def __init__(self, backbone: dict[str, Any]) -> None:
        super().__init__()
        self.scene = SceneHead(backbone["embed_dim"])
        self.patch = PatchHead(backbone["vision_cfg"]["width"])


def batch_losses(model: CLIP, heads: Heads, batch: Batch, *, precision: str) -> Losses:
    """The losses of a batch; features, logits and losses are float32 whatever the precision."""
    images = normalise(crop_pictures(batch.pictures.float() / 255, batch.crops))
    half = torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bf16")
    with half:
        pooled, patches = encode_pictures(model, images)
        features = [pooled, encode_tokens(model, batch.tokens)]
    seen, read = map(unit, features)
    logits = model.logit_scale.exp() * (seen @ read.T)
    own = torch.arange(len(logits), device=logits.device)
    return Losses(
        contrast=(functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own))
        / 2,
        pictures=scene_loss(heads.scene(seen), picture_targets(batch.targets, batch.objects)),
        prompts=scene_loss(heads.scene(read), batch.targets),
        patches=patch_loss(
            heads.patch(patches.float()),
            patch_targets(batch.objects, math.isqrt(patches.shape[1])),
        ),
        top1=(logits.argmax(dim=1) == own).float().mean(),
    )


def encode_pictures(model: CLIP, images: Tensor) -> tuple[Tensor, Tensor]:
    """The features `(batch, dim)` and the last block's patches `(batch, patches, width)`."""
    found = model.visual.forward_intermediates(
        images, indices=1, normalize_intermediates=True, output_fmt="NLC"
    )
    return found["image_features"], found["image_intermediates"][0]
