"""Rewards in the form that trainers which backpropagate through the reward call.

Each function takes a `DifferentiableReward`. If it is robust (`views=`), every call takes fresh
views, so that no fixed set of crops can be learned. Trainers differ in a constant and a factor of
their losses; for scorers of the zoo these are its entries' `loss_form`.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final, final

from torch.nn import functional

from stablepref.models.catalog import BY_NAME
from stablepref.preprocess.protocols import CLIP_MEAN, CLIP_STD
from stablepref.runtime.precision import widen

from .diffusion.latents import UNIT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from stablepref.scorer import Scorer

    from .reward import DifferentiableReward

REFL_MARGIN: Final = 2.0  # ReFL.py of ImageReward: relu(-rewards + 2)
REFL_SCALE: Final = 1e-3  # its --grad_scale


def trl(
    reward: DifferentiableReward,
) -> Callable[[Tensor, Sequence[str], object], tuple[Tensor, dict[str, object]]]:
    """A reward function for TRL's DDPOTrainer and AlignPropTrainer (up to version 0.22).

    Args:
        reward: With value_range (0, 1), as TRL's pipelines return images.

    Returns:
        `reward_function(images, prompts, metadata) -> (rewards, {})`, with rewards `(batch,)` that
        have a gradient where the images have one.

    Raises:
        ValueError: The reward is for another value range.
    """
    _require_range(reward, UNIT, "TRL")
    fresh = _fresh_views(reward)

    def reward_function(
        images: Tensor, prompts: Sequence[str], metadata: object
    ) -> tuple[Tensor, dict[str, object]]:
        del metadata
        return fresh(images, prompts), {}

    return reward_function


def alignprop(
    reward: DifferentiableReward, *, offset: float | None = None, factor: float | None = None
) -> Callable[[Tensor, Sequence[str]], tuple[Tensor, Tensor]]:
    """A loss for AlignProp, in place of its `hps_loss_fn(...)`.

    Args:
        reward: With the value range of the images that AlignProp passes: (0, 1) for its
            `alignprop_trainer.py`, whose `rgb_with_grad` returns what a pipeline returns for
            `output_type="pt"`; (-1, 1) for its older `main.py`, which passes what the VAE decodes.
        offset: The loss is offset - factor x score. None takes AlignProp's for the scorers of
            the zoo, and 0 for others.
        factor: Factor of the score. None takes the trainer's own for the scorers of the zoo, and
            1 for others.

    Returns:
        `loss_fn(images, prompts) -> (loss, rewards)`, both `(batch,)`; `rewards` is factor x score.

    Raises:
        ValueError: The reward takes latents.
    """
    _require_range(reward, UNIT, "AlignProp", or_signed=True)
    fresh = _fresh_views(reward)
    constant, slope = _loss_form(reward.scorer, offset, factor)

    def loss_fn(images: Tensor, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        rewards = slope * fresh(images, prompts)
        return constant - rewards, rewards

    return loss_fn


def refl(
    reward: DifferentiableReward, *, margin: float | None = None, scale: float = REFL_SCALE
) -> Callable[[Tensor, Sequence[str]], Tensor]:
    """ReFL's loss, mean(relu(margin - reward)) x scale, of an x0 prediction decoded to [0, 1].

    ReFL takes it at one random late step, 30 to 39 of 40 (arXiv:2304.05977, algorithm 1).

    Args:
        reward: With value_range (0, 1), as ReFL's `image` is after its clamp; or with a VAE, for
            the x0 prediction itself as latents.
        margin: Rewards beyond it have no gradient. None takes 2, for ImageReward only: in other
            units that would be a loss without gradient, or without end.
        scale: Factor of the loss.

    Returns:
        `loss_fn(images, prompts)`, a scalar.

    Raises:
        ValueError: The reward is for another value range, or the margin is missing.
    """
    if reward.vae is None:
        _require_range(reward, UNIT, "ReFL")
    if margin is None:
        if reward.scorer.name != "imagereward-v1":
            msg = (
                f"ReFL's margin of 2 is meant for imagereward-v1; pass margin= in the unit of "
                f"{reward.scorer.name} ({reward.scorer.unit}), above the scores that you hope for"
            )
            raise ValueError(msg)
        margin = REFL_MARGIN
    fresh = _fresh_views(reward)

    def loss_fn(images: Tensor, prompts: Sequence[str]) -> Tensor:
        return functional.relu(margin - fresh(images, prompts)).mean() * scale

    return loss_fn


@final
class ReNOLoss:
    """A reward loss for ReNO's `LatentNoiseTrainer`: offset - factor x score, a scalar.

    Attributes:
        name: Under which ReNO logs it.
        weighting: The factor that ReNO gives it; its own are 5 for HPS, 1 for ImageReward, 0.05 for
            PickScore and 0.01 for CLIP.

    Args:
        reward: With value_range (0, 1).
        weighting: The factor that ReNO gives it.
        offset: None takes ReNO's for the scorers of the zoo, and 0 for others.
        factor: Factor of the score. None takes the trainer's own for the scorers of the zoo, and
            1 for others.

    Raises:
        ValueError: The reward is for another value range.
    """

    def __init__(
        self,
        reward: DifferentiableReward,
        *,
        weighting: float = 1.0,
        offset: float | None = None,
        factor: float | None = None,
    ) -> None:
        _require_range(reward, UNIT, "ReNO")
        self.name = reward.scorer.name
        self.weighting = weighting
        self._reward = _fresh_views(reward)
        self._offset, self._factor = _loss_form(reward.scorer, offset, factor)

    def __call__(self, image: Tensor, prompt: str) -> Tensor:
        """The loss of images `(batch, 3, 224, 224)`, normalised by CLIP's mean and deviation."""
        wide = widen(image)
        std, mean = (wide.new_tensor(values).view(3, 1, 1) for values in (CLIP_STD, CLIP_MEAN))
        pixels = (wide * std + mean).clamp(0, 1)  # ReNO's bicubic resize overshoots
        return self._offset - self._factor * self._reward(pixels, [prompt] * len(image)).mean()


def _fresh_views(reward: DifferentiableReward) -> Callable[[Tensor, Sequence[str]], Tensor]:
    """The reward with other views on each call; a count is safe to share between threads."""
    steps = itertools.count()
    return lambda images, prompts: reward(images, prompts, step=next(steps))


def _require_range(
    reward: DifferentiableReward,
    value_range: tuple[float, float],
    trainer: str,
    *,
    or_signed: bool = False,
) -> None:
    fits = tuple(reward.value_range) == value_range or or_signed
    if reward.vae is not None or not fits:
        kind = "latents" if reward.vae is not None else f"images in {tuple(reward.value_range)}"
        low, high = (int(bound) for bound in value_range)
        msg = (
            f"{trainer} sends images in [{low}, {high}]{' or [-1, 1]' if or_signed else ''} and "
            f"this reward takes {kind}; make it with value_range=({low}, {high}) and no vae"
        )
        raise ValueError(msg)


def _loss_form(scorer: Scorer, offset: float | None, factor: float | None) -> tuple[float, float]:
    entry = BY_NAME.get(scorer.name)
    usual = (0.0, 1.0) if entry is None else entry.loss_form
    return usual[0] if offset is None else offset, usual[1] if factor is None else factor
