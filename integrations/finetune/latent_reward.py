"""The reward of the latents that a sampling loop makes."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, final

import torch
from torch.utils.checkpoint import checkpoint

from stablepref.models.registry import not_a_model
from stablepref.scorer import Scorer
from stablepref.weights.fingerprint import weights_digest

from ..diffusion.latents import SIGNED, UNIT, decode_latents
from ..diffusion.pipelines import unwrapped
from ..ensemble import Ensemble
from ..reward import DifferentiableReward
from ..sampled_rewards import as_scorer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor


RewardLike: TypeAlias = DifferentiableReward | Scorer | str | os.PathLike[str]
"""A reward, or what stands for the plain reward of a scorer."""


@final
@dataclass(frozen=True)
class WeightedReward:
    """One of several rewards at once.

    Attributes:
        reward: A `DifferentiableReward`; a scorer or what `stablepref.load` takes is its plain
            reward.
        weight: What it is multiplied by, in the scorer's unit; not 0.
        name: What the metrics call it; None for the scorer's name.
    """

    reward: RewardLike
    weight: float = 1.0
    name: str | None = None


@final
class LatentReward:
    """Rewards of latents, with gradients where the scorer has them: of one reward, or several.

    Attributes:
        rewards: The rewards of pictures or latents.
        weights: What each is multiplied by, `(rewards,)` on the CPU.
        names: What each is called.
        scorer: The reward model; of several rewards an `Ensemble` that is their weighted sum.

    Args:
        pipe: The pipeline whose VAE decodes.
        reward: A reward; or a scorer or what `stablepref.load` takes, for its plain reward; or
            several with weights.
        decode: Pictures `(batch, 3, H, W)` in [0, 1] of latents; None where the VAE decodes them as
            they are.

    Raises:
        TypeError: `reward` is something else.
        ValueError: The reward has a VAE that is not the pipeline's, a weight is 0 or not finite,
            two rewards have one name, or one of several is an ensemble.
    """

    def __init__(
        self,
        pipe: Any,  # noqa: ANN401 (diffusers has no types)
        reward: RewardLike | Sequence[WeightedReward],
        *,
        decode: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        several: Any = reward if isinstance(reward, list | tuple) else [WeightedReward(reward)]  # type: ignore[arg-type] # looked at below
        given = _checked(several)
        self.rewards = [_reward_of(pipe, one.reward) for one in given]
        self.weights = torch.tensor([float(one.weight) for one in given], device="cpu")
        scorers = [one.scorer for one in self.rewards]
        self.names = [one.name or s.name for one, s in zip(given, scorers, strict=True)]
        if len(set(self.names)) < len(self.names):
            msg = f"the rewards are called {', '.join(self.names)}; give each a name of its own"
            raise ValueError(msg)
        self._vae = pipe.vae
        self._decode = decode
        if len(given) == 1 and given[0].weight == 1:
            self.scorer: Scorer = scorers[0]
        else:
            self.scorer = _sum_of(scorers, self.weights.tolist(), self.names)

    def __call__(self, latents: Tensor, prompts: Sequence[str], *, step: int) -> Tensor:
        """Rewards `(batch,)` of latents `(batch, ...)`, on the weak views of a step.

        Raises:
            ValueError: A latent, picture or reward is not finite.
        """
        return self.total(self.parts(latents, prompts, step=step))

    def total(self, parts: Tensor) -> Tensor:
        """The weighted sum `(batch,)` of `(batch, rewards)`."""
        return (parts * self.weights.to(parts)).sum(dim=1)

    def parts(self, latents: Tensor, prompts: Sequence[str], *, step: int) -> Tensor:
        """Each reward, without its weight, of latents `(batch, ...)`.

        Returns:
            `(batch, rewards)`, each in its scorer's unit.

        Raises:
            ValueError: A latent, picture or reward is not finite.
        """
        if self._decode is not None:
            if not bool(latents.isfinite().all()):
                msg = "a latent is not finite"
                raise ValueError(msg)
            pixels = self._decoded(self._decode, latents)
            found = [_of_pictures(r, UNIT)(pixels, prompts, step=step) for r in self.rewards]
            return torch.stack(found, dim=1)
        if len(self.rewards) == 1 and self.rewards[0].vae is not None:
            return self.rewards[0](latents, prompts, step=step)[:, None]
        pictures = decode_latents(self._vae, latents)
        found = []
        for reward in self.rewards:
            of_range = pictures
            if reward.value_range != SIGNED:
                of_range = ((pictures + 1) / 2).clamp(0, 1)
            taken = reward if reward.vae is None else _of_pictures(reward, SIGNED)
            found.append(taken(of_range, prompts, step=step))
        return torch.stack(found, dim=1)

    def _decoded(self, decode: Callable[[Tensor], Tensor], latents: Tensor) -> Tensor:
        """Pictures, with checkpointing one by one."""
        if not any(reward.checkpointing for reward in self.rewards):
            return decode(latents)
        rows = latents.split(1)
        return torch.cat([checkpoint(decode, row, use_reentrant=False) for row in rows])

    def described(self) -> dict[str, object]:
        """What the rewards depend on, plain JSON values."""
        together = None
        if isinstance(self.scorer, Ensemble):
            together = [self.scorer.weights.tolist(), *map(list, self.scorer.normalisation)]
        first = self.rewards[0]
        views = [one.views for one in self.rewards]
        reduce = [one.reduce for one in self.rewards]
        return {
            "reward": self.scorer.name,
            "reward_weights": weights_digest(self.scorer),
            "reward_ensemble": together,
            "reward_views": first.views if len(views) == 1 else views,
            "reward_reduce": first.reduce if len(views) == 1 else reduce,
        }


def _checked(given: Sequence[object]) -> Sequence[WeightedReward]:
    """The rewards, each with a weight that counts.

    Raises:
        TypeError: One is something else.
        ValueError: There is none, or a weight is 0 or not finite.
    """
    if not given:
        msg = "the list of rewards is empty; expected at least one WeightedReward"
        raise ValueError(msg)
    checked = []
    for place, one in enumerate(given):
        if not isinstance(one, WeightedReward):
            msg = f"reward {place} is a {type(one).__name__}; expected a WeightedReward"
            raise TypeError(msg)
        if not one.weight or not math.isfinite(one.weight):
            msg = f"the weight of reward {place} is {one.weight}; expected a finite number, not 0"
            raise ValueError(msg)
        checked.append(one)
    return checked


def _reward_of(pipe: Any, reward: object) -> DifferentiableReward:  # noqa: ANN401 (diffusers has no types)
    if isinstance(reward, Scorer | str | os.PathLike):
        return DifferentiableReward(as_scorer(reward, pipe.device), vae=pipe.vae)
    if not isinstance(reward, DifferentiableReward):
        expected = "a DifferentiableReward, a scorer, its name, or a list of WeightedReward"
        raise TypeError(not_a_model(reward, expected, what="reward"))
    if reward.vae is not None and unwrapped(reward.vae) is not unwrapped(pipe.vae):
        msg = "the reward has another VAE than the pipeline; make it with vae=pipe.vae"
        raise ValueError(msg)
    return reward


def _of_pictures(
    reward: DifferentiableReward, value_range: tuple[float, float]
) -> DifferentiableReward:
    """The reward, for pictures of a range."""
    return DifferentiableReward(
        reward.scorer,
        value_range=value_range,
        views=reward.views,
        reduce=reward.reduce,
        checkpointing=reward.checkpointing,
    )


def _sum_of(scorers: Sequence[Scorer], weights: Sequence[float], names: Sequence[str]) -> Scorer:
    """What the samples are measured by: the weighted sum that is optimised."""
    if any(isinstance(one, Ensemble) for one in scorers):
        msg = "one of several rewards is an ensemble; give its scorers as rewards of their own"
        raise ValueError(msg)
    return Ensemble(scorers, weights=weights, name="+".join(names))
