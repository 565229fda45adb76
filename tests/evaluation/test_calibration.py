"""The reliability curve on known probabilities, a naive loop, and small cases worked by hand."""

import numpy as np
import pytest

from stablepref.evaluation.calibration import reliability


def test_a_curve_worked_by_hand() -> None:
    # Choices: 0.95 right, 0.95 wrong, 0.95 right (as 0.05 with outcome 0), 0.62 right, 0.5 even.
    probability, outcome = [0.95, 0.95, 0.05, 0.62, 0.5], [1, 0, 0, 1, 1]
    curve = reliability(probability, outcome, bins=5)
    assert [b.pairs for b in curve.bins] == [1, 1, 3]
    assert [b.confidence for b in curve.bins] == pytest.approx([0.5, 0.62, 0.95])
    assert [b.accuracy for b in curve.bins] == pytest.approx([0.5, 1.0, 2 / 3])
    assert curve.error == pytest.approx((0 + 0.38 + 3 * (0.95 - 2 / 3)) / 5)
    squares = [0.05**2, 0.95**2, 0.05**2, 0.38**2, 0.5**2]
    assert curve.brier == pytest.approx(sum(squares) / 5)


def test_true_probabilities_are_calibrated_and_boasting_is_not() -> None:
    generator = np.random.default_rng(0)
    truth = generator.random(200_000)
    outcome = (generator.random(truth.size) < truth).astype(float)
    assert reliability(truth, outcome).error < 0.005
    # Doubling the log-odds is overconfident: confidence exceeds accuracy in every bin.
    odds = truth / (1 - truth)
    boast = reliability(odds**2 / (1 + odds**2), outcome)
    assert boast.error > 0.05
    assert all(b.confidence > b.accuracy for b in boast.bins)
    assert reliability(truth, outcome).brier < boast.brier


def test_the_order_within_a_pair_does_not_matter() -> None:
    generator = np.random.default_rng(1)
    probability, outcome = generator.random(500), generator.integers(0, 3, 500) / 2
    swapped = generator.random(500) < 0.5
    other = reliability(
        np.where(swapped, 1 - probability, probability), np.where(swapped, 1 - outcome, outcome)
    )
    one = reliability(probability, outcome)
    assert np.array(one.bins) == pytest.approx(np.array(other.bins))
    assert (one.error, one.brier) == pytest.approx((other.error, other.brier))


def test_one_outcome_for_all_pairs() -> None:
    probability = [0.9, 0.8, 0.3]
    assert reliability(probability) == reliability(probability, [1.0, 1.0, 1.0])
    assert reliability([1.0, 1.0]).error == 0.0
    assert reliability([0.5] * 4).bins == ((0.5, 0.5, 4),)


@pytest.mark.parametrize(
    ("probability", "outcome", "bins", "message"),
    [
        ([], 1.0, 10, r"shape \(0,\)"),
        ([[0.5]], 1.0, 10, r"shape \(1, 1\)"),
        ([1.2], 1.0, 10, "from 0 to 1"),
        ([float("nan")], 1.0, 10, "from 0 to 1"),
        ([0.5], 2.0, 10, "from 0 to 1"),
        ([0.5], 1.0, 0, "bins is 0"),
    ],
)
def test_wrong_arguments_are_named(
    probability: list[float], outcome: float, bins: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        reliability(probability, outcome, bins=bins)
