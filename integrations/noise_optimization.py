"""Noise optimisation: the initial noise of a few-step pipeline climbs a reward.

ReNO (Eyring et al. 2024, "ReNO: Enhancing One-step Text-to-Image Models through Reward-based Noise
Optimization"): with one to four steps, gradients reach the noise through the whole sampling. A
penalty on the noise's norm keeps it likely to be drawn, and the best noise on the way is kept.
"""

from __future__ import annotations

import copy
import inspect
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, final

import numpy as np
import torch

from stablepref.output.progress import progress_bar
from stablepref.scoring.prompts import check_prompts

from .diffusion.call import call, own_lists, prepared
from .diffusion.denoiser import denoiser_of
from .diffusion.families import differentiable, family_of, find_family
from .diffusion.pipelines import (
    decoder_lifted,
    frozen,
    overflow_advice,
    refuse_offloading,
    refuse_safety_checker,
    require_pipeline,
    require_vae,
    texts_encoded_once,
    texts_of_each,
    without_progress_bar,
)
from .diffusion.schedulers import check_scheduler_name, use_scheduler
from .reward import DifferentiableReward
from .sampled_rewards import as_scorer

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from PIL import Image
    from torch import Tensor

    from stablepref.scorer import Scorer

    from .diffusion.pipelines import Pipeline

# ReNO's arguments.py and training/optim.py.
MOMENTUM: Final = 0.9
_TAKEN: Final = ("generator", "latents", "num_images_per_prompt", "output_type", "return_dict")


@final
@dataclass(frozen=True)
class OptimizedNoise:
    """What noise optimisation found.

    Attributes:
        prompts: One for each picture.
        images: The pictures that the pipeline makes of the best noises.
        latents: The best noises `(n, channels, h, w)`, on the pipeline's device and in its number
            type.
        rewards: All rewards `(iterations + 1, n)`, those of the noises as drawn first.
        best: For each picture, the row of its best reward, whose noise was kept.
        seeds: Of the noises as drawn.
        arguments: Of the pipeline's call beside prompts and noise.
        draws_first: Whether the pipeline's generators draw noise for a given picture first.
    """

    prompts: list[str]
    images: list[Image.Image]
    latents: Tensor
    rewards: Tensor
    best: list[int]
    seeds: list[int]
    arguments: dict[str, object]
    draws_first: bool = False

    @property
    def call(self) -> dict[str, object]:
        """All arguments with which the pipeline makes the images again: `pipe(**found.call)`."""
        return {
            **own_lists({"prompt": self.prompts, **self.arguments}),
            **_noise(self.latents, self.seeds, draws_first=self.draws_first),
        }


def optimize_noise(  # noqa: PLR0913 (each a setting of its own)
    pipe: Pipeline,
    prompt: str | Sequence[str],
    scorer: Scorer | str | os.PathLike[str],
    *,
    iterations: int = 50,
    seed: int = 0,
    learning_rate: float = 5.0,
    clip: float = 0.1,
    regularization: float = 0.01,
    views: int = 0,
    reduce: Literal["mean", "min"] = "mean",
    checkpointing: bool = False,
    scheduler: str | None = None,
    progress: bool | None = None,
    **pipe_kwargs: object,
) -> OptimizedNoise:
    """Look for initial noise from which a pipeline makes pictures with a high reward.

    Gradient ascent with Nesterov momentum on reward + regularization x K, where K is the
    logarithm of the density, up to a constant, of the norm r of standard normal noise in d
    dimensions: (d - 1) log r - r^2 / 2 (Samuel et al. 2023; ReNO, equation 4). Learning rate,
    momentum, clipping, weight and iterations are by default those of ReNO's code. Each picture is
    optimised by itself: in one batch, but with no influence on the others.

    Args:
        pipe: A pipeline whose row in `stablepref.integrations.diffusion.families` says that it
            backpropagates, made for few steps, not offloaded. Its weights are frozen meanwhile, its
            decoder and the scorer for good.
        prompt: One prompt, or several, with a picture for each. All are in memory together,
            with the activations of all steps; diffusers'
            `enable_gradient_checkpointing()` of the denoiser keeps few of these.
        scorer: The reward model, on the pipeline's device, or what `stablepref.load` takes.
        iterations: Updates of the noise.
        seed: Picture i begins with the noise that the pipeline draws for the seed `seed + i`; a
            stochastic scheduler continues with that generator.
        learning_rate: Of the ascent.
        clip: Largest norm of a picture's gradient.
        regularization: Weight of K against one unit of the scorer. ReNO's 0.01 stands beside
            ImageReward as it is, but HPS and PickScore at a twentieth of our unit, so that 0.2 is
            its weight for these.
        views: Weak views beside each picture, other ones in each iteration, as in
            `DifferentiableReward`.
        reduce: "mean" or "min" over the picture and its views.
        checkpointing: Keep no activations of the scorer, and none of the decoder where latents are
            not packed.
        scheduler: One of `stablepref.integrations.diffusion.schedulers.NAMED`, such as "ddim", to
            put in the place of the pipeline's own; it stays there.
        progress: Show a progress bar; None shows one in a terminal once work takes seconds.
        pipe_kwargs: For the pipeline's call, such as `guidance_scale=0.0`;
            `num_inference_steps` is 1 unless given.

    Returns:
        The pictures, the noises and all rewards.

    Raises:
        TypeError: The pipeline, a prompt or the scorer is something else.
        ValueError: The pipeline or an argument is not supported, its sampling keeps no gradient, or
            a picture, a reward or a gradient is not finite.
    """
    arguments = {"num_inference_steps": 1, **pipe_kwargs}
    check_scheduler_name(scheduler)
    _check_pipeline(pipe, arguments)
    use_scheduler(pipe, scheduler)
    if iterations < 0 or regularization < 0 or learning_rate <= 0 or clip <= 0:
        msg = (
            "iterations and regularization must be 0 or more, learning_rate and clip above 0; got "
            f"{iterations}, {regularization}, {learning_rate} and {clip}"
        )
        raise ValueError(msg)
    prompts = check_prompts([prompt] if isinstance(prompt, str) else prompt)
    arguments = texts_of_each(arguments, len(prompts))
    seeds = [seed + index for index in range(len(prompts))]
    vae: Any = pipe.components["vae"]
    family = family_of(pipe)
    reward = DifferentiableReward(
        as_scorer(scorer, pipe._execution_device),
        vae=None if family.packed else vae,  # then the pipeline decodes
        views=views,
        reduce=reduce,
        checkpointing=checkpointing,
    )
    noise = _first_noise(pipe, seeds, arguments).requires_grad_()
    optimizer = torch.optim.SGD(
        [noise], lr=learning_rate, momentum=MOMENTUM, nesterov=True, maximize=True
    )
    best = noise.detach().clone()
    top = torch.full((len(prompts),), -math.inf, device=noise.device)
    history: list[Tensor] = []
    with (
        torch.enable_grad(),  # whatever the caller's mode is
        texts_encoded_once(pipe),
        without_progress_bar(pipe),
        frozen(pipe),
        progress_bar("optimizing noise", total=iterations + 1, show=progress) as advance,
    ):
        for iteration in range(iterations + 1):
            last = iteration == iterations
            try:
                with decoder_lifted(vae):
                    made = _sample(pipe, prompts, noise, seeds, arguments)
                    rewards = reward(made, prompts, step=iteration)
                    objective = rewards + regularization * norm_log_density(noise)
                    if not last:
                        noise.grad = _clipped(torch.autograd.grad(objective.sum(), noise)[0], clip)
            except ValueError as error:
                msg = f"iteration {iteration} of {iterations}: {error}{overflow_advice(pipe)}"
                raise ValueError(msg) from error
            history.append(rewards.detach())
            better = history[-1] > top
            top = history[-1].where(better, top)
            best[better] = noise.detach()[better]
            if not last:
                optimizer.step()
            advance(1)
        best = best.to(denoiser_of(pipe).dtype)
        rewards_of_all = torch.stack(history).cpu()
        found = OptimizedNoise(
            prompts=prompts,
            images=[],
            latents=best,
            rewards=rewards_of_all,
            best=rewards_of_all.argmax(dim=0).tolist(),
            seeds=seeds,
            arguments=arguments,
            draws_first=family.draws_pictures_first,
        )
        shown: Any = pipe(**found.call)
    return replace(found, images=shown.images)


def norm_log_density(noise: Tensor) -> Tensor:
    """Log density of each noise's norm, up to a constant, `(batch,)`: (d - 1) log r - r^2 / 2.

    Args:
        noise: `(batch, ...)`, d numbers in each row. The density is highest at r^2 = d - 1.
    """
    rows = noise.flatten(1)
    norms = rows.norm(dim=1)
    return (rows.shape[1] - 1) * norms.log() - norms**2 / 2


def _check_pipeline(pipe: Pipeline, arguments: Mapping[str, object]) -> None:
    """Refuse what is not tested, before anything is made."""
    require_pipeline(pipe)
    kind, family = type(pipe).__name__, find_family(pipe)
    if family is None or not family.backpropagates:
        msg = (
            f"noise optimisation is for {', '.join(differentiable())}; this is {kind}; use best of "
            "n, which takes all"
        )
        raise ValueError(msg)
    require_vae(pipe)
    refuse_safety_checker(pipe)
    takes = inspect.signature(pipe.__call__).parameters
    for name in arguments:
        if name in _TAKEN or name not in takes:
            what = "optimize_noise sets itself" if name in _TAKEN else f"{kind} does not take"
            msg = f"{name} is an argument that {what}"
            raise ValueError(msg)
    refuse_offloading(pipe)


def _first_noise(pipe: Any, seeds: list[int], arguments: Mapping[str, Any]) -> Tensor:  # noqa: ANN401
    """What the pipeline itself would draw, float32 on its device, in the form that it takes."""
    drawn = []
    for seed in seeds:
        scheduler = copy.deepcopy(pipe.scheduler)
        call = {
            "prompt": "",
            **_of_one(pipe, arguments, len(seeds)),
            "generator": torch.Generator().manual_seed(seed),
        }
        made = prepared(pipe, call, scheduler=scheduler)
        form = family_of(pipe).call_latents
        latents = made[0] if form is None else form(pipe, *made)
        # Pipelines scale what they draw and what they are given.
        drawn.append(latents.float() / getattr(scheduler, "init_noise_sigma", 1.0))
    return torch.cat(drawn)


def _of_one(pipe: Pipeline, arguments: Mapping[str, Any], count: int) -> dict[str, Any]:
    """Arguments of a call for one of the pictures."""
    family = family_of(pipe)
    given = (*family.pictures, *family.repeated)
    several = hasattr(pipe.components.get("controlnet"), "nets")

    def first(name: str, value: Any) -> Any:  # noqa: ANN401 (of any kind)
        if several and name in given and isinstance(value, list):
            # A picture for each ControlNet. Those of several prompts stand in lists of the nets'
            # of each prompt where the pipeline repeats nothing, else in lists of the prompts' of
            # each net.
            by_prompt = name in family.pictures and all(isinstance(one, list) for one in value)
            return _first(value, count) if by_prompt else [_first(one, count) for one in value]
        of_each = name.startswith(("negative_prompt", "prompt_", *given))
        return _first(value, count) if of_each else value

    return {name: first(name, value) for name, value in arguments.items()}


def _first(value: Any, count: int) -> Any:  # noqa: ANN401 (of any kind)
    """Of a list or a stack of pictures, one for each of `count`, the first; else all."""
    if isinstance(value, list) and len(value) == count:
        return value[0]
    stack = isinstance(value, torch.Tensor | np.ndarray) and value.ndim == 4
    return value[:1] if stack and len(value) == count else value


def _noise(latents: Tensor, seeds: list[int], *, draws_first: bool) -> dict[str, object]:
    """The pipeline's arguments for given noise, with generators as if it had drawn that itself.

    They are at their beginning where they first draw noise for a given picture.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    for generator in () if draws_first else generators:
        torch.randn(latents[:1].shape, generator=generator)
    return {"latents": latents, "generator": generators}


def _sample(
    pipe: Pipeline,
    prompts: list[str],
    noise: Tensor,
    seeds: list[int],
    arguments: Mapping[str, object],
) -> Tensor:
    """Latents of pictures, or of packed ones the pictures, with gradients to the noise."""
    family = family_of(pipe)
    first = family.draws_pictures_first
    given = _noise(noise.to(denoiser_of(pipe).dtype), seeds, draws_first=first)
    kind = "pt" if family.packed else "latent"
    with torch.enable_grad():
        made = call(
            pipe,
            {"prompt": prompts, **arguments, **given, "output_type": kind},
            scheduler=copy.deepcopy(pipe.components["scheduler"]),
        )
    found: Tensor = made.images
    if not found.requires_grad:
        scheduler = type(pipe.components.get("scheduler")).__name__
        msg = (
            f"sampling with {type(pipe).__name__} and {scheduler} keeps no gradient to the noise; "
            "use another scheduler, and no inference mode"
        )
        raise ValueError(msg)
    return found


def _clipped(gradient: Tensor, most: float) -> Tensor:
    """Each picture's gradient with at most this norm."""
    norms = gradient.flatten(1).norm(dim=1)
    if not bool(norms.isfinite().all()):
        msg = "the reward's gradient is not finite"
        raise ValueError(msg)
    factors = most / norms.clamp_min(most)
    return gradient * factors.view(-1, *[1] * (gradient.ndim - 1))
