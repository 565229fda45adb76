"""The losses of *Stable Preference* (Li, Niu and Zhao, sections 3.1 to 3.3) as pure functions.

Notation. ``S`` is a score in the model's own unit. For a pair, the margin is
``ΔS = S(better) - S(worse)``. Every loss is returned per pair, shape ``(pairs,)``, and every weight
too, so that any pair loss can be weighted by any step's weight. With ``dS = pair_margin(...)`` and
``loss = stable_pair_loss(...)``, the paper trains on ``weighted_loss(loss, order_weight(dS))`` in
step 1 and on ``weighted_loss(loss, margin_weight(dS), "sum")`` in step 2. `batch_objective` puts
them together for a batch: it is what training minimises, as a function of the scores alone, and
`BatchLoss` is the form of any other function that can take its place.

Half-precision inputs are computed in float32 (bfloat16 cannot tell 27.0 from 27.1, and b is 0.3);
float32 and float64 are kept. Values and gradients stay finite for margins of ±10,000.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from stablepref.scoring.uncertainty import difference_deviation, uncertain_preference_loss

MarginWeighting = Literal["softmax", "uniform", "inverse"]

# The weight of a pair in step 2 is exp(sign * ΔS), normalised over the batch (Table 3).
_MARGIN_SIGNS: dict[str, float] = {"softmax": 1.0, "uniform": 0.0, "inverse": -1.0}


def preference_loss(margin: Tensor, label: Tensor | float = 1.0) -> Tensor:
    """Cross-entropy of a pair's choice, -log sigmoid(ΔS): equations 2 and 3.

    The sign that equation 2 lacks is a misprint: as printed, training would lower it without bound.
    With a soft label y the loss is -y log sigmoid(ΔS) - (1 - y) log sigmoid(-ΔS), which is how
    PickScore trains on ties.

    Args:
        margin: ΔS of each pair, shape ``(pairs,)``, in model units.
        label: Probability in [0, 1] that the first image is the better one: 1 for an untied pair,
            0.5 for a tie. A number, or a tensor that broadcasts to ``margin``.

    Returns:
        The loss of each pair, shape ``(pairs,)``, at least 0.

    Raises:
        ValueError: If ``label`` is a number outside [0, 1]. Tensors are not read back for this.
    """
    margin = _full_precision(margin)
    if isinstance(label, Tensor):
        label = label.to(margin.dtype)
    elif not 0.0 <= label <= 1.0:
        raise ValueError(f"label is {label}; expected a probability from 0 to 1 (0.5 for a tie)")
    return functional.softplus(-margin) + (1.0 - label) * margin


def view_spread(views: Tensor) -> Tensor:
    """Largest minus smallest score among an image's views: one term of dist_intra, equation 6.

    Args:
        views: Scores of the original and its k weak views, shape ``(..., 1 + k)``.

    Returns:
        The spread, shape ``(...)``, at least 0; exactly 0 for k = 0.
    """
    views = _full_precision(views)
    return views.amax(dim=-1) - views.amin(dim=-1)


def view_distances(better_views: Tensor, worse_views: Tensor) -> tuple[Tensor, Tensor]:
    """dist_inter and dist_intra of each pair: equation 6.

    dist_inter is the smallest score of the better image minus the largest of the worse one: what
    is left of the margin in the least favourable views. dist_intra is the mean spread of the two.

    Args:
        better_views: Scores of the better image, original first, shape ``(pairs, 1 + k)``.
        worse_views: Scores of the worse image, likewise ``(pairs, 1 + k)``.

    Returns:
        dist_inter and dist_intra, each of shape ``(pairs,)``, in model units.

    Raises:
        ValueError: If the two are not matrices of equal shape with at least one column.
    """
    _check_views(better_views, worse_views)
    better, worse = _full_precision(better_views), _full_precision(worse_views)
    inter = better.amin(dim=-1) - worse.amax(dim=-1)
    intra = (view_spread(better) + view_spread(worse)) / 2
    return inter, intra


def anti_interference_loss(better_views: Tensor, worse_views: Tensor) -> Tensor:
    """Keep the order of a pair under weak views: softplus(dist_intra - dist_inter).

    This is equation 5, -log(e^inter / (e^inter + e^intra)), written so that it cannot overflow.
    With k = 0 dist_intra is 0, dist_inter is ΔS, and the loss is `preference_loss` of ΔS.
    Where several views share the largest or smallest score, they share the gradient equally.

    Args:
        better_views: Scores of the better image, original first, shape ``(pairs, 1 + k)``.
        worse_views: Scores of the worse image, likewise ``(pairs, 1 + k)``.

    Returns:
        The loss of each pair, shape ``(pairs,)``.

    Raises:
        ValueError: If the two are not matrices of equal shape with at least one column.
    """
    inter, intra = view_distances(better_views, worse_views)
    return functional.softplus(intra - inter)


def stable_pair_loss(better_views: Tensor, worse_views: Tensor) -> Tensor:
    """L_pref + L_ai of each pair, what both steps weight: equations 7 and 8 without the weights.

    Args:
        better_views: Scores of the better image, original first, shape ``(pairs, 1 + k)``.
        worse_views: Scores of the worse image, likewise ``(pairs, 1 + k)``.

    Returns:
        The loss of each pair, shape ``(pairs,)``.

    Raises:
        ValueError: If the two are not matrices of equal shape with at least one column.
    """
    loss = anti_interference_loss(better_views, worse_views)
    return loss + preference_loss(pair_margin(better_views, worse_views))


def pair_margin(better_views: Tensor, worse_views: Tensor) -> Tensor:
    """ΔS of each pair from its original images, the first column of the views.

    Args:
        better_views: Scores of the better image, original first, shape ``(pairs, 1 + k)``.
        worse_views: Scores of the worse image, likewise ``(pairs, 1 + k)``.

    Returns:
        ΔS, shape ``(pairs,)``, in model units.

    Raises:
        ValueError: If the two are not matrices of equal shape with at least one column.
    """
    _check_views(better_views, worse_views)
    return _full_precision(better_views[:, 0]) - _full_precision(worse_views[:, 0])


def order_weight(
    margin: Tensor, b: float = 0.3, tau: float = 0.2, *, detach: bool = True
) -> Tensor:
    """Weight of a pair in step 1, 1 / (1 + e^((ΔS - b) / τ)): equation 7.

    Near 1 for pairs in the wrong order, below ε for ΔS > b + τ ln((1 - ε) / ε). At ΔS = 0 it is
    1 / (1 + e^(-b/τ)), which is 0.818 for the default b and τ (section 4.2).

    Args:
        margin: ΔS of each pair, shape ``(pairs,)``, in model units.
        b: Margin at which the weight is one half, in model units.
        tau: Width of the transition, in model units, above 0.
        detach: Let no gradient through the weight. The paper does not say which it does; a weight
            says how much a pair matters and is no objective of its own.

    Returns:
        The weight of each pair, shape ``(pairs,)``, from 0 to 1.

    Raises:
        ValueError: If ``tau`` is not above 0.
    """
    if not tau > 0:
        raise ValueError(f"tau is {tau}; expected a number above 0 (the paper uses 0.2)")
    margin = _full_precision(margin)
    if detach:
        margin = margin.detach()
    return torch.sigmoid((b - margin) / tau)


def margin_log_normalizer(margin: Tensor, kind: MarginWeighting = "softmax") -> Tensor:
    """Logarithm of the denominator of `margin_weight` over the given pairs, a scalar.

    The parts of a batch combine by ``torch.logsumexp``: for micro-batches or processes with parts
    ``z_1, z_2, ...`` the whole batch has ``torch.logsumexp(torch.stack([z_1, z_2, ...]), 0)``.
    For ``"uniform"`` it is log N, so that the one rule serves every kind.

    Args:
        margin: ΔS of each pair, shape ``(pairs,)``.
        kind: ``"softmax"``, ``"uniform"`` or ``"inverse"``.

    Returns:
        log Σ exp(sign · ΔS), a scalar.

    Raises:
        ValueError: If ``kind`` is not known.
    """
    return torch.logsumexp(_signed(_full_precision(margin), kind), dim=0)


def margin_weight(
    margin: Tensor,
    kind: MarginWeighting = "softmax",
    *,
    log_normalizer: Tensor | float | None = None,
    detach: bool = True,
) -> Tensor:
    """Weight of a pair in step 2, a softmax of the margins over the mini-batch: equation 8.

    ``"softmax"`` is e^ΔS_j / Σ e^ΔS_i, the paper's choice; ``"inverse"`` uses -ΔS and
    ``"uniform"`` is 1 / N: the three rows of Table 3. The weights of a whole batch sum to 1.

    Args:
        margin: ΔS of each pair, shape ``(pairs,)``, in model units.
        kind: ``"softmax"``, ``"uniform"`` or ``"inverse"``.
        log_normalizer: `margin_log_normalizer` of **all** pairs of the global batch, where
            ``margin`` holds a part of them (one process, one micro-batch). Default: ``margin`` is
            the whole batch. With ``detach=False`` its gradient counts too: it must come from a
            graph that holds every margin.
        detach: Let no gradient through the weight; see `order_weight`.

    Returns:
        The weight of each pair, shape ``(pairs,)``.

    Raises:
        ValueError: If ``kind`` is not known.
    """
    margin = _full_precision(margin)
    if log_normalizer is None:
        log_normalizer = margin_log_normalizer(margin, kind)
    weight = torch.exp(_signed(margin, kind) - log_normalizer)
    return weight.detach() if detach else weight


def weighted_loss(
    loss: Tensor,
    weight: Tensor,
    reduction: Literal["mean", "sum"] = "mean",
    *,
    count: int | None = None,
) -> Tensor:
    """Reduce weighted pair losses to a scalar: the mean in step 1, the sum in step 2.

    For a part of the global batch give ``count``, the pairs of the whole: the parts' means, and
    their gradients, then add up to those of the whole batch. Sums need no count.

    Args:
        loss: Loss of each pair, shape ``(pairs,)``.
        weight: Weight of each pair, shape ``(pairs,)``.
        reduction: ``"mean"`` (with `order_weight`) or ``"sum"`` (with `margin_weight`).
        count: Pairs in the global batch, for ``"mean"``. Default: those given.

    Returns:
        A scalar.

    Raises:
        ValueError: If ``reduction`` is not known or the shapes differ.
    """
    if loss.shape != weight.shape:
        raise ValueError(
            f"loss has shape {tuple(loss.shape)} and weight {tuple(weight.shape)}; expected one "
            "weight for each pair"
        )
    total = (weight * loss).sum()
    if reduction == "mean":
        return total / (loss.numel() if count is None else count)
    if reduction == "sum":
        return total
    raise ValueError(f"reduction is {reduction!r}; expected 'mean' or 'sum'")


class Objective(NamedTuple):
    """The loss of a batch and the parts of it that a training logs.

    Attributes:
        loss: Scalar, differentiable in the scores.
        margin: ΔS of each pair, ``(pairs,)``.
        weight: The factor of each pair's loss, ``(pairs,)``. In step 2 it is multiplied by the
            number of pairs, so that its mean is 1 there.
    """

    loss: Tensor
    margin: Tensor
    weight: Tensor


BatchLoss: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor | Objective]
"""What training can minimise: ``(scores, better, worse, label)`` to a scalar or an `Objective`.

The arguments are those of `batch_objective`. They are of the whole global batch, in every process
and for any micro-batch size.
"""


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
        scores: Scores of every image and its weak views, ``(images, 1 + k)``, the image itself in
            the first column, in model units.
        better: Rows of ``scores``, int64 ``(pairs,)``.
        worse: Rows of ``scores``, int64 ``(pairs,)``.
        label: Probability that ``better`` is the better image, ``(pairs,)``: 1, or 0.5 for a tie.
        weighting: Of step 1, of step 2, or of cross-entropy.
        anti_interference: Add equation 5's loss to the preference loss.
        b: Margin at which step 1 weights a pair by one half, in model units.
        tau: Width of step 1's transition, in model units.
        margin_weighting: Step 2's ``"softmax"``, ``"uniform"`` or ``"inverse"``.
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


def uncertainty_objective(
    scores: Tensor, better: Tensor, worse: Tensor, label: Tensor
) -> Objective:
    """HPS v3's loss: the mean over pairs of -E[log sigmoid(z)], z normal with both deviations.

    Ma et al. 2025 (arXiv:2508.03789) draw 1000 values of z for each pair; here the expectation is
    computed, so that equal scores give equal gradients. With a soft label y the loss is
    -y E[log sigmoid(z)] - (1 - y) E[log sigmoid(-z)].

    Args:
        scores: ``(images, 2 (1 + k))``: scores of every image and its weak views, the image itself
            first, and then the logarithms of their standard deviations. Views are not used.
        better: Rows of ``scores``, int64 ``(pairs,)``.
        worse: Rows of ``scores``, int64 ``(pairs,)``.
        label: Probability that ``better`` is the better image, ``(pairs,)``.

    Returns:
        The loss and its parts.
    """
    values, logarithms = (_full_precision(part[:, 0]) for part in scores.chunk(2, dim=1))
    margin = values[better] - values[worse]
    deviation = difference_deviation(logarithms[better], logarithms[worse])
    loss = uncertain_preference_loss(margin, deviation) + (1 - label.to(margin.dtype)) * margin
    return Objective(loss.mean(), margin, torch.ones_like(margin))


uncertainty_objective.__dict__.update(preference_scale=1.0, uncertainty=True)


def _full_precision(values: Tensor) -> Tensor:
    return values if values.dtype in (torch.float32, torch.float64) else values.float()


def _signed(margin: Tensor, kind: MarginWeighting) -> Tensor:
    if kind not in _MARGIN_SIGNS:
        raise ValueError(f"kind is {kind!r}; expected one of {', '.join(_MARGIN_SIGNS)}")
    return _MARGIN_SIGNS[kind] * margin


def _check_views(better_views: Tensor, worse_views: Tensor) -> None:
    shapes = tuple(better_views.shape), tuple(worse_views.shape)
    match shapes[0]:
        case (_, columns) if columns > 0 and shapes[0] == shapes[1]:
            return
    raise ValueError(
        f"better_views has shape {shapes[0]} and worse_views {shapes[1]}; expected both to be "
        "(pairs, 1 + k), the original's score in the first column"
    )
