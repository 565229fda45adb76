"""Training by policy gradient: denoising as a sequence of choices whose odds are known.

DDPO (Black et al. 2023, "Training Diffusion Models with Reinforcement Learning"): each DDIM step
with noise draws its latents from a normal density, so that a reward of the finished picture, which
needs no gradient of its own, can raise the odds of the steps that led to it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from stablepref.runtime.precision import widen

from ..diffusion.x0 import predict_x0

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..diffusion.sampling import SamplingLoop
    from .state import FinetuneRun

_LOG_ROOT_TWO_PI: Final = 0.5 * math.log(2 * math.pi)


def ddpo_step(run: FinetuneRun, step: int) -> dict[str, float]:
    """Make pictures, compare the rewards of each prompt's, and raise the odds of the better ones.

    DDPO-IS of Black et al. 2023: `updates` optimiser steps on the same pictures, each on all of
    them and all of their steps with noise, with the importance ratio clipped.

    Args:
        run: The fine-tuning.
        step: From 0.

    Returns:
        "loss" of the last update, "reward" and "reward_std" over the step's pictures, "grad_norm"
        of the last update, "clipped": the share of choices whose ratio was beyond its bounds,
        "dropped": the prompts whose pictures all have one reward.

    Raises:
        ValueError: No sampling step has noise, or something is not finite; names the step.
        FloatingPointError: The loss or the gradient is not finite; names the step.
    """
    config = run.config
    pictures = run.pictures(step)
    trajectories, found = [], []
    for chunk in run.chunks(pictures):
        made = rollout(
            run.loop, [p.prompt for p in chunk], [p.generator() for p in chunk], eta=config.eta
        )
        if not made.transitions:
            msg = f"none of the {run.loop.steps} sampling_steps has noise; take more of them"
            raise ValueError(msg)
        with torch.no_grad():
            found.append(run.reward_parts(made.latents, made.prompts, step))
        trajectories.append(made)
    prompts = [picture.prompt for picture in pictures]
    every = run.gathered(torch.cat(found))
    better = run.better(every, prompts)
    shares = run.own_part(better.values).split([len(t.prompts) for t in trajectories])
    loss = norm = clipped = 0.0
    for _ in range(config.update_count):
        sums = _gradients(run, trajectories, shares, count=len(pictures))
        loss, clipped = run.gathered(sums[None]).sum(dim=0).tolist()
        norm = run.update(step, loss, prompts)
    return {
        "loss": loss,
        **run.of_rewards(every),
        "grad_norm": norm,
        "clipped": clipped,
        "dropped": better.dropped,
    }


def _gradients(
    run: FinetuneRun,
    trajectories: Sequence[Trajectory],
    shares: Sequence[Tensor],
    *,
    count: int,
) -> Tensor:
    """Add up the gradients of the mean loss, step by step, so that one step's graph is kept.

    Returns:
        This process's parts of the mean loss and of the share of clipped ratios, `(2,)`.
    """
    config, loop = run.config, run.loop
    scheduler = loop.scheduler()
    sums = shares[0].new_zeros(2)
    for trajectory, advantage in zip(trajectories, shares, strict=True):
        weight = 1 / (count * len(trajectory.transitions))
        for choice in trajectory.transitions:
            timestep = scheduler.timesteps[choice.step]
            output = loop.denoise(choice.before, timestep, trajectory.prompts)
            mean, std = ddim_step(scheduler, output, choice.before, choice.step, eta=config.eta)
            now = log_probability(choice.after, mean, std)
            losses = clipped_loss(
                now, choice.log_probability, advantage, clip_range=config.clip_range
            )
            run.accelerator.backward(losses.sum() * weight)
            far = ((now.detach() - choice.log_probability).expm1().abs() > config.clip_range).sum()
            sums += torch.stack([losses.detach().sum(), far.to(losses)]) * weight
    return sums


class Transition(NamedTuple):
    """One step of a trajectory, whose latents the policy chose.

    Attributes:
        step: Its number, from 0.
        before: Latents `(batch, channels, h, w)` that it saw.
        after: Latents that were drawn.
        log_probability: Of these when they were drawn, `(batch,)`.
    """

    step: int
    before: Tensor
    after: Tensor
    log_probability: Tensor


@final
@dataclass(frozen=True)
class Trajectory:
    """How a batch of pictures came about.

    Attributes:
        prompts: One for each picture.
        latents: The finished ones, `(batch, channels, h, w)`.
        transitions: The steps with noise, in order.
    """

    prompts: Sequence[str]
    latents: Tensor
    transitions: Sequence[Transition]


def check_policy(scheduler: object) -> None:
    """Refuse what gives no step a normal density that is known here.

    Raises:
        ValueError: It is not DDIM, or clips its x0 prediction.
    """
    kind = type(scheduler).__name__
    config: Any = getattr(scheduler, "config", {})
    if kind != "DDIMScheduler" or config.get("clip_sample") or config.get("thresholding"):
        msg = (
            f"method ddpo needs DDIMScheduler without clip_sample and thresholding; the pipeline "
            f"has {kind}: for Stable Diffusion and SDXL use pipe.scheduler = DDIMScheduler."
            "from_config(pipe.scheduler.config, clip_sample=False), or another method"
        )
        raise ValueError(msg)


@torch.no_grad()
def rollout(
    loop: SamplingLoop,
    prompts: Sequence[str],
    generators: Sequence[torch.Generator],
    *,
    eta: float,
) -> Trajectory:
    """Sample pictures and keep what each step saw and drew.

    For equal generators the pictures are those of the pipeline with `eta=`.

    Args:
        loop: The sampling loop, with DDIM.
        prompts: One for each picture.
        generators: Of all noise of each picture.
        eta: Noise of the steps, from 0 to 1.
    """
    transitions: list[Transition] = []

    def rule(scheduler: Any, step: int, output: Tensor, latents: Tensor) -> Tensor:  # noqa: ANN401 (diffusers' schedulers share no type)
        mean, std = ddim_step(scheduler, output, latents, step, eta=eta)
        noise = randn_tensor(
            mean.shape, generator=list(generators), device=mean.device, dtype=latents.dtype
        )
        after = (mean + std * noise).to(latents.dtype)
        if std > 0:
            chance = log_probability(after, mean, std)
            transitions.append(Transition(step, latents, after, chance))
        return after

    finished = loop.sample(prompts, generators, rule=rule)
    return Trajectory(prompts, finished, transitions)


def ddim_step(
    scheduler: Any,  # noqa: ANN401 (diffusers' schedulers share no type)
    output: Tensor,
    latents: Tensor,
    step: int,
    *,
    eta: float,
) -> tuple[Tensor, float]:
    """Mean and standard deviation of the next latents.

    DDIM (Song et al. 2021), equations 12 and 16. With a schedule that begins in pure noise and eta
    1 rounding can make the square of the direction's factor negative, where diffusers returns NaN:
    here it is 0 then.

    Args:
        scheduler: A DDIM scheduler whose timesteps are set.
        output: The denoiser's, `(batch, channels, h, w)`.
        latents: Before the step.
        step: Its number, from 0.
        eta: 0 for no noise, 1 for DDPM's.

    Returns:
        The mean, float32 (float64 for float64 latents), and the deviation.
    """
    timestep = int(scheduler.timesteps[step])
    before = timestep - scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    alpha = float(scheduler.alphas_cumprod[timestep])
    next_alpha = float(
        scheduler.alphas_cumprod[before] if before >= 0 else scheduler.final_alpha_cumprod
    )
    x0 = predict_x0(scheduler, output, latents, step)
    epsilon = (widen(latents) - math.sqrt(alpha) * x0) / math.sqrt(1 - alpha)
    variance = (1 - next_alpha) / (1 - alpha) * (1 - alpha / next_alpha)
    std = eta * math.sqrt(max(0.0, variance))
    direction = math.sqrt(max(0.0, 1 - next_alpha - std**2))
    return math.sqrt(next_alpha) * x0 + direction * epsilon, std


def log_probability(drawn: Tensor, mean: Tensor, std: float) -> Tensor:
    """Logarithm of the normal density, the mean over a picture's numbers, `(batch,)`.

    The mean, not the sum that the density of the whole would be: as in ddpo-pytorch
    (`ddim_with_logprob`), whose clip range of 1e-4 belongs to it.

    Args:
        drawn: `(batch, ...)`; no gradient flows to it.
        mean: Of the same shape.
        std: Above 0.
    """
    distance = (widen(drawn.detach()) - mean) / std
    density = -0.5 * distance.square() - math.log(std) - _LOG_ROOT_TWO_PI
    return density.flatten(1).mean(dim=1)


def clipped_loss(
    log_probabilities: Tensor, before: Tensor, advantage: Tensor, *, clip_range: float
) -> Tensor:
    """The clipped surrogate of PPO (Schulman et al. 2017, equation 7), to be lowered, `(batch,)`.

    -min(ratio x advantage, clip(ratio, 1 - range, 1 + range) x advantage), with the ratio of the
    present odds to those at the time of drawing.

    Args:
        log_probabilities: Of the policy as it is, `(batch,)`, with gradient.
        before: Of the policy that drew, `(batch,)`.
        advantage: `(batch,)`.
        clip_range: Bound of the ratio's distance to 1.
    """
    ratio = (log_probabilities - before).exp()
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    return -torch.minimum(ratio * advantage, clipped * advantage)
