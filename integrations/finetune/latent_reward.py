"""The reward of the latents that a sampling loop makes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, final

import torch
from torch.utils.checkpoint import checkpoint

from stablepref.scorer import Scorer
from stablepref.weights.fingerprint import weights_digest

from ..diffusion.latents import SIGNED, decode_latents
from ..diffusion.pipelines import unwrapped
from ..ensemble import Ensemble
from ..reward import DifferentiableReward
from ..sampled_rewards import as_scorer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor


@final
class LatentReward:
    """Rewards `(batch,)` of latents, with gradients where the scorer has them.

    Attributes:
        reward: The reward of pictures or latents.

    Args:
        pipe: The pipeline whose VAE decodes.
        decode: Pictures `(batch, 3, H, W)` in [0, 1] of latents; None where the VAE decodes them as
            they are.
        reward: A reward; or a scorer or what `stablepref.load` takes, for its plain reward.

    Raises:
        TypeError: `reward` is something else.
        ValueError: The reward has a VAE that is not the pipeline's.
    """

    def __init__(
        self,
        pipe: Any,  # noqa: ANN401 (diffusers has no types)
        reward: DifferentiableReward | Scorer | str | os.PathLike[str],
        *,
        decode: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        given: object = reward
        if isinstance(given, Scorer | str | os.PathLike):
            given = DifferentiableReward(as_scorer(given, pipe.device), vae=pipe.vae)
        if not isinstance(given, DifferentiableReward):
            msg = (
                f"reward is a {type(given).__name__}; expected a DifferentiableReward, a scorer "
                "or the name of one"
            )
            raise TypeError(msg)
        if given.vae is not None and unwrapped(given.vae) is not unwrapped(pipe.vae):
            msg = "the reward has another VAE than the pipeline; make it with vae=pipe.vae"
            raise ValueError(msg)
        self.reward = given
        self._vae = pipe.vae
        self._decode = decode
        self._of_pixels = DifferentiableReward(
            given.scorer, views=given.views, reduce=given.reduce, checkpointing=given.checkpointing
        )

    @property
    def scorer(self) -> Scorer:
        """The reward model."""
        return self.reward.scorer

    def __call__(self, latents: Tensor, prompts: Sequence[str], *, step: int) -> Tensor:
        """Rewards of latents `(batch, ...)`, on the weak views of a step.

        Raises:
            ValueError: A latent, picture or reward is not finite.
        """
        if self._decode is not None:
            if not bool(latents.isfinite().all()):
                msg = "a latent is not finite"
                raise ValueError(msg)
            return self._of_pixels(self._decoded(self._decode, latents), prompts, step=step)
        if self.reward.vae is not None:
            return self.reward(latents, prompts, step=step)
        pictures = decode_latents(self._vae, latents)
        if self.reward.value_range != SIGNED:
            pictures = ((pictures + 1) / 2).clamp(0, 1)
        return self.reward(pictures, prompts, step=step)

    def _decoded(self, decode: Callable[[Tensor], Tensor], latents: Tensor) -> Tensor:
        """Pictures, with checkpointing one by one."""
        if not self.reward.checkpointing:
            return decode(latents)
        rows = latents.split(1)
        return torch.cat([checkpoint(decode, row, use_reentrant=False) for row in rows])

    def described(self) -> dict[str, object]:
        """What the rewards depend on, plain JSON values."""
        together = None
        if isinstance(self.scorer, Ensemble):
            together = [self.scorer.weights.tolist(), *map(list, self.scorer.normalisation)]
        return {
            "reward": self.scorer.name,
            "reward_weights": weights_digest(self.scorer),
            "reward_ensemble": together,
            "reward_views": self.reward.views,
            "reward_reduce": self.reward.reduce,
        }
