"""The denoiser of a diffusers pipeline, called from a step callback as the step itself calls it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from .denoiser import denoiser_of, guided_output

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

# Tensors with a row (or, with guidance, two) for each picture, in diffusers 0.35 to 0.42: what a
# callback has to ask for.
STEP_TENSORS: Final = {
    "StableDiffusionPipeline": ["latents", "prompt_embeds"],
    "StableDiffusionXLPipeline": ["latents", "prompt_embeds", "add_text_embeds", "add_time_ids"],
    "StableDiffusion3Pipeline": ["latents", "prompt_embeds", "pooled_prompt_embeds"],
}


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
    network = denoiser_of(pipe)
    conditions: dict[str, Any] = {"encoder_hidden_states": tensors["prompt_embeds"]}
    if "pooled_prompt_embeds" in tensors:
        conditions["pooled_projections"] = tensors["pooled_prompt_embeds"]
        conditions["joint_attention_kwargs"] = pipe.joint_attention_kwargs
    else:
        conditions["cross_attention_kwargs"] = pipe.cross_attention_kwargs
    if "add_text_embeds" in tensors:
        conditions["added_cond_kwargs"] = {
            "text_embeds": tensors["add_text_embeds"],
            "time_ids": tensors["add_time_ids"],
        }
    return guided_output(
        pipe,
        latents.to(network.dtype),
        timestep,
        conditions,
        guidance=pipe.guidance_scale if pipe.do_classifier_free_guidance else None,
        rescale=getattr(pipe, "guidance_rescale", 0.0),
    )
