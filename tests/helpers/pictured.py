"""Tiny pipelines that take a picture beside the prompt: image-to-image and ControlNets."""

import inspect

import diffusers
import torch
from diffusers import ControlNetModel, DiffusionPipeline, LCMScheduler
from PIL import Image

from helpers.small_vae import vae
from helpers.tiny_pipelines import build, sd3_transformer, unet

PICTURE = Image.effect_noise((32, 32), 80).convert("RGB")


def with_pictures(name: str, kind: str) -> tuple[DiffusionPipeline, dict[str, object]]:
    """A tiny pipeline that takes pictures, and the arguments of a short run."""
    base, arguments = build(kind)
    parts = dict(base.components)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        if "ControlNet" in name:
            parts["controlnet"] = controlnet(kind)
        if name == "StableDiffusion3InpaintPipeline":  # for 16 channels only
            parts |= {
                "vae": vae(16, shift_factor=0.06, scaling_factor=1.5).eval(),
                "transformer": sd3_transformer(16).eval(),
            }
        if name.startswith("Latent"):  # its guidance is an input
            config = {"cross_attention_dim": 32, "attention_head_dim": 4}
            parts["unet"] = unet(**config, time_cond_proj_dim=32).eval()
            parts["scheduler"] = LCMScheduler(beta_schedule="scaled_linear")
    made = getattr(diffusers, name)
    takes = inspect.signature(made.__init__).parameters
    parts = {part: value for part, value in parts.items() if part in takes}
    if "requires_safety_checker" in takes:
        parts["requires_safety_checker"] = False
    call = inspect.signature(made.__call__).parameters
    wanted = {**arguments, "image": PICTURE, "num_inference_steps": 4, "strength": 0.7}
    pipe = made(**parts)
    return pipe, {argument: value for argument, value in wanted.items() if argument in call}


def controlnet(kind: str) -> ControlNetModel:
    """A ControlNet whose weights, which are zero before training, are not."""
    xl = {
        "cross_attention_dim": 64,
        "attention_head_dim": (2, 4),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "transformer_layers_per_block": (1, 1),
        "projection_class_embeddings_input_dim": 80,
    }
    control = ControlNetModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        in_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        conditioning_embedding_out_channels=(8,),
        norm_num_groups=4,
        **(xl if kind == "sdxl" else {"cross_attention_dim": 32, "attention_head_dim": 4}),
    )
    for block in [*control.controlnet_down_blocks, control.controlnet_cond_embedding.conv_out]:
        torch.nn.init.normal_(block.weight)
    # Its pictures are halved as by this VAE, not by eight.
    control.controlnet_cond_embedding.conv_in.stride = (2, 2)
    return control.eval()
