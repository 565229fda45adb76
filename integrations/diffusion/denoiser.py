"""What a pipeline's denoiser predicts for prompts, outside of the pipeline's call, with gradients.

A pipeline's call runs under `no_grad`. Here are the two things of it that a sampling loop with
gradients needs: the conditions that it makes of prompts, and one prediction with guidance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast, final

import torch
from torch import Tensor

from .pipelines import refuse_offloading

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..best_of_n.candidates import Pipeline

DENOISERS: Final = {
    "StableDiffusionPipeline": "unet",
    "StableDiffusionXLPipeline": "unet",
    "StableDiffusion3Pipeline": "transformer",
}
"""Pipelines whose predictions are tested to be equal here, and what each calls its denoiser."""
_TEXT: Final = ("text_encoder", "tokenizer")


@final
class Denoiser:
    """The denoiser of a pipeline with classifier-free guidance (Ho and Salimans 2022).

    Attributes:
        module: The network.
        pipe: The pipeline.
        guidance: As below.

    Args:
        pipe: A pipeline that `check_denoisable` accepts.
        guidance: Scale; 1 or less predicts without guidance, as pipelines do.
        negative_prompt: What guidance leads away from; None for the pipeline's own, an empty text
            or, for SDXL, nothing.
    """

    def __init__(self, pipe: Any, *, guidance: float, negative_prompt: str | None = None) -> None:  # noqa: ANN401 (diffusers has no types)
        self.pipe = pipe
        self.module: Any = denoiser_of(pipe)
        self.guidance = guidance
        self._negative = negative_prompt
        self._kind = type(pipe).__name__

    @torch.no_grad()
    def conditions(self, prompts: Sequence[str], *, height: int, width: int) -> dict[str, Any]:
        """What the denoiser is told of a batch: under guidance of its negative prompts first.

        Args:
            prompts: One for each picture.
            height: Of the pictures, in pixels; SDXL is told it.
            width: Likewise.

        Returns:
            Arguments of the network, rows `(batch,)` or, under guidance, `(2 * batch,)`.
        """
        guided, negative = self.guidance > 1, None
        if guided and self._negative is not None:
            negative = [self._negative] * len(prompts)
        embedded = self.pipe.encode_prompt(
            prompt=list(prompts),
            device=self.pipe.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=guided,
            negative_prompt=negative,
            # The same text for each of its encoders.
            **dict.fromkeys(
                ("prompt_2", "prompt_3") if self._kind == "StableDiffusion3Pipeline" else ()
            ),
        )
        texts = _joined(embedded[:2], guided)
        if self._kind == "StableDiffusionPipeline":
            return {"encoder_hidden_states": texts}
        pooled = _joined(embedded[2:], guided)
        if self._kind == "StableDiffusion3Pipeline":
            return {"encoder_hidden_states": texts, "pooled_projections": pooled}
        # Size, upper left corner of the crop, and size wanted (SDXL, Podell et al. 2023, 2.2).
        sizes = torch.tensor([[height, width, 0, 0, height, width]]).to(texts)
        added = {"text_embeds": pooled, "time_ids": sizes.repeat(len(texts), 1)}
        return {"encoder_hidden_states": texts, "added_cond_kwargs": added}

    def __call__(self, latents: Tensor, timestep: Tensor, conditions: Mapping[str, Any]) -> Tensor:
        """The prediction `(batch, channels, h, w)` for latents as the scheduler scales them."""
        guidance = self.guidance if self.guidance > 1 else None
        return guided_output(self.pipe, latents, timestep, conditions, guidance=guidance)


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
        pipe: A pipeline of `DENOISERS`.
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
    network = denoiser_of(pipe)
    if DENOISERS[type(pipe).__name__] == "transformer":
        times = timestep.expand(len(inputs))
        (made,) = network(hidden_states=inputs, timestep=times, **conditions, return_dict=False)
    else:
        (made,) = network(inputs, timestep, **conditions, return_dict=False)
    output: Tensor = made
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
        TypeError: It is no pipeline of `DENOISERS`.
        ValueError: It has no text encoder, weights in float16, weights that are offloaded, or a
            guidance scale that its denoiser takes as an input.
    """
    kind = type(pipe).__name__
    if kind not in DENOISERS:
        msg = f"fine-tuning is for {', '.join(DENOISERS)}; this is {kind}"
        raise TypeError(msg)
    parts: Mapping[str, Any] = getattr(pipe, "components", {})
    missing = [name for name in (*_TEXT, "vae", DENOISERS[kind]) if parts.get(name) is None]
    if missing:
        msg = f"the {kind} has no {', no '.join(missing)}; load it with all of its parts"
        raise ValueError(msg)
    refuse_offloading(cast("Pipeline", pipe))
    if half := [n for n, part in parts.items() if getattr(part, "dtype", None) == torch.float16]:
        msg = (
            f"{', '.join(half)} of the pipeline is in float16, in which gradients vanish and "
            "which a CPU hardly computes; load it with torch_dtype=torch.bfloat16, or float32 on "
            "a CPU"
        )
        raise ValueError(msg)
    if embeds_guidance(cast("Pipeline", pipe)):
        msg = "the denoiser takes the guidance scale as an input, which is not supported"
        raise ValueError(msg)


def embeds_guidance(pipe: Pipeline) -> bool:
    """Whether the guidance scale is an input of the denoiser, as in consistency models."""
    config = getattr(pipe.components.get("unet"), "config", {})
    return config.get("time_cond_proj_dim") is not None


def denoiser_of(pipe: object) -> Any:  # noqa: ANN401 (diffusers has no types)
    """The network of a pipeline of `DENOISERS` that predicts noise, velocity or flow."""
    return getattr(pipe, DENOISERS[type(pipe).__name__])


def _joined(embedded: Sequence[Tensor | None], guided: bool) -> Tensor:
    """The texts' embeddings, under guidance behind those of the negative ones."""
    positive, negative = embedded
    assert positive is not None
    if not guided:
        return positive
    assert negative is not None
    return torch.cat([negative, positive])
