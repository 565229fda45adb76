"""Training by policy gradient within groups, for flow matching as well: Flow-GRPO.

Flow-GRPO (Liu et al. 2025, arXiv:2505.05470) gives the steps of flow matching noise without
changing what they draw in the mean, so that their odds are known. Only some steps may have noise
(Flow-GRPO-Fast; MixGRPO, Li et al. 2025, arXiv:2507.21802), and the ratio of odds may be corrected
(GRPO-Guard, Wang et al. 2025, arXiv:2510.22319).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

import torch

from .trajectories import rollouts
from .transitions import Transition, clipped_loss, is_flow

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from .batches import Picture
    from .config import FinetuneConfig
    from .state import FinetuneRun
    from .trajectories import Choice, Trajectory
    from .transitions import Density

_ETA: Final = {"sde": 0.7, "cps": 0.8}  # Flow-GRPO's


def grpo_step(run: FinetuneRun, step: int) -> dict[str, float]:
    """Make pictures, some of their steps with noise, and raise the odds of the better ones.

    Args:
        run: The fine-tuning.
        step: From 0.

    Returns:
        "loss", "kl" and "grad_norm" of the last update, "reward" and "reward_std" over the step's
        pictures, "clipped": the share of choices whose ratio was beyond its bounds,
        "ratio_before": how far from 1 a ratio was before the first update, where it should be 1,
        "dropped": the prompts whose pictures all have one reward, which are left out.

    Raises:
        ValueError: No sampling step has noise, or something is not finite; names the step.
        FloatingPointError: The loss or the gradient is not finite; names the step.
    """
    config = run.config
    transition = transition_of(config, run.loop.pipe.scheduler)
    noisy = noisy_steps(config, step)
    pictures = run.pictures(step)
    first = _shared_noise(run, pictures) if config.grpo_same_noise else None
    trajectories, found = rollouts(run, pictures, transition, step, noisy=noisy, first=first)
    prompts = [picture.prompt for picture in pictures]
    every = run.gathered(found)
    better = run.better(every, prompts)
    sizes = [len(one.prompts) for one in trajectories]
    shares = run.own_part(better.values).split(sizes)
    keeps = run.own_part(better.kept).split(sizes)
    count = int(better.kept.sum())
    loss = norm = kl = clipped = before = 0.0
    for update in range(config.update_count if count else 0):
        sums = Sums(*(shares[0].new_zeros(()) for _ in range(4)))
        for made, advantage, kept in zip(trajectories, shares, keeps, strict=True):
            if kept.any():
                _add_gradients(run, made, advantage, kept, transition, sums, count=count)
        totals = run.gathered(torch.stack([sums.loss, sums.kl, sums.clipped])[None]).sum(dim=0)
        loss, kl, clipped = totals.tolist()
        if update == 0:
            before = float(run.gathered(sums.farthest[None]).max())
        norm = run.update(step, loss, prompts)
    return {
        "loss": loss,
        **run.of_rewards(every),
        "grad_norm": norm,
        "kl": kl,
        "clipped": clipped,
        "ratio_before": before,
        "dropped": better.dropped,
    }


@final
@dataclass
class Sums:
    """This process's parts of what an update comes to, scalars.

    Attributes:
        loss: Of the mean loss.
        kl: Of the mean divergence from the pipeline as it was.
        clipped: Of the share of clipped ratios.
        farthest: The largest distance of a ratio to 1.
    """

    loss: Tensor
    kl: Tensor
    clipped: Tensor
    farthest: Tensor


def transition_of(config: FinetuneConfig, scheduler: object) -> Transition:
    """What a step with noise is: of flow matching as the configuration says, of DDIM its own.

    Raises:
        ValueError: The configuration asks of DDIM what is for flow matching.
    """
    if is_flow(scheduler):
        return Transition(config.grpo_noise, config.grpo_eta or _ETA[config.grpo_noise])
    if config.grpo_noise != "sde" or config.grpo_guard:
        what = "grpo_guard" if config.grpo_guard else f"grpo_noise={config.grpo_noise!r}"
        kind = type(scheduler).__name__
        msg = f"{what} is for flow matching; the pipeline has {kind}: leave it out"
        raise ValueError(msg)
    return Transition("ddim", config.grpo_eta or 1.0)


def noisy_steps(config: FinetuneConfig, step: int) -> range:
    """The sampling steps with noise in a training step.

    Without a window all but the last. A window at random lies in the first half of the steps, as
    far as it fits there (Flow-GRPO-Fast); a sliding one begins at the first step and moves on by
    one every `grpo_window_every` training steps, and from the end back to the first (MixGRPO).

    Args:
        config: Says which.
        step: The training step, from 0.
    """
    last = config.sampling_steps - 1
    size = config.grpo_window
    if size is None:
        return range(max(last, 1))
    size = min(size, max(last, 1))
    if config.grpo_window_moves == "sliding":
        start = (step // config.grpo_window_every) % (max(last, 1) - size + 1)
    else:
        places = max(1, config.sampling_steps // 2 - size + 1)
        start = random.Random(f"window {config.seed} {step}").randrange(places)
    return range(start, start + size)


def guarded_log_ratio(
    now: Tensor, choice: Choice, density: Density, *, std: float
) -> Tensor:  # fmt: skip
    """GRPO-Guard's logarithm of the ratio of odds, `(batch,)`.

    (log p - log p_old + b) std with b = mean((m - m_old)^2) / (2 std^2), where std is the deviation
    of the step's noise: without b the logarithm is below 0 in the mean, by more at some steps than
    at others, so that a clip range means another thing at each.

    Args:
        now: Log-probabilities of the policy as it is, `(batch,)`.
        choice: What was drawn, with the density's mean then.
        density: The density now.
        std: Of the step's noise.
    """
    moved = (density.mean - choice.mean).square().flatten(1).mean(dim=1)
    return (now - choice.log_probability + moved / (2 * std**2)) * std


def _add_gradients(
    run: FinetuneRun,
    made: Trajectory,
    advantage: Tensor,
    kept: Tensor,
    transition: Transition,
    sums: Sums,
    *,
    count: int,
) -> None:
    """Add the gradients of a batch's part of the mean loss, and what they come to.

    The whole batch goes through the denoiser as when it was drawn, so that ratios begin at 1.
    """
    config, loop = run.config, run.loop
    scheduler, hold = loop.scheduler(), kl_weight(config)
    weight = kept.to(advantage) / (count * len(made.choices))
    for choice in made.choices:
        timestep = scheduler.timesteps[choice.step]
        first = None
        if hold:
            with torch.no_grad(), run.policies.reference():
                output = loop.denoise(choice.before, timestep, made.prompts)
                first = transition.density(scheduler, output, choice.before, choice.step)
        output = loop.denoise(choice.before, timestep, made.prompts)
        density = transition.density(scheduler, output, choice.before, choice.step)
        now = transition.log_probability(choice.after, density)
        span = 1.0
        if config.grpo_guard:
            logarithm = guarded_log_ratio(now, choice, density, std=density.std)
            span = (density.std / density.diffusion) ** 2  # the step's length, -dt
        else:
            logarithm = now - choice.log_probability
        ratio = logarithm.exp()
        clip = clip_range(config)
        losses = clipped_loss(ratio, advantage, clip_range=clip) / span
        if first is not None:
            away = (density.mean - first.mean).square().flatten(1).mean(dim=1)
            divergence = away / (2 * density.diffusion**2)
            losses = losses + hold * divergence
            sums.kl += (divergence.detach() * weight).sum()
        part = (losses * weight).sum()
        run.accelerator.backward(part)
        off = (ratio.detach() - 1).abs() * kept
        sums.loss += part.detach()
        sums.clipped += ((off > clip) * weight).sum()
        sums.farthest = torch.maximum(sums.farthest, off.max().to(sums.farthest))


def clip_range(config: FinetuneConfig) -> float:
    """Bound of the ratio's distance to 1, by default the one of each variant's code."""
    if config.grpo_clip is not None:
        return config.grpo_clip
    if config.grpo_guard:
        return 2e-6
    mixed = config.grpo_window is not None and config.grpo_window_moves == "sliding"
    return 1e-5 if _is_fast(config) and not mixed else 1e-4


def kl_weight(config: FinetuneConfig) -> float:
    """Of the divergence from the first policy, by default as in each variant's code.

    The divergence is over the variance of the noise, which of cps goes to 0 in the last steps.
    """
    if config.grpo_kl is not None:
        return config.grpo_kl
    return 0.0 if _is_fast(config) else 0.04


def _is_fast(config: FinetuneConfig) -> bool:
    """Whether it has CPS steps or a window, as Flow-GRPO-Fast and MixGRPO have."""
    return config.grpo_noise == "cps" or config.grpo_window is not None


def _shared_noise(
    run: FinetuneRun, pictures: Sequence[Picture]
) -> Callable[[Sequence[Picture]], Tensor]:
    """Initial latents of a chunk: each picture has those of the first of its prompt."""
    group = run.config.group
    beginnings = {one: pictures[place - place % group] for place, one in enumerate(pictures)}

    def first(chunk: Sequence[Picture]) -> Tensor:
        return run.loop.noise([beginnings[picture].generator() for picture in chunk])

    return first
