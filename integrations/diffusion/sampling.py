"""Sampling with gradients: the pipeline's own pictures, step by step."""

from __future__ import annotations

import copy
import functools
import inspect
from typing import TYPE_CHECKING, Any, final

import torch

from .call import CallEnded, all_done, call, first_latents, scheduled
from .denoiser import check_denoisable
from .families import family_of
from .latents import decode_latents, encode_pictures
from .schedulers import another_scheduler
from .texts import Texts
from .x0 import SCHEDULERS, predict_x0

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from .call import StepRule


@final
class SamplingLoop:
    """Latents and predictions of a pipeline for prompts, by the pipeline's own call.

    Latents have the form that the pipeline's loop has them in: as `output_type="latent"` gives
    them, or, where `Family.packed` says so, packed.

    Attributes:
        pipe: The pipeline.
        steps: Denoising steps.
        guidance: Scale of guidance, the pipeline's own number.

    Args:
        pipe: A text-to-image pipeline of `stablepref.integrations.diffusion.families`.
        steps: Denoising steps.
        guidance: What the pipeline's call takes as `Family.guidance`: the scale of classifier-free
            guidance, `Family.unguided` for none; of a distilled model its embedded scale.
        negative_prompt: What not to make.
        height: Of the pictures, in pixels; None for the pipeline's own.
        width: Of the pictures, in pixels; None for the pipeline's own.
        checkpointing: Keep no activations of the denoiser where there is a gradient, and compute
            them again in the backward pass.
        arguments: Further ones of the pipeline's call.

    Raises:
        TypeError: It is another kind of pipeline.
        ValueError: The pipeline lacks a part or is in float16, or its scheduler, or a setting of
            it, is not supported (see `check_scheduler`), or cannot make that number of steps; or
            the pipeline takes no such size or negative prompt.
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
        arguments: Mapping[str, object] | None = None,
    ) -> None:
        check_denoisable(pipe)
        check_scheduler(pipe.scheduler)
        self.pipe = pipe
        self.steps = steps
        self.guidance = guidance
        self.checkpointing = checkpointing
        self._family = family_of(pipe)
        self._negative = negative_prompt
        self._arguments = self._checked({"height": height, "width": width, **(arguments or {})})
        self._texts = Texts()
        self._scheduler = self._scheduled()

    def sample(
        self,
        prompts: Sequence[str],
        generators: Sequence[torch.Generator],
        *,
        last_steps: int = 0,
        rule: StepRule | None = None,
        latents: Tensor | None = None,
        guided: bool = True,
    ) -> Tensor:
        """Finished latents `(batch, ...)`.

        Args:
            prompts: One for each picture.
            generators: Of all noise of each picture.
            last_steps: Sampling steps with a gradient, counted from the end (DRaFT-K, Clark et al.
                2023): 0 for none, `steps` for all.
            rule: In place of the scheduler's step.
            latents: Noise to begin with, as `noise` gives it; the generators then draw it in vain.
            guided: Whether with classifier-free guidance; an embedded guidance stays in any case.
        """
        return self._run(
            self._call(prompts, generators, guided=guided),
            rule=rule,
            latents=latents,
            last_steps=None if last_steps == self.steps else last_steps,
            until=all_done,
        )

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
        found: list[Tensor] = []

        def rule(scheduler: Any, index: int, output: Tensor, latents: Tensor) -> None:  # noqa: ANN401 (diffusers' schedulers share no type)
            if index == at:
                found.append(predict_x0(scheduler, output, latents, index))
                raise CallEnded

        self._run(
            self._call(prompts, generators),
            rule=rule,
            last_steps=None if at == 0 else self.steps - at,
        )
        return found[0]

    def noise(self, generators: Sequence[torch.Generator]) -> Tensor:
        """The latents that sampling begins with, each from its own generator."""
        arguments = self._call([""] * len(generators), generators)
        with self._texts.remembered(self.pipe):
            return first_latents(self.pipe, arguments, scheduler=self._new_scheduler())

    def denoise(
        self,
        latents: Tensor,
        timestep: Tensor,
        prompts: Sequence[str],
        *,
        guided: bool = True,
    ) -> Tensor:
        """What the denoiser predicts, with gradients: one step of the pipeline's own call.

        Args:
            latents: `(batch, ...)`, as the denoiser sees them: of Euler's schedulers divided by
                `noise_level(scheduler, step).scale`.
            timestep: A timestep of the scheduler, of no dimension for all pictures, or `(batch,)`.
            prompts: One for each picture.
            guided: Whether with classifier-free guidance; an embedded guidance stays in any case.

        Returns:
            Of the shape of the latents, in the convention of the scheduler: noise, velocity or
            flow (noise minus picture), whatever sign the denoiser itself has.
        """
        timestep = timestep.to(latents.device)
        if timestep.ndim and bool((timestep == timestep[0]).all()):
            timestep = timestep[0]
        if timestep.ndim and guided:
            return self._each_timestep(latents, timestep, prompts)
        found: list[Tensor] = []

        def rule(scheduler: object, index: int, output: Tensor, given: Tensor) -> None:
            del scheduler, index, given
            found.append(output)
            raise CallEnded

        self._run(
            self._call(prompts, torch.Generator(), guided=guided),
            rule=rule,
            latents=latents,
            timesteps=timestep[None],
        )
        return found[0]

    def _each_timestep(self, latents: Tensor, timestep: Tensor, prompts: Sequence[str]) -> Tensor:
        """A call for each timestep: pipelines guide all pictures at the same."""
        found: dict[int, Tensor] = {}
        for time in timestep.unique():
            rows = (timestep == time).nonzero().flatten().tolist()
            parts = self.denoise(latents[rows], time, [prompts[row] for row in rows])
            found.update(zip(rows, parts, strict=True))
        return torch.stack([found[row] for row in range(len(latents))])

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures `(batch, 3, H, W)` in [0, 1] of finished latents, as the pipeline decodes."""
        if not self.packed:
            return ((decode_latents(self.pipe.vae, latents) + 1) / 2).clamp(0, 1)
        arguments = self._call([""] * len(latents), torch.Generator(), guided=False)
        made = self._run(
            arguments | {"output_type": "pt"},
            latents=latents,
            timesteps=torch.empty(0, device=latents.device),
        )
        pictures: Tensor = made.images
        return pictures

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """Finished latents of pictures `(batch, 3, H, W)` in [0, 1] of the size that is made.

        The most likely ones, where the VAE gives a normal density.

        Raises:
            ValueError: The pipeline packs its latents, and its row does not say how.
        """
        encode, vae = self._family.encode, self.pipe.vae
        given = pictures.to(device=self.pipe.device, dtype=vae.dtype)
        if encode is not None:
            return encode(self.pipe, given)
        if self.packed:
            msg = f"the row of {type(self.pipe).__name__} does not say how pictures are encoded"
            raise ValueError(msg)
        return encode_pictures(vae, given)

    @functools.cached_property
    def size(self) -> tuple[int, int]:
        """Height and width of the pictures that are made, in pixels."""
        with torch.no_grad():
            made = self.decode(self.noise([torch.Generator()]))
        return made.shape[-2], made.shape[-1]

    @property
    def packed(self) -> bool:
        """Whether the VAE does not decode latents as they are, but `decode` does."""
        return self._family.packed

    def scheduler(self) -> Any:  # noqa: ANN401 (diffusers' schedulers share no type)
        """A new scheduler like the pipeline's, its timesteps set as the pipeline sets them."""
        return copy.deepcopy(self._scheduler)

    def _run(self, arguments: Mapping[str, object], **options: Any) -> Any:  # noqa: ANN401 (those of `call`)
        replayed = options.get("timesteps") is not None
        with self._texts.remembered(self.pipe):
            return call(
                self.pipe,
                arguments,
                scheduler=self.scheduler() if replayed else self._new_scheduler(),
                checkpointing=self.checkpointing,
                **options,
            )

    def _call(
        self,
        prompts: Sequence[str],
        generator: Sequence[torch.Generator] | torch.Generator,
        *,
        guided: bool = True,
    ) -> dict[str, Any]:
        """Arguments of the pipeline's call."""
        family = self._family
        made = {
            "prompt": list(prompts),
            "generator": generator if isinstance(generator, torch.Generator) else list(generator),
            "num_inference_steps": self.steps,
            **self._arguments,
        }
        on = guided or family.unguided is None
        made[family.guidance] = self.guidance if on else family.unguided
        negative = family.negative_prompt if self._negative is None else self._negative
        if negative is not None and on:
            made["negative_prompt"] = [negative] * len(prompts)
        return made

    def _new_scheduler(self) -> Any:  # noqa: ANN401 (diffusers' schedulers share no type)
        scheduler = self.pipe.scheduler
        return type(scheduler).from_config(scheduler.config)

    def _scheduled(self) -> Any:  # noqa: ANN401 (diffusers' schedulers share no type)
        """What the pipeline makes of a scheduler for this number of steps and these sizes.

        Raises:
            ValueError: It makes another number of steps, or the pipeline refuses the call.
        """
        arguments = self._call([""], torch.Generator())
        with self._texts.remembered(self.pipe):
            found = scheduled(self.pipe, arguments, scheduler=self._new_scheduler())
        if len(found.timesteps) != self.steps:
            msg = (
                f"{type(found).__name__} makes {len(found.timesteps)} of "
                f"{self.steps} steps; choose another number of steps"
            )
            raise ValueError(msg)
        return found

    def _checked(self, arguments: Mapping[str, object]) -> dict[str, object]:
        """Those that are given, with those of the pipeline's row."""
        kind = type(self.pipe).__name__
        takes = inspect.signature(self.pipe.__call__).parameters
        given = {name: value for name, value in arguments.items() if value is not None}
        for one, other in (("height", "width"), ("width", "height")):
            if one in given and other not in given:  # Stable Diffusion would ignore it
                msg = f"{one} without {other}: give both, or neither"
                raise ValueError(msg)
        asked = [*given] if self._negative is None else [*given, "negative_prompt"]
        if wrong := [name for name in asked if name not in takes]:
            msg = f"{kind} takes no {', no '.join(wrong)}; leave it out"
            raise ValueError(msg)
        return {**self._family.arguments, **given}


def check_scheduler(scheduler: object) -> None:
    """Refuse schedulers for which equality with the pipeline is not tested.

    Raises:
        ValueError: It is not one of `SCHEDULERS`, or has a setting without a gradient here.
    """
    kind = type(scheduler).__name__
    if kind not in SCHEDULERS:
        msg = (
            f"the sampling loop is for {', '.join(SCHEDULERS)}; the pipeline has {kind}. "
            f"{another_scheduler(scheduler)}"
        )
        raise ValueError(msg)
    config: Mapping[str, Any] = getattr(scheduler, "config", {})
    unfit = {
        "stochastic_sampling": config.get("stochastic_sampling"),
        "thresholding": config.get("thresholding"),
        "invert_sigmas": config.get("invert_sigmas"),
        "predict_x0=False": config.get("predict_x0") is False,
        "an algorithm_type other than dpmsolver++": config.get("algorithm_type", "dpmsolver++")
        != "dpmsolver++",
    }
    if wrong := [what for what, is_so in unfit.items() if is_so]:
        msg = f"{kind} with {', '.join(wrong)} is not supported by the sampling loop"
        raise ValueError(msg)
