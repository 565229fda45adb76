"""A pipeline's denoiser, and what it predicts within a callback, as the step itself makes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

import torch
from torch import Tensor

from .families import family_of, find_family, trainable
from .load import dtype_argument
from .pipelines import refuse_offloading, require_pipeline, undistributed, unwrapped

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .pipelines import Pipeline

_TEXT: Final = ("text_encoder", "tokenizer")


def denoise(
    pipe: Any,  # noqa: ANN401 (diffusers has no types)
    latents: Tensor,
    timestep: Tensor,
    tensors: Mapping[str, Tensor],
) -> Tensor:
    """The denoiser's output within a callback, guided if the pipeline's call is.

    Args:
        pipe: A pipeline whose row has `conditions`, within its call.
        latents: `(batch, channels, h, w)`, as the denoiser sees them.
        timestep: One of the scheduler's timesteps.
        tensors: The conditions of the pipeline's row in `FAMILIES`, by name.

    Returns:
        Of the shape of the latents, in the denoiser's number type.
    """
    family = family_of(pipe)
    attention = {family.attention: getattr(pipe, family.attention)} if family.attention else {}
    return guided_output(
        pipe,
        latents.to(denoiser_of(pipe).dtype),
        timestep,
        {**attention, **family.inputs(tensors)},
        guidance=pipe.guidance_scale if pipe.do_classifier_free_guidance else None,
        rescale=getattr(pipe, "guidance_rescale", 0.0),
    )


def guided_output(
    pipe: object,
    latents: Tensor,
    timestep: Tensor,
    conditions: Mapping[str, Any],
    *,
    guidance: float | None,
    rescale: float = 0.0,
) -> Tensor:
    """The denoiser's output with classifier-free guidance (Ho and Salimans 2022).

    Args:
        pipe: A pipeline whose row has `conditions`.
        latents: `(batch, channels, h, w)`, as the scheduler scales them for the denoiser.
        timestep: One of the scheduler's timesteps.
        conditions: Other arguments of the network, under guidance with two rows for each picture,
            all of the negative prompts first.
        guidance: Scale; None for no guidance.
        rescale: Share of the guided output that gets the spread of the prompt's own (Lin et al.
            2024, section 3.4).

    Returns:
        Of the shape of the latents, in the denoiser's number type.
    """
    inputs = latents if guidance is None else torch.cat([latents] * 2)
    times = timestep.expand(len(inputs))
    network = denoiser_of(pipe)
    output: Tensor = network(inputs, timestep=times, **conditions, return_dict=False)[0]
    if guidance is None:
        return output
    without, text = output.chunk(2)
    guided = without + guidance * (text - without)
    if rescale <= 0:
        return guided
    own, wanted = (part.std(dim=(1, 2, 3), keepdim=True) for part in (guided, text))
    return guided * (rescale * wanted / own + 1 - rescale)


def check_denoisable(pipe: object) -> None:
    """Refuse a pipeline that the sampling loop does not know, or that lacks a part.

    Raises:
        TypeError: It is not a pipeline of `trainable()`.
        ValueError: It has no text encoder, weights in float16, or weights that are offloaded.
    """
    kind, family = type(pipe).__name__, find_family(pipe)
    if family is None or family.takes_pictures:
        msg = f"fine-tuning is for {', '.join(trainable())}; this is {kind}"
        if family is not None:
            msg += (
                "; train the text-to-image pipeline of the same model: its LoRA loads in this one"
            )
        raise TypeError(msg)
    require_pipeline(pipe)
    known = cast("Pipeline", pipe)
    parts: Mapping[str, Any] = known.components
    missing = [name for name in (*_TEXT, "vae", family.denoiser) if parts.get(name) is None]
    if missing:
        msg = f"the {kind} has no {', no '.join(missing)}; load it with all of its parts"
        raise ValueError(msg)
    refuse_offloading(known)
    if half := [n for n, part in parts.items() if getattr(part, "dtype", None) == torch.float16]:
        msg = (
            f"{', '.join(half)} of the pipeline is in float16, in which gradients vanish and "
            f"which a CPU hardly computes; load it with {dtype_argument()}=torch.bfloat16, or "
            "float32 on a CPU"
        )
        raise ValueError(msg)


def embeds_guidance(pipe: Pipeline) -> bool:
    """Whether the guidance scale is an input of the denoiser, as in consistency models."""
    config = getattr(unwrapped(pipe.components.get("unet")), "config", {})
    return config.get("time_cond_proj_dim") is not None


def denoiser_of(pipe: object) -> Any:  # noqa: ANN401 (diffusers has no types)
    """The network of a pipeline of `FAMILIES` that predicts noise, velocity or flow, to call it."""
    return undistributed(getattr(pipe, family_of(pipe).denoiser))
