"""A fine-tuning under way: pictures of a process, rewards, the update, and what it depends on."""

from __future__ import annotations

import functools
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

import torch

from stablepref.training.pairs import fingerprint
from stablepref.training.resume import CHECKPOINTS, newest_checkpoint
from stablepref.weights.fingerprint import text_digest, weights_digest

from ..diffusion.described import described_pipeline
from .advantages import DDPO_FLOOR, GRPO_FLOOR, advantages
from .batches import step_pictures
from .dpo_pairs import PairLatents

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from accelerate import Accelerator
    from torch import Tensor

    from stablepref.data.groups import RankedGroup
    from stablepref.scorer import Scorer

    from ..diffusion.sampling import SamplingLoop
    from .advantages import Advantages
    from .batches import Picture
    from .config import FinetuneConfig
    from .dpo_pairs import Pair
    from .latent_reward import LatentReward
    from .policies import Policies

Item = TypeVar("Item")

NAMED: Final = 10
"""Prompts that a message names."""


@final
@dataclass(frozen=True)
class FinetuneRun:
    """What stays the same over a fine-tuning.

    Attributes:
        accelerator: The distributed engine.
        loop: Makes pictures.
        reward: Judges them.
        policies: What is trained, and the copies of it.
        optimizer: Trains it.
        config: The configuration.
        prompts: To train on.
        folder: The training's.
        described: What the weights depend on.
        pairs: Of ranked groups, for methods that train on them.
    """

    accelerator: Accelerator
    loop: SamplingLoop
    reward: LatentReward
    policies: Policies
    optimizer: Any
    config: FinetuneConfig
    prompts: Sequence[str]
    folder: Path
    described: dict[str, Any]
    pairs: Sequence[Pair] = ()

    @functools.cached_property
    def latents(self) -> PairLatents:
        """Those of pairs, remembered from step to step."""
        return PairLatents(self.loop)

    def pictures(self, step: int) -> list[Picture]:
        """All pictures of a step."""
        return step_pictures(
            self.prompts,
            step,
            batch_size=self.config.batch_size,
            group=self.config.group,
            seed=self.config.seed,
        )

    def chunks(self, pictures: Sequence[Item]) -> Iterator[Sequence[Item]]:
        """This process's share of a step's pictures, or pairs, as many at once as fit."""
        size = len(pictures) // self.accelerator.num_processes
        first = self.accelerator.process_index * size
        at_once = self.config.micro_batch_size or size
        for start in range(first, first + size, at_once):
            yield pictures[start : min(start + at_once, first + size)]

    def gathered(self, values: Tensor) -> Tensor:
        """Those of all processes, in the order of the step's pictures."""
        together: Tensor = self.accelerator.gather(values)
        return together

    def rewards(self, latents: Tensor, prompts: Sequence[str], step: int) -> Tensor:
        """Rewards `(batch,)`, of several the weighted sum.

        Raises:
            ValueError: A latent, picture or reward is not finite; names the step.
        """
        return self.reward.total(self.reward_parts(latents, prompts, step))

    def reward_parts(self, latents: Tensor, prompts: Sequence[str], step: int) -> Tensor:
        """Each reward without its weight, `(batch, rewards)`.

        Raises:
            ValueError: A latent, picture or reward is not finite; names the step.
        """
        try:
            return self.reward.parts(latents, prompts, step=step)
        except ValueError as error:
            msg = f"step {step + 1}: {error}; {self._where(prompts)}"
            raise ValueError(msg) from error

    def better(self, rewards: Tensor, prompts: Sequence[str]) -> Advantages:
        """By how much each picture of a step is better than its prompt's others.

        Args:
            rewards: Of all processes, `(batch, rewards)`.
            prompts: One for each picture.
        """
        ddpo = self.config.method == "ddpo"
        return advantages(
            rewards,
            prompts,
            weights=self.reward.weights,
            spread=self.config.advantage_std or ("prompt" if ddpo else "batch"),
            combine=self.config.combine,
            floor=DDPO_FLOOR if ddpo else GRPO_FLOOR,
        )

    def of_rewards(self, rewards: Tensor) -> dict[str, float]:
        """What metrics say of a step's rewards `(batch, rewards)`; of several also each mean."""
        total = self.reward.total(rewards)
        found = {"reward": float(total.mean()), "reward_std": float(total.std(correction=0))}
        if len(self.reward.names) > 1:
            means = rewards.mean(dim=0).tolist()
            found |= {f"reward_{n}": mean for n, mean in zip(self.reward.names, means, strict=True)}
        return found

    def own_part(self, values: Tensor) -> Tensor:
        """This process's part of values `(batch, ...)` of a step's pictures."""
        size = len(values) // self.accelerator.num_processes
        first = self.accelerator.process_index * size
        return values[first : first + size]

    def update(self, step: int, loss: float, prompts: Sequence[str]) -> float:
        """Change the weights by the gradients of all processes; their norm.

        Weights without gradient in any process stay as they are.

        Raises:
            FloatingPointError: The loss or the gradient is not finite; names the step.
        """
        weights = list(self.policies.trained.parameters())
        if self.accelerator.num_processes > 1:
            has = torch.tensor([w.grad is not None for w in weights], device=weights[0].device)
            anywhere = self.accelerator.reduce(has.float(), "sum").tolist()
            weights = [weight for weight, count in zip(weights, anywhere, strict=True) if count]
        trained = weights
        if self.accelerator.num_processes > 1 and trained:
            own = torch.cat([(w if w.grad is None else w.grad).flatten() * (w.grad is not None)
                             for w in trained]).detach()  # fmt: skip
            total = self.accelerator.reduce(own, "sum").split([w.numel() for w in trained])
            for weight, gradient in zip(trained, total, strict=True):
                weight.grad = gradient.view_as(weight)
        trained = [weight for weight in trained if weight.grad is not None]
        norm = 0.0
        if trained:
            norm = float(self.accelerator.clip_grad_norm_(trained, self.config.max_grad_norm))
        for what, value in (("loss", loss), ("norm of the gradient", norm)):
            if not math.isfinite(value):
                msg = f"the {what} of step {step + 1} is {value}; {self._where(prompts)}"
                raise FloatingPointError(msg)
        if trained:
            self.optimizer.step()
        self.optimizer.zero_grad()
        return norm

    def _where(self, prompts: Sequence[str]) -> str:
        """What a message says of a step that failed."""
        distinct = list(dict.fromkeys(prompts))
        more = f" and {len(distinct) - NAMED} more" if len(distinct) > NAMED else ""
        listed = ", ".join(map(repr, distinct[:NAMED]))
        found, _ = newest_checkpoint(self.folder / CHECKPOINTS)
        good = f"the last good checkpoint is {found.path}" if found else "there is no checkpoint"
        return f"its prompts: {listed}{more}; {good}; a lower learning rate may help"


def described_finetuning(
    config: FinetuneConfig,
    pipe: Any,  # noqa: ANN401 (diffusers has no types)
    reward: LatentReward,
    prompts: Sequence[str],
    shown: Sequence[str],
    *,
    held_out: Scorer | None,
    guidance: float,
    groups: Sequence[RankedGroup] = (),
) -> dict[str, Any]:
    """What the trained weights and their reports depend on, as it is read back from JSON.

    Args:
        config: The configuration.
        pipe: The pipeline, before LoRA matrices are put on it.
        reward: The reward.
        prompts: To train on.
        shown: Of the samples.
        held_out: The second scorer that measures them.
        guidance: The scale that pictures to train on have, whatever it follows from.
        groups: Ranked ones to train on.
    """
    values = {
        **config.exact_values(),
        "guidance": guidance,
        **{
            name if name == "pipeline" else f"pipeline_{name}": value
            for name, value in described_pipeline(pipe).items()
        },
        **reward.described(),
        "prompts": _prompts(prompts),
        **({"groups": f"{len(groups)} groups, {fingerprint(groups)}"} if groups else {}),
        "sample_prompts": _prompts(shown),
        "held_out": None if held_out is None else held_out.name,
        "held_out_weights": None if held_out is None else weights_digest(held_out),
    }
    read_back: dict[str, Any] = json.loads(json.dumps({"config": values}))
    return read_back


def _prompts(prompts: Sequence[str]) -> str:
    return f"{len(prompts)} prompts, {text_digest(prompts)}"
