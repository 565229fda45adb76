"""How good the best of n candidates is, and what pruning saves and loses, from scores."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stablepref.integrations.best_of_n.pruning import step_of

from ..world.accuracy import Accuracy, with_interval

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Candidates:
    """All candidates of all prompts, `(prompts, candidates)` unless another shape is given.

    Attributes:
        scores: by scorer.
        early: scores of x0 predictions, `(looks, prompts, candidates)`.
        correct: 1 where the oracle calls a picture fully correct, else 0.
    """

    scores: dict[str, Floats]
    early: Floats
    correct: Floats


def expected_best(scores: Floats, values: Floats, n: int) -> float:
    """The expected value of the best-scored of n candidates, drawn without replacement.

    Of N candidates, the one with r better ones is the best of n in C(N - 1 - r, n - 1) of the
    C(N, n) draws. Candidates of equal score are chosen equally often.

    Args:
        scores: `(N,)`, by which the best is chosen.
        values: `(N,)`, what the chosen one is worth.
        n: 1 to N.
    """
    total = len(scores)
    _, group = np.unique(-scores, return_inverse=True)
    alike = np.bincount(group, weights=values) / np.bincount(group)
    order = np.argsort(group, kind="stable")
    shares = [math.comb(total - 1 - r, n - 1) / math.comb(total, n) for r in range(total)]
    return float(np.dot(shares, alike[group[order]]))


def best_curve(scores: Floats, values: Floats, sizes: Sequence[int]) -> list[Accuracy]:
    """The mean over prompts for each n, with 95 % bootstrap intervals over prompts.

    Args:
        scores: `(prompts, candidates)`, by which the best is chosen.
        values: as many, what the chosen one is worth.
        sizes: each n.
    """
    return [
        with_interval([[expected_best(*one, n)] for one in zip(scores, values, strict=True)])
        for n in sizes
    ]


def standardised(scores: Floats) -> Floats:
    """Scores less their prompt's mean, in standard deviations of a candidate within its prompt."""
    centred = scores - scores.mean(axis=1, keepdims=True)
    return centred / math.sqrt(float((centred**2).mean()))


@dataclass(frozen=True)
class Pruned:
    """What one way of pruning saves and loses.

    Attributes:
        schedule: share of the steps to the share of each batch that is kept there.
        compute: denoising steps taken, as a share of those without pruning.
        loss: score of the best of all minus that of the best that is kept, in standard
            deviations of a candidate within its prompt.
        fewer: the loss, in the same unit, if the same steps go into fewer candidates without
            pruning.
        kept: share of prompts whose best candidate is kept.
        correct: share of prompts whose chosen picture is fully correct.
        correct_loss: how much larger that share is without pruning.
    """

    schedule: dict[float, float]
    compute: float
    loss: Accuracy
    fewer: Accuracy
    kept: Accuracy
    correct: Accuracy
    correct_loss: Accuracy


def pruned(
    found: Candidates,
    scorer: str,
    schedule: Mapping[float, float],
    *,
    looks: Sequence[float],
    steps: int,
    batch_size: int,
) -> Pruned:
    """Prune all prompts' candidates as `best_of_n(prune=...)` does, batch by batch.

    Args:
        found: the candidates.
        scorer: whose early and final scores decide.
        schedule: share of the steps, one of `looks`, to the share of each batch that is kept.
        looks: when the early scores were taken.
        steps: denoising steps.
        batch_size: candidates drawn together.
    """
    final = standardised(found.scores[scorer])
    loss, fewer, kept, correct, whole, taken = [], [], [], [], [], 0
    for prompt, scores in enumerate(final):
        left, cost = survivors(
            found.early[:, prompt], schedule, looks=looks, steps=steps, batch_size=batch_size
        )
        taken += cost
        best, chosen = int(scores.argmax()), left[int(scores[left].argmax())]
        affordable = max(1, cost // steps)
        loss.append([float(scores[best] - scores[chosen])])
        fewer.append([float(scores[best]) - expected_best(scores, scores, affordable)])
        kept.append([float(best in left)])
        correct.append([float(found.correct[prompt, chosen])])
        whole.append([float(found.correct[prompt, best] - found.correct[prompt, chosen])])
    return Pruned(
        schedule=dict(schedule),
        compute=taken / (final.size * steps),
        loss=with_interval(loss),
        fewer=with_interval(fewer),
        kept=with_interval(kept),
        correct=with_interval(correct),
        correct_loss=with_interval(whole),
    )


def survivors(
    early: Floats,
    schedule: Mapping[float, float],
    *,
    looks: Sequence[float],
    steps: int,
    batch_size: int,
) -> tuple[list[int], int]:
    """Which candidates of one prompt are kept, and how many denoising steps were taken in all.

    Args:
        early: `(looks, candidates)`.
        schedule: share of the steps, one of `looks`, to the share of each batch that is kept.
        looks: shares of the steps at which the early scores were taken.
        steps: denoising steps.
        batch_size: candidates drawn together.

    Returns:
        Positions of the candidates that are kept, and the number of steps over all candidates.
    """
    left: list[int] = []
    taken = 0
    for start in range(0, early.shape[1], batch_size):
        batch = list(range(start, min(start + batch_size, early.shape[1])))
        before = 0
        for at in sorted(schedule):
            now = step_of(at, steps)
            taken += len(batch) * (now - before)
            scores = early[list(looks).index(at), batch]
            best = np.argsort(-scores, kind="stable")[: math.ceil(schedule[at] * len(batch))]
            batch, before = [batch[row] for row in sorted(best)], now
        taken += len(batch) * (steps - before)
        left += batch
    return left, taken
