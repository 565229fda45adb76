"""Shares of right decisions, and intervals over prompts."""

import numpy as np
import pytest
from scipy.stats import bootstrap

from stablepref.benchmarks.shapes.world.accuracy import with_interval

# One prompt always right, one in three of four decisions, one undecided.
OUTCOMES = [[1.0], [1.0, 1.0, 1.0, 0.0], [0.5]]


def test_every_prompt_counts_once() -> None:
    found = with_interval(OUTCOMES)
    assert found.value == pytest.approx((1 + 0.75 + 0.5) / 3)
    assert (found.prompts, found.trials) == (3, 6)
    assert found.low <= found.value <= found.high


def test_the_interval_is_scipys_percentile_bootstrap() -> None:
    shares = np.random.default_rng(7).choice([0.0, 0.25, 0.5, 1.0], 40)
    expected = bootstrap(
        (shares,), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(3)
    ).confidence_interval
    found = with_interval([[share] for share in shares], seed=3)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_prompts_that_agree_leave_no_doubt() -> None:
    found = with_interval([[1.0], [1.0, 1.0]])
    assert (found.low, found.value, found.high) == (1, 1, 1)


def test_cells_are_per_cent() -> None:
    assert with_interval([[1.0], [1.0]]).cells() == ("100.0%", "100.0% to 100.0%", 2, 2)
