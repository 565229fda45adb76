"""Reward models for Flow-Factory, named in its configuration by where they are.

rewards:
  - name: "preference"
    reward_model: "stablepref.integrations.flow_factory.PointwiseReward"
    scorer: "hps-v2.1"
    batch_size: 16
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from .sampled_rewards import as_scorer

try:
    from flow_factory.rewards.abc import (
        GroupwiseRewardModel,
        PointwiseRewardModel,
        RewardModelOutput,
    )
except ImportError as error:
    _msg = f"these are reward models for Flow-Factory, which cannot be imported here ({error})"
    raise ImportError(_msg) from error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image
    from torch import Tensor

    from stablepref.scorer import Scorer


class _OfScorer:
    """What both kinds of rewards are to Flow-Factory: a scorer that is shown prompts and images."""

    required_fields = ("prompt", "image")
    use_tensor_inputs = False
    device: torch.device

    def __init__(self, config: Any, accelerator: Any) -> None:  # noqa: ANN401 (Flow-Factory's)
        super().__init__(config, accelerator)  # type: ignore[call-arg] # of the other base
        self.model: Scorer = _scorer(config, self.device)


class PointwiseReward(_OfScorer, PointwiseRewardModel):
    """Scores of images, each by itself, in the scorer's unit.

    Args:
        config: Flow-Factory's, with `scorer`: what `stablepref.load` takes, an address among it.
        accelerator: Of Hugging Face's accelerate.

    Raises:
        ValueError: The configuration names no scorer.
    """

    def __call__(
        self,
        prompt: Sequence[str],
        image: Sequence[Image.Image] | Sequence[Tensor] | None = None,
        **_: object,
    ) -> Any:  # noqa: ANN401 (Flow-Factory's)
        """Rewards `(batch,)`, float32, of PIL images or float tensors `(3, H, W)` in [0, 1]."""
        images = _images(image, prompt)
        scores = self.model.score(images, list(prompt), progress=False)
        return RewardModelOutput(rewards=scores.to(self.device))


class GroupwiseReward(_OfScorer, GroupwiseRewardModel):
    """For each image the share of its group's others that it beats, 0 to 1; ties count half.

    It takes any scorer, and a judge of pairs, which compares the images of a group with each other.

    Args:
        config: As for `PointwiseReward`.
        accelerator: Of Hugging Face's accelerate.

    Raises:
        ValueError: The configuration names no scorer.
    """

    def __call__(
        self,
        prompt: Sequence[str],
        image: Sequence[Image.Image] | Sequence[Tensor] | None = None,
        **_: object,
    ) -> Any:  # noqa: ANN401 (Flow-Factory's)
        """Rewards `(group,)`, float32, of the images of one prompt.

        Raises:
            ValueError: The prompts differ.
        """
        images = _images(image, prompt)
        if len(set(prompt)) != 1:
            msg = f"a group has one prompt, got {len(set(prompt))}: {sorted(set(prompt))[:2]}"
            raise ValueError(msg)
        ranked = self.model.rank(images, prompt[0], progress=False)
        scores = torch.empty(len(images))
        for one in ranked:
            scores[one.index] = one.score
        better = (scores[:, None] > scores).float() + 0.5 * (scores[:, None] == scores).float()
        shares = (better.sum(dim=1) - 0.5) / max(1, len(images) - 1)
        return RewardModelOutput(rewards=shares.to(self.device))


def _scorer(config: object, device: torch.device) -> Scorer:
    name = getattr(config, "scorer", None)
    if not name:
        msg = 'the reward has no scorer: add one to its configuration, such as scorer: "hps-v2.1"'
        raise ValueError(msg)
    return as_scorer(name, device)


def _images(image: Sequence[Any] | None, prompt: Sequence[str]) -> list[Any]:
    """The images of a call, as many as its prompts.

    Raises:
        ValueError: There are none, as for videos, or another number.
    """
    if image is None or len(image) != len(prompt):
        count = "no" if image is None else len(image)
        msg = f"{count} images for {len(prompt)} prompts; expected one for each, and no videos"
        raise ValueError(msg)
    return list(image)
