"""Shares of right decisions, with their uncertainty over prompts."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stablepref.evaluation.means import GroupMean


@dataclass(frozen=True)
class Accuracy:
    """A share of right decisions with its 95 % confidence interval over prompts.

    Attributes:
        value: mean over prompts of each prompt's share.
        low: lower end of the bootstrap interval.
        high: upper end.
        prompts: number of prompts.
        trials: number of single decisions.
    """

    value: float
    low: float
    high: float
    prompts: int
    trials: int

    def cells(self) -> tuple[str, str, int, int]:
        """The share and its interval as text, prompts and trials: cells of a table's row."""
        return f"{self.value:.1%}", f"{self.low:.1%} to {self.high:.1%}", self.prompts, self.trials


def with_interval(outcomes: Sequence[Sequence[float]], *, seed: int = 0) -> Accuracy:
    """Accuracy from each prompt's decisions, with the bootstrap of `GroupMean.interval`.

    Args:
        outcomes: for each prompt its decisions: 1 right, 0 wrong, 0.5 undecided.
        seed: of the resampling.
    """
    shares = np.array([statistics.fmean(decisions) for decisions in outcomes])
    value, low, high = GroupMean(shares, np.ones(len(shares))).interval(seed=seed)
    return Accuracy(value, low, high, prompts=len(shares), trials=sum(map(len, outcomes)))
