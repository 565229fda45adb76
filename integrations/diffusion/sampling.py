"""The sampling of a text-to-image pipeline, with gradients through its last steps.

For equal noise it makes the latents that the pipeline's call makes (tested, for each scheduler of
`SCHEDULERS`), on a scheduler of its own: the pipeline's is left as it is.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, final

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .denoiser import Denoiser, check_denoisable
from .families import family_of
from .x0 import FLOW_MATCHING, SCHEDULERS, another_scheduler, predict_x0

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@final
class SamplingLoop:
    """Pictures' latents of prompts, as `pipe(prompts, generator=..., output_type="latent")`.

    Attributes:
        pipe: The pipeline.
        denoiser: Its denoiser, with guidance.
        steps: Denoising steps.
        size: Height and width of the pictures in pixels.

    Args:
        pipe: A Stable Diffusion 1.x, 2.x, XL or 3 pipeline.
        steps: Denoising steps.
        guidance: Scale of classifier-free guidance; 1 or less for none.
        negative_prompt: What not to make.
        height: Of the pictures, in pixels; None for the pipeline's own.
        width: Of the pictures, in pixels; None for the pipeline's own.
        checkpointing: Keep no activations of the denoiser where there is a gradient, and compute
            them again in the backward pass.

    Raises:
        TypeError: It is another kind of pipeline.
        ValueError: The pipeline lacks a part or is in float16, or its scheduler, or a setting of
            it, is not supported (see `check_scheduler`), or cannot make that number of steps.
    """

    def __init__(
        self,
        pipe: Any,  # noqa: ANN401 (diffusers has no types)
        *,
        steps: int,
        guidance: float = 7.5,
        negative_prompt: str | None = None,
        height: int | None = None,
        width: int | None = None,
        checkpointing: bool = False,
    ) -> None:
        check_denoisable(pipe)
        check_scheduler(pipe.scheduler)
        self.pipe = pipe
        self.denoiser = Denoiser(pipe, guidance=guidance, negative_prompt=negative_prompt)
        self.steps = steps
        self.size = self._own_size(height, width)
        self.checkpointing = checkpointing
        self.scheduler()  # refuses a number of steps that it cannot make

    def sample(
        self,
        prompts: Sequence[str],
        generators: Sequence[torch.Generator],
        *,
        last_steps: int = 0,
    ) -> Tensor:
        """Latents `(batch, channels, h, w)` of pictures, scaled as pipelines give them.

        Args:
            prompts: One for each picture.
            generators: Of all noise of each picture.
            last_steps: Sampling steps with a gradient, counted from the end (DRaFT-K, Clark et al.
                2023): 0 for none, `steps` for all.
        """
        scheduler = self.scheduler()
        latents = self.noise(generators, scheduler)
        conditions = self.conditions(prompts)
        first = self.steps - last_steps
        for step in range(self.steps):
            with torch.set_grad_enabled(step >= first and torch.is_grad_enabled()):
                latents = self._step(scheduler, latents, step, conditions, generators)
        return latents

    def predict(
        self, prompts: Sequence[str], generators: Sequence[torch.Generator], *, at: int
    ) -> Tensor:
        """The x0 prediction of a step as latents, with a gradient through this step alone.

        The one-step gradient of ReFL (Xu et al. 2023, algorithm 1).

        Args:
            prompts: One for each picture.
            generators: Of all noise of each picture.
            at: The step, from 0.
        """
        scheduler = self.scheduler()
        latents = self.noise(generators, scheduler)
        conditions = self.conditions(prompts)
        with torch.no_grad():
            for step in range(at):
                latents = self._step(scheduler, latents, step, conditions, generators)
        output = self.denoise(scheduler, latents, scheduler.timesteps[at], conditions)
        return predict_x0(scheduler, output, latents, at)

    def scheduler(self) -> Any:  # noqa: ANN401 (diffusers' schedulers share no type)
        """A new scheduler like the pipeline's, at its first step."""
        scheduler = type(self.pipe.scheduler).from_config(self.pipe.scheduler.config)
        scheduler.set_timesteps(self.steps, device=self.pipe.device)
        if len(scheduler.timesteps) != self.steps:
            msg = (
                f"{type(scheduler).__name__} makes {len(scheduler.timesteps)} of "
                f"{self.steps} steps; choose another number of steps"
            )
            raise ValueError(msg)
        if family_of(self.pipe).begins_at_zero and hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(0)
        return scheduler

    def noise(self, generators: Sequence[torch.Generator], scheduler: Any) -> Tensor:  # noqa: ANN401 (diffusers' schedulers share no type)
        """The latents that sampling begins with, each from its own generator."""
        side = self.pipe.vae_scale_factor
        height, width = self.size
        channels = self.denoiser.module.config.in_channels
        drawn: Tensor = randn_tensor(
            (len(generators), channels, height // side, width // side),
            generator=list(generators),
            device=self.pipe.device,
            dtype=self.pipe.text_encoder.dtype,
        )
        scaled: Tensor = drawn * getattr(scheduler, "init_noise_sigma", 1.0)
        return scaled

    def conditions(self, prompts: Sequence[str]) -> dict[str, Any]:
        """What the denoiser is conditioned on for a batch."""
        height, width = self.size
        return self.denoiser.conditions(prompts, height=height, width=width)

    def denoise(
        self,
        scheduler: Any,  # noqa: ANN401 (diffusers' schedulers share no type)
        latents: Tensor,
        timestep: Tensor,
        conditions: Mapping[str, Any],
    ) -> Tensor:
        """The denoiser's output with guidance, `(batch, channels, h, w)`."""
        if hasattr(scheduler, "scale_model_input"):
            latents = scheduler.scale_model_input(latents, timestep)
        if self.checkpointing and torch.is_grad_enabled():
            output: Tensor = checkpoint(
                self.denoiser, latents, timestep, conditions, use_reentrant=False
            )
            return output
        return self.denoiser(latents, timestep, conditions)

    def _step(
        self,
        scheduler: Any,  # noqa: ANN401 (diffusers' schedulers share no type)
        latents: Tensor,
        step: int,
        conditions: Mapping[str, Any],
        generators: Sequence[torch.Generator],
    ) -> Tensor:
        """The next latents."""
        timestep = scheduler.timesteps[step]
        output = self.denoise(scheduler, latents, timestep, conditions)
        takes = inspect.signature(scheduler.step).parameters
        noisy = "generator" in takes and type(scheduler).__name__ not in FLOW_MATCHING
        extra = {"generator": list(generators)} if noisy else {}
        made: Tensor = scheduler.step(output, timestep, latents, **extra, return_dict=False)[0]
        return made

    def _own_size(self, height: int | None, width: int | None) -> tuple[int, int]:
        side = self.denoiser.module.config.sample_size
        own = side if isinstance(side, list | tuple) else (side, side)
        factor = self.pipe.vae_scale_factor
        size = height or own[0] * factor, width or own[1] * factor
        # Stable Diffusion 3 cuts latents into patches of two.
        multiple = factor * getattr(self.denoiser.module.config, "patch_size", 1)
        multiple = max(8, multiple)
        if any(length % multiple for length in size):
            msg = f"pictures of {size[0]} x {size[1]} pixels; expected multiples of {multiple}"
            raise ValueError(msg)
        return size


def check_scheduler(scheduler: object) -> None:
    """Refuse schedulers for which equality with the pipeline is not tested.

    Raises:
        ValueError: It is not one of `SCHEDULERS`, or has a setting without a gradient here.
    """
    kind = type(scheduler).__name__
    if kind not in SCHEDULERS:
        msg = (
            f"the sampling loop is for {', '.join(SCHEDULERS)}; the pipeline has {kind}. "
            f"{another_scheduler(kind)}"
        )
        raise ValueError(msg)
    config: Mapping[str, Any] = getattr(scheduler, "config", {})
    unfit = {
        "stochastic_sampling": config.get("stochastic_sampling"),
        "thresholding": config.get("thresholding"),
        "invert_sigmas": config.get("invert_sigmas"),
        "use_dynamic_shifting": config.get("use_dynamic_shifting"),
        "predict_x0=False": config.get("predict_x0") is False,
        "an algorithm_type other than dpmsolver++": config.get("algorithm_type", "dpmsolver++")
        != "dpmsolver++",
    }
    if wrong := [what for what, is_so in unfit.items() if is_so]:
        msg = f"{kind} with {', '.join(wrong)} is not supported by the sampling loop"
        raise ValueError(msg)
