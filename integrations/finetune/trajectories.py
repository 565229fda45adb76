"""How pictures came about: what each step with noise saw and drew, and how likely that was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, final

import torch
from diffusers.utils.torch_utils import randn_tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from torch import Tensor

    from ..diffusion.sampling import SamplingLoop
    from .batches import Picture
    from .state import FinetuneRun
    from .transitions import Transition


class Choice(NamedTuple):
    """One step of a trajectory, whose latents the policy chose.

    Attributes:
        step: Its number, from 0.
        before: Latents `(batch, ...)` that it saw.
        after: Latents that were drawn.
        log_probability: Of these when they were drawn, `(batch,)`.
        mean: Of their density then, `(batch, ...)`.
    """

    step: int
    before: Tensor
    after: Tensor
    log_probability: Tensor
    mean: Tensor


@final
@dataclass(frozen=True)
class Trajectory:
    """How a batch of pictures came about.

    Attributes:
        prompts: One for each picture.
        latents: The finished ones, `(batch, ...)`.
        choices: The steps with noise, in order.
    """

    prompts: Sequence[str]
    latents: Tensor
    choices: Sequence[Choice]


@torch.no_grad()
def rollout(
    loop: SamplingLoop,
    prompts: Sequence[str],
    generators: Sequence[torch.Generator],
    transition: Transition,
    *,
    noisy: Collection[int] | None = None,
    first: Tensor | None = None,
) -> Trajectory:
    """Sample pictures and keep what each step with noise saw and drew.

    For equal generators DDIM's pictures are those of the pipeline with `eta=`.

    Args:
        loop: The sampling, with a scheduler of the transition's kind.
        prompts: One for each picture.
        generators: Of all noise of each picture.
        transition: What a step with noise is.
        noisy: The steps with noise; None for all. The others are the pipeline's own.
        first: Latents to begin with; None for what the generators draw.
    """
    choices: list[Choice] = []

    def rule(scheduler: Any, index: int, output: Tensor, latents: Tensor) -> Tensor:  # noqa: ANN401 (diffusers' schedulers share no type)
        random = noisy is None or index in noisy
        density = transition.density(scheduler, output, latents, index, noisy=random)
        if not density.std:
            return density.mean.to(latents.dtype)
        noise = randn_tensor(
            density.mean.shape,
            generator=list(generators),
            device=density.mean.device,
            dtype=latents.dtype,
        )
        after = (density.mean + density.std * noise).to(latents.dtype)
        chance = transition.log_probability(after, density)
        choices.append(Choice(index, latents, after, chance, density.mean))
        return after

    finished = loop.sample(prompts, generators, rule=rule, latents=first)
    return Trajectory(prompts, finished, choices)


def rollouts(
    run: FinetuneRun,
    pictures: Sequence[Picture],
    transition: Transition,
    step: int,
    *,
    noisy: Collection[int] | None = None,
    first: Callable[[Sequence[Picture]], Tensor] | None = None,
) -> tuple[list[Trajectory], Tensor]:
    """Sample a step's pictures chunk by chunk, and score them.

    Args:
        run: The fine-tuning.
        pictures: This process's.
        transition: Of steps with noise.
        step: The training step.
        noisy: Sampling steps with noise; all of them if None.
        first: Gives a chunk's initial latents; each picture's own noise if None.

    Returns:
        The trajectories, and the parts of the rewards of this process's pictures.

    Raises:
        ValueError: No sampling step has noise.
    """
    trajectories, found = [], []
    for chunk in run.chunks(pictures):
        made = rollout(
            run.loop,
            [picture.prompt for picture in chunk],
            [picture.generator() for picture in chunk],
            transition,
            noisy=noisy,
            first=None if first is None else first(chunk),
        )
        if not made.choices:
            msg = f"none of the {run.loop.steps} sampling_steps has noise; take more of them"
            raise ValueError(msg)
        with torch.no_grad():
            found.append(run.reward_parts(made.latents, made.prompts, step))
        trajectories.append(made)
    return trajectories, torch.cat(found)
