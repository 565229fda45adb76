"""The training objective of a whole batch, as a function of its scores alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import torch

from stablepref.losses import (
    MarginWeighting,
    anti_interference_loss,
    margin_weight,
    order_weight,
    pair_margin,
    preference_loss,
    weighted_loss,
)

if TYPE_CHECKING:
    from torch import Tensor


class Objective(NamedTuple):
    """One batch's loss and what people watch beside it.

    Attributes:
        loss: Scalar, differentiable in the scores.
        margin: ΔS of each pair, `(pairs,)`.
        weight: What each pair's loss was multiplied with, times the number of pairs in step 2, so
            that its mean is 1 there; `(pairs,)`.
    """

    loss: Tensor
    margin: Tensor
    weight: Tensor


def batch_objective(
    scores: Tensor,
    better: Tensor,
    worse: Tensor,
    label: Tensor,
    *,
    weighting: Literal["order", "margin", "none"],
    anti_interference: bool = True,
    b: float = 0.3,
    tau: float = 0.2,
    margin_weighting: MarginWeighting = "softmax",
    detach_weights: bool = True,
) -> Objective:
    """Equation 7 (``"order"``), equation 8 (``"margin"``), or the mean pair loss (``"none"``).

    Args:
        scores: Of every image and its weak views, `(images, 1 + k)`, the image itself first.
        better: int64 `(pairs,)`, rows of `scores`.
        worse: int64 `(pairs,)`, rows of `scores`.
        label: Probability that `better` is the better one, `(pairs,)`; 1 but for ties.
        weighting: Step 1, step 2, or cross-entropy's.
        anti_interference: Add equation 5's loss to the preference loss.
        b: As in `order_weight`, as is `tau`.
        tau: Width of step 1's transition.
        margin_weighting: As `kind` in `margin_weight`.
        detach_weights: Let no gradient through the weights.

    Returns:
        The loss and its parts. Without pairs the loss is 0.
    """
    better_views, worse_views = scores[better], scores[worse]
    margin = pair_margin(better_views, worse_views)
    loss = preference_loss(margin, label)
    if anti_interference:
        loss = loss + anti_interference_loss(better_views, worse_views)
    count = max(1, len(margin))
    if weighting == "margin":
        weight = margin_weight(margin, margin_weighting, detach=detach_weights)
        return Objective(weighted_loss(loss, weight, "sum"), margin, weight * count)
    if weighting == "order":
        weight = order_weight(margin, b, tau, detach=detach_weights)
    else:
        weight = torch.ones_like(margin)
    return Objective(weighted_loss(loss, weight, count=count), margin, weight)
