"""By how much each picture of a prompt is better than the prompt's others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .method_settings import Combine, Spread

ADVANTAGE_BOUND: Final = 5.0
"""The largest advantage (ddpo-pytorch's adv_clip_max; flow_grpo's and DiffusionNFT's too)."""
DDPO_FLOOR: Final = 1e-6
"""What ddpo-pytorch adds to the deviation."""
GRPO_FLOOR: Final = 1e-4
"""What flow_grpo adds to the deviation."""


class Advantages(NamedTuple):
    """Of the pictures of a step.

    Attributes:
        values: `(batch,)`, from -5 to 5.
        kept: Whether the picture's prompt has pictures of different rewards, bool `(batch,)`.
            Where it has not there is nothing to learn.
        dropped: The number of prompts without.
    """

    values: Tensor
    kept: Tensor
    dropped: int


def advantages(
    rewards: Tensor,
    prompts: Sequence[str],
    *,
    weights: Tensor,
    spread: Spread,
    combine: Combine,
    floor: float,
) -> Advantages:
    """Rewards less the mean of their prompt's pictures, divided by a deviation.

    (r - mean over the prompt's pictures) / (std + floor), at most 5 in size. DDPO (Black et al.
    2023, section 5) divides by the deviation over the prompt's pictures, Flow-GRPO (Liu et al.
    2025) by that over the whole batch. Of several rewards either the weighted sum is treated so,
    or each by itself, and the advantages are added with the weights (MixGRPO, Li et al. 2025).
    Deviations are those of the population.

    Args:
        rewards: `(batch, rewards)`, of all pictures of a step.
        prompts: One for each picture.
        weights: Of the rewards, `(rewards,)`.
        spread: Over what the deviation is: "batch" or "prompt".
        combine: What is added: "rewards" or "advantages".
        floor: Added to the deviation.
    """
    factors = weights.to(rewards)
    columns = (rewards * factors).sum(dim=1, keepdim=True) if combine == "rewards" else rewards
    better = torch.zeros_like(columns)
    kept = torch.zeros(len(rewards), dtype=torch.bool, device=rewards.device)
    rows: dict[str, list[int]] = {}
    for row, prompt in enumerate(prompts):
        rows.setdefault(prompt, []).append(row)
    dropped = 0
    for group in rows.values():
        own = columns[group]
        better[group] = own - own.mean(dim=0)
        if spread == "prompt":
            better[group] /= own.std(dim=0, correction=0) + floor
        differ = bool((own.amax(dim=0) > own.amin(dim=0)).any())
        kept[group] = differ
        dropped += not differ
    if spread == "batch":
        better = better / (columns.std(dim=0, correction=0) + floor)
    total = better[:, 0] if combine == "rewards" else (better * factors).sum(dim=1)
    total = torch.where(kept, total, 0.0)
    return Advantages(total.clamp(-ADVANTAGE_BOUND, ADVANTAGE_BOUND), kept, dropped)
