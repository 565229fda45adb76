"""The denoiser of a diffusers pipeline, called from a step callback as the step itself calls it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stablepref.integrations.candidates import Pipeline
    from torch import Tensor

# Tensors with a row (or, with guidance, two) for each picture, in diffusers 0.35 to 0.42: what a
# callback has to ask for.
STEP_TENSORS: Final = {
    "StableDiffusionPipeline": ["latents", "prompt_embeds"],
    "StableDiffusionXLPipeline": ["latents", "prompt_embeds", "add_text_embeds", "add_time_ids"],
    "StableDiffusion3Pipeline": ["latents", "prompt_embeds", "pooled_prompt_embeds"],
}


def embeds_guidance(pipe: Pipeline) -> bool:
    """Whether the guidance scale is an input of the denoiser, as in consistency models."""
    config = getattr(pipe.components.get("unet"), "config", {})
    return config.get("time_cond_proj_dim") is not None


def denoise(
    pipe: Any,  # noqa: ANN401 - diffusers is untyped
    latents: Tensor,
    timestep: Tensor,
    tensors: Mapping[str, Tensor],
) -> Tensor:
    """The denoiser's output, with classifier-free guidance if the pipeline's call uses it.

    Args:
        pipe: One of `STEP_TENSORS`, within its call.
        latents: `(batch, channels, h, w)`, as the denoiser sees them.
        timestep: One of the scheduler's timesteps.
        tensors: Those of `STEP_TENSORS` but for the latents.

    Returns:
        Of the shape of the latents, in the denoiser's number type.
    """
    guided = pipe.do_classifier_free_guidance
    inputs = torch.cat([latents] * 2) if guided else latents
    if "pooled_prompt_embeds" in tensors:
        inputs = inputs.to(pipe.transformer.dtype)
        output = pipe.transformer(
            hidden_states=inputs,
            timestep=timestep.expand(len(inputs)),
            encoder_hidden_states=tensors["prompt_embeds"],
            pooled_projections=tensors["pooled_prompt_embeds"],
            joint_attention_kwargs=pipe.joint_attention_kwargs,
            return_dict=False,
        )[0]
    else:
        added = None
        if "add_text_embeds" in tensors:
            added = {"text_embeds": tensors["add_text_embeds"], "time_ids": tensors["add_time_ids"]}
        output = pipe.unet(
            inputs.to(pipe.unet.dtype),
            timestep,
            encoder_hidden_states=tensors["prompt_embeds"],
            cross_attention_kwargs=pipe.cross_attention_kwargs,
            added_cond_kwargs=added,
            return_dict=False,
        )[0]
    return _guide(pipe, output) if guided else output


def _guide(pipe: Any, output: Tensor) -> Tensor:  # noqa: ANN401 - diffusers is untyped
    """Classifier-free guidance (Ho and Salimans 2022), rescaled if asked (Lin et al. 2024, 3.4)."""
    without, text = output.chunk(2)
    guided = without + pipe.guidance_scale * (text - without)
    rescale = getattr(pipe, "guidance_rescale", 0.0)
    if rescale <= 0:
        return guided
    own, wanted = (part.std(dim=(1, 2, 3), keepdim=True) for part in (guided, text))
    return guided * (rescale * wanted / own + 1 - rescale)
