"""One training step by policy gradient: DDPO."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .ddpo import (
    advantages,
    clipped_loss,
    ddim_step,
    log_probability,
    rollout,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from .ddpo import Trajectory
    from .state import FinetuneRun


def ddpo_step(run: FinetuneRun, step: int) -> dict[str, float]:
    """Make pictures, compare the rewards of each prompt's, and raise the odds of the better ones.

    DDPO-IS of Black et al. 2023: `updates` optimiser steps on the same pictures, each on all of
    them and all of their steps with noise, with the importance ratio clipped.

    Args:
        run: The fine-tuning.
        step: From 0.

    Returns:
        "loss" of the last update, "reward" and "reward_std" over the step's pictures, "grad_norm"
        of the last update, "clipped": the share of choices whose ratio was beyond its bounds.

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
            found.append(run.rewards(made.latents, made.prompts, step))
        trajectories.append(made)
    prompts = [picture.prompt for picture in pictures]
    mine = torch.cat(found)
    every = run.gathered(mine)
    better = advantages(every, prompts)
    first = run.accelerator.process_index * len(mine)
    shares = better[first : first + len(mine)].split([len(t.prompts) for t in trajectories])
    loss = norm = clipped = 0.0
    for _ in range(config.updates):
        sums = _gradients(run, trajectories, shares, count=len(pictures))
        loss, clipped = run.gathered(sums[None]).sum(dim=0).tolist()
        norm = run.update(step, loss, prompts)
    return {
        "loss": loss,
        "reward": float(every.mean()),
        "reward_std": float(every.std(correction=0)),
        "grad_norm": norm,
        "clipped": clipped,
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
        conditions = loop.conditions(trajectory.prompts)
        weight = 1 / (count * len(trajectory.transitions))
        for choice in trajectory.transitions:
            timestep = scheduler.timesteps[choice.step]
            output = loop.denoise(scheduler, choice.before, timestep, conditions)
            mean, std = ddim_step(scheduler, output, choice.before, choice.step, eta=config.eta)
            now = log_probability(choice.after, mean, std)
            losses = clipped_loss(
                now, choice.log_probability, advantage, clip_range=config.clip_range
            )
            run.accelerator.backward(losses.sum() * weight)
            far = ((now.detach() - choice.log_probability).expm1().abs() > config.clip_range).sum()
            sums += torch.stack([losses.detach().sum(), far.to(losses)]) * weight
    return sums
