"""ControlNets with random weights, for the tiny pipelines of each kind."""

from collections.abc import Callable
from functools import partial

import torch
from diffusers import (
    ControlNetModel,
    FluxControlNetModel,
    QwenImageControlNetModel,
    SanaControlNetModel,
    SD3ControlNetModel,
)
from diffusers.models.controlnets.controlnet_z_image import ZImageControlNetModel
from torch import nn

from helpers.tiny_pipelines import FLUX, SANA, SDXL_UNET
from helpers.tiny_transformers import QWEN


def controlnet(kind: str) -> nn.Module:
    """A ControlNet whose weights, which are zero before training, are not."""
    control = MADE[kind]()
    for weight in control.parameters():
        if weight.ndim > 1 and not weight.any():
            torch.nn.init.normal_(weight)
    return control.eval()


def of_unet(**config: object) -> ControlNetModel:
    """Stable Diffusion's: its pictures are halved as by the small VAE, not by eight."""
    control = ControlNetModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        in_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        conditioning_embedding_out_channels=(8,),
        norm_num_groups=4,
        **config,
    )
    control.controlnet_cond_embedding.conv_in.stride = (2, 2)
    return control


def sd() -> ControlNetModel:
    """Stable Diffusion 1.x."""
    return of_unet(cross_attention_dim=32, attention_head_dim=4)


def sdxl() -> ControlNetModel:
    """Stable Diffusion XL."""
    return of_unet(**SDXL_UNET)


def sd3(extra_channels: int = 0) -> SD3ControlNetModel:
    """Stable Diffusion 3; for inpainting it gets the mask as a channel more."""
    return SD3ControlNetModel(
        sample_size=16,
        patch_size=1,
        in_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=32,
        caption_projection_dim=32,
        pooled_projection_dim=64,
        out_channels=4,
        extra_conditioning_channels=extra_channels,
    )


def flux() -> FluxControlNetModel:
    """Flux."""
    return FluxControlNetModel(**FLUX)


def qwen() -> QwenImageControlNetModel:
    """Qwen-Image."""
    return QwenImageControlNetModel(**QWEN)


def sana() -> SanaControlNetModel:
    """Sana."""
    return SanaControlNetModel(**SANA, num_layers=1)


def z_image() -> ZImageControlNetModel:
    """Z-Image: it has the transformer's own embedders."""
    return ZImageControlNetModel(
        control_layers_places=[0],
        control_refiner_layers_places=[0],
        control_in_dim=4,
        dim=32,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
    )


MADE: dict[str, Callable[[], nn.Module]] = {
    "sd": sd,
    "sdxl": sdxl,
    "sd3": sd3,
    "flux": flux,
    "qwen": qwen,
    "sana": sana,
    "z-image": z_image,
    "sd3 inpainting": partial(sd3, extra_channels=1),
}
