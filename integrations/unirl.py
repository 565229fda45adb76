"""A reward backend for UniRL in the trainer's own process, with gradients if the model has them.

reward:
  backend:
    _target_: stablepref.integrations.unirl.StableprefReward
    base_device: cuda
    config:
      _target_: stablepref.integrations.unirl.StableprefSpec
      scorer: hps-v2.1
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .reward import DifferentiableReward
from .sampled_rewards import as_scorer

try:
    from unirl.reward.base import PromptRewardComponentSpec, RewardBackend
    from unirl.types.reward import RewardResponse
except ImportError as error:
    _msg = f"this is a reward for UniRL, which cannot be imported here ({error})"
    raise ImportError(_msg) from error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


@dataclass
class StableprefSpec(PromptRewardComponentSpec):
    """The configuration of `StableprefReward`.

    Attributes:
        scorer: What `stablepref.load` takes, an address among it.
        batch_size: Images at once.
        device: Where the model runs; "auto" is the backend's own device.
        divisor: What scores are divided by.
    """

    scorer: str = ""
    batch_size: int = 8
    device: str = "auto"
    divisor: float = 1.0


class StableprefReward(RewardBackend):
    """Scores of a request's images under its prompts.

    An image that cannot be scored is a failure with its reason, as UniRL's own are.

    Args:
        config: Which model, and where.
        base_device: Of the trainer's process.

    Raises:
        ValueError: The configuration names no scorer.
    """

    input_kind = "image"

    def __init__(self, *, config: StableprefSpec, base_device: str) -> None:
        if not config.scorer:
            msg = 'the reward names no scorer: add one, such as scorer: "hps-v2.1"'
            raise ValueError(msg)
        super().__init__(
            model_name=config.scorer,
            batch_size=config.batch_size,
            prompt_source=config.prompt_source,
        )
        device = base_device if config.device == "auto" else config.device
        self.scorer = as_scorer(config.scorer, device)
        self.divisor = config.divisor
        self._home = self.scorer.device

    def compute_rewards(self, request: Any) -> Any:  # noqa: ANN401 (UniRL's)
        """Rewards of a `RewardRequest`, in a `RewardResponse`."""
        started = time.time()
        images = list(request.images or [])
        prompts = self.prompts(request)
        if len(prompts) != len(images):
            msg = f"the request has {len(images)} images and {len(prompts)} prompts"
            raise ValueError(msg)
        results = (
            [
                *self.scorer.stream(
                    images, prompts, batch_size=self.batch_size, on_error="nan", progress=False
                )
            ]
            if images
            else []
        )
        errors = [
            one.error if one.error is not None or math.isfinite(one.score) else f"{one.score}"
            for one in results
        ]
        return RewardResponse(
            rewards=[
                0.0 if error is not None else one.score / self.divisor
                for one, error in zip(results, errors, strict=True)
            ],
            successes=[error is None for error in errors],
            errors=errors,
            compute_time=time.time() - started,
        )

    def compute_rewards_differentiable(
        self,
        media_tensor: Tensor,
        prompts: Sequence[str],
        records: object = None,
    ) -> Tensor:
        """Rewards `(batch,)` with gradients to images `(batch, 3, H, W)` in [0, 1].

        Raises:
            ValueError: As `DifferentiableReward`, for a scorer without gradient too.
        """
        del records
        rewards = DifferentiableReward(self.scorer)(media_tensor.float(), prompts)
        return rewards / self.divisor

    def is_available(self) -> bool:
        """A model that is here is available."""
        return True

    def offload(self) -> None:
        """Free the device's memory."""
        self.scorer.to("cpu")

    def onload(self) -> None:
        """Take the device's memory again."""
        self.scorer.to(self._home)
