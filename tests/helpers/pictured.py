"""Tiny pipelines that take a picture beside the prompt: image-to-image and ControlNets."""

import inspect

import diffusers
import torch
from diffusers import DiffusionPipeline, LCMScheduler
from PIL import Image

from helpers.small_vae import vae
from helpers.tiny_controlnets import controlnet
from helpers.tiny_pipelines import build, sana_transformer, sd3_transformer, unet

PICTURE = Image.effect_noise((32, 32), 80).convert("RGB")
MASK = Image.new("L", (32, 32), 0)
MASK.paste(255, (8, 8, 24, 24))
_KINDS = {
    "StableDiffusionXL": "sdxl",
    "StableDiffusion3": "sd3",
    "Flux": "flux",
    "QwenImage": "qwen",
    "Sana": "sana",
    "ZImage": "z-image",
}


def kind_of(name: str) -> str:
    """The kind of tiny pipeline whose parts a class is made of."""
    return next((kind for start, kind in _KINDS.items() if name.startswith(start)), "sd")


def with_pictures(name: str) -> tuple[DiffusionPipeline, dict[str, object]]:
    """A tiny pipeline that takes pictures, and the arguments of a short run."""
    kind = kind_of(name)
    base, arguments = build(kind)
    parts = dict(base.components)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        if "ControlNet" in name:
            parts["controlnet"] = controlnet(kind)
        if "ControlNet" in name and kind == "sd3":  # whose last block takes nothing of it
            parts["transformer"] = sd3_transformer(4, layers=2).eval()
        if "ControlNet" in name and kind == "sana":  # whose first block takes nothing of it
            parts["transformer"] = sana_transformer(layers=2).eval()
        if name == "StableDiffusion3ControlNetInpaintingPipeline":
            parts["controlnet"] = controlnet("sd3 inpainting")
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
    wanted = {
        **arguments,
        "image": PICTURE,
        "control_image": PICTURE.rotate(90),
        "mask_image": MASK,
        "control_mask": MASK,
        "num_inference_steps": 4,
        "original_inference_steps": 20,
        "strength": 0.7,
    }
    pipe = made(**parts)
    return pipe, {argument: value for argument, value in wanted.items() if argument in call}
