"""Expectations over normal margins against scipy's integrals and the official random draws."""

import math
from collections.abc import Callable

import pytest
import torch
from scipy import integrate
from torch import Tensor

from stablepref.losses import preference_loss, uncertainty_objective
from stablepref.scoring.uncertainty import (
    difference_deviation,
    preference_probability,
    uncertain_preference_loss,
)

MARGINS = (-30.0, -2.0, -0.1, 0.0, 0.7, 5.0, 30.0)
DEVIATIONS = (1e-3, 0.3, 1.0, 1.999, 2.001, 5.0, 40.0)


def softplus(x: float) -> float:
    return max(x, 0) + math.log1p(math.exp(-abs(x)))


def mean_of(function: Callable[[float], float], mean: float, std: float) -> float:
    """The mean of a function of a normal variable."""
    bounds = mean - 10 * std, mean + 10 * std
    inside = [x for x in (-8.0, 0.0, 8.0) if bounds[0] < x < bounds[1]] or None

    def weighed(x: float) -> float:
        density = math.exp(-(((x - mean) / std) ** 2) / 2) / (std * math.sqrt(2 * math.pi))
        return density * function(x)

    found, _ = integrate.quad(weighed, *bounds, points=inside, limit=200)
    return float(found)


@pytest.mark.parametrize("std", DEVIATIONS)
def test_expectations_by_scipy(std: float) -> None:
    margins = torch.tensor(MARGINS, dtype=torch.float64)
    stds = torch.full_like(margins, std)
    probability = preference_probability(margins, stds)
    loss = uncertain_preference_loss(margins, stds)
    for row, margin in enumerate(MARGINS):
        p = mean_of(lambda x: math.exp(-softplus(-x)), margin, std)
        assert probability[row].item() == pytest.approx(p, abs=1e-6)
        e = mean_of(lambda x: softplus(-x), margin, std)
        assert loss[row].item() == pytest.approx(e, rel=1e-6, abs=1e-6)


def test_without_deviation_it_is_the_logistic_form() -> None:
    margins = torch.tensor(MARGINS)
    none = torch.zeros_like(margins)
    assert torch.allclose(preference_probability(margins, none), torch.sigmoid(margins), atol=1e-6)
    assert torch.allclose(uncertain_preference_loss(margins, none), preference_loss(margins))


def test_a_deviation_draws_probabilities_to_one_half() -> None:
    margins = torch.ones(3, dtype=torch.float64)
    found = preference_probability(margins, torch.tensor([0.0, 2.0, 20.0], dtype=torch.float64))
    assert found.tolist() == sorted(found.tolist(), reverse=True)
    assert found[-1] > 0.5


def test_gradients_by_finite_differences() -> None:
    margin = torch.tensor([-3.0, 0.2, 4.0, 1.0], dtype=torch.float64, requires_grad=True)
    std = torch.tensor([0.5, 1.7, 3.0, 9.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(preference_probability, (margin, std))
    assert torch.autograd.gradcheck(uncertain_preference_loss, (margin, std))


def official(scores: Tensor, better: Tensor, worse: Tensor, noise: Tensor) -> Tensor:
    """hpsv3 1.0.0's loss, pair by pair and draw by draw."""
    losses = []
    for pair, (i, j) in enumerate(zip(better.tolist(), worse.tolist(), strict=True)):
        mean = scores[i, 0] - scores[j, 0]
        std = torch.sqrt(scores[i, 1].exp() ** 2 + scores[j, 1].exp() ** 2)
        draws = [softplus(-float(mean + std * one)) for one in noise[pair]]
        losses.append(sum(draws) / len(draws))
    return torch.tensor(losses).mean()


def test_objective_against_random_draws() -> None:
    """20,000 draws a pair: the mean of theirs is ours within four standard errors, 0.04."""
    torch.manual_seed(0)
    scores = torch.randn(5, 2) * torch.tensor([2.0, 0.7])
    better, worse = torch.tensor([0, 1, 3]), torch.tensor([1, 2, 4])
    found = uncertainty_objective(scores, better, worse, torch.ones(3))
    expected = official(scores, better, worse, torch.randn(3, 20_000))
    assert found.loss.item() == pytest.approx(expected.item(), abs=0.04)
    assert torch.equal(found.margin, scores[better, 0] - scores[worse, 0])


def test_labels_and_views() -> None:
    """Half a label is the mean of both orders; columns of views change nothing."""
    scores = torch.tensor([[1.0, 9.0, -0.5, 7.0], [0.2, 9.0, 0.3, 7.0]])
    one, two = torch.tensor([0]), torch.tensor([1])
    loss = [
        uncertainty_objective(scores, *pair, torch.tensor([label])).loss
        for pair, label in (((one, two), 0.5), ((one, two), 1.0), ((two, one), 1.0))
    ]
    assert loss[0] == pytest.approx((loss[1] + loss[2]).item() / 2)
    plain = uncertainty_objective(scores[:, [0, 2]], one, two, torch.tensor([1.0])).loss
    assert plain == loss[1]


def test_difference_deviation() -> None:
    found = difference_deviation(torch.tensor([3.0]).log(), torch.tensor([4.0]).log())
    assert found.item() == pytest.approx(5.0)
