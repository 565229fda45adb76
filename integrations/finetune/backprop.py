"""One training step by back-propagation through sampling: DRaFT-K, and ReFL."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from .batches import late_step

if TYPE_CHECKING:
    from .state import FinetuneRun


def draft_step(run: FinetuneRun, step: int) -> dict[str, float]:
    """Change the weights once, by the gradient of the mean reward of a step's pictures.

    "draft" goes back from the finished picture through the last K sampling steps (Clark et al.
    2023, "Directly Fine-Tuning Diffusion Models on Differentiable Rewards"), "refl" from the
    picture that one late step predicts through this step alone (Xu et al. 2023, "ImageReward",
    algorithm 1).

    Args:
        run: The fine-tuning.
        step: From 0.

    Returns:
        "loss", "reward" and "reward_std" over the step's pictures, "grad_norm" before clipping.

    Raises:
        ValueError: The reward has no gradient, or something is not finite; names the step.
        FloatingPointError: The loss or the gradient is not finite; names the step.
    """
    config, loop = run.config, run.loop
    at = late_step(step, steps=loop.steps, last_steps=config.last_steps, seed=config.seed)
    pictures = run.pictures(step)
    found, lost = [], []
    for chunk in run.chunks(pictures):
        prompts, noise = [p.prompt for p in chunk], [p.generator() for p in chunk]
        if config.method == "refl":
            latents = loop.predict(prompts, noise, at=at)
        else:
            latents = loop.sample(prompts, noise, last_steps=config.last_steps)
        parts = run.reward_parts(latents, prompts, step)
        rewards = run.reward.total(parts)
        if not rewards.requires_grad:
            msg = (
                f"{run.reward.scorer.name} gives rewards without a gradient to the pictures, which "
                f"method {config.method} goes back along; use method='nft' or method='ddpo', or "
                "another scorer"
            )
            raise ValueError(msg)
        losses = reward_loss(rewards, margin=config.margin)
        run.accelerator.backward(losses.sum() / len(pictures))
        found.append(parts.detach())
        lost.append(losses.detach())
    every = run.gathered(torch.cat(found))
    loss = float(run.gathered(torch.cat(lost)).mean())
    norm = run.update(step, loss, [picture.prompt for picture in pictures])
    return {
        "loss": loss,
        **run.of_rewards(every),
        "grad_norm": norm,
    }


def reward_loss(rewards: Tensor, *, margin: float | None) -> Tensor:
    """What is lowered, `(batch,)`: minus the reward; with a margin ReFL's relu(margin - reward)."""
    return -rewards if margin is None else functional.relu(margin - rewards)
