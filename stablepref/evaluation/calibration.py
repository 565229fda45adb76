"""Whether a stated probability of preference is true as often as it says."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

_EVEN = 0.5


class ReliabilityBin(NamedTuple):
    """The choices whose confidence falls into one bin.

    Attributes:
        confidence: Their mean confidence, from 0.5 to 1.
        accuracy: The share of them that is right.
        pairs: How many there are.
    """

    confidence: float
    accuracy: float
    pairs: int


class Reliability(NamedTuple):
    """A reliability curve and what sums it up.

    Attributes:
        bins: The bins that hold any choice, from the least confident on.
        error: Expected calibration error: the mean of |accuracy - confidence| over the bins,
            weighted by pairs. 0 is perfect.
        brier: Mean squared difference of probability and outcome. 0 is perfect, 0.25 is a coin.
    """

    bins: tuple[ReliabilityBin, ...]
    error: float
    brier: float


def reliability(probability: ArrayLike, outcome: ArrayLike = 1.0, *, bins: int = 10) -> Reliability:
    """Compare stated probabilities with outcomes: reliability curve, its error, Brier score.

    Which image of a pair comes first says nothing, so each pair is read as a choice: the more
    probable image is chosen, the confidence is its probability, from 0.5 to 1, and bins divide
    that range evenly. A probability of exactly one half chooses nothing and is half right.

    Args:
        probability: That the first image of each pair is preferred, shape ``(pairs,)``, as given
            by ``compare``: sigmoid(preference_scale * ΔS).
        outcome: 1 where people prefer the first image, 0 where they prefer the second, 0.5 for a
            tie. A number counts for all: 1 if the better image comes first in every pair.
        bins: Number of bins.

    Returns:
        The curve, its expected calibration error (Guo et al., 2017) and the Brier score.

    Raises:
        ValueError: If there is no pair, or a number is not from 0 to 1, or ``bins`` is below 1.
    """
    chances = np.asarray(probability, dtype=np.float64)
    truths = np.broadcast_to(np.asarray(outcome, dtype=np.float64), chances.shape)
    if chances.ndim != 1 or not chances.size:
        raise ValueError(f"probability has shape {chances.shape}; expected (pairs,) and a pair")
    if not all(((x >= 0) & (x <= 1)).all() for x in (chances, truths)):
        raise ValueError("probability and outcome must be from 0 to 1")
    if bins < 1:
        raise ValueError(f"bins is {bins}; expected at least 1")
    confidence = np.maximum(chances, 1 - chances)
    correct = np.where(chances > _EVEN, truths, 1 - truths)
    correct = np.where(chances == _EVEN, _EVEN, correct)
    place = np.minimum(((confidence - _EVEN) / _EVEN * bins).astype(np.int64), bins - 1)
    counts = np.bincount(place, minlength=bins)
    means = [
        np.bincount(place, weights=x, minlength=bins) / np.maximum(counts, 1)
        for x in (confidence, correct)
    ]
    return Reliability(
        bins=tuple(
            ReliabilityBin(float(means[0][index]), float(means[1][index]), int(counts[index]))
            for index in np.flatnonzero(counts)
        ),
        error=float((counts * np.abs(means[1] - means[0])).sum() / counts.sum()),
        brier=float(np.square(chances - truths).mean()),
    )
