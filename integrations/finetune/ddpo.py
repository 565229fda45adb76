"""Training by policy gradient: denoising as a sequence of choices whose odds are known.

DDPO (Black et al. 2023, "Training Diffusion Models with Reinforcement Learning"): each DDIM step
with noise draws its latents from a normal density, so that a reward of the finished picture, which
needs no gradient of its own, can raise the odds of the steps that led to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .trajectories import rollouts
from .transitions import Transition, clipped_loss

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from .state import FinetuneRun
    from .trajectories import Trajectory


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
    transition = Transition("ddim", config.eta)
    trajectories, found = rollouts(run, pictures, transition, step)
    prompts = [picture.prompt for picture in pictures]
    every = run.gathered(found)
    better = run.better(every, prompts)
    shares = run.own_part(better.values).split([len(t.prompts) for t in trajectories])
    loss = norm = clipped = 0.0
    for _ in range(config.update_count):
        sums = _gradients(run, trajectories, shares, transition, count=len(pictures))
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
    transition: Transition,
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
        weight = 1 / (count * len(trajectory.choices))
        for choice in trajectory.choices:
            timestep = scheduler.timesteps[choice.step]
            output = loop.denoise(choice.before, timestep, trajectory.prompts)
            density = transition.density(scheduler, output, choice.before, choice.step)
            now = transition.log_probability(choice.after, density)
            ratio = (now - choice.log_probability).exp()
            losses = clipped_loss(ratio, advantage, clip_range=config.clip_range)
            run.accelerator.backward(losses.sum() * weight)
            far = ((ratio.detach() - 1).abs() > config.clip_range).sum()
            sums += torch.stack([losses.detach().sum(), far.to(losses)]) * weight
    return sums
