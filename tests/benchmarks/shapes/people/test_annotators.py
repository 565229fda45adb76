"""Simulated people choose with the probabilities of Bradley, Terry, Plackett and Luce."""

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import integrate, stats

from stablepref.benchmarks.shapes.people.annotators import annotate, draw_tastes, mean_ranks
from stablepref.benchmarks.shapes.people.utility import COSTS, TERMS, true_utility

PEOPLE = 40_000


def terms_of(utilities: list[float]) -> NDArray[np.float64]:
    """Pictures with these utilities, by blur alone."""
    terms = np.zeros((len(utilities), len(TERMS)))
    blur = TERMS.index("blur")
    terms[:, blur] = [-utility / COSTS[blur] for utility in utilities]
    np.testing.assert_allclose(true_utility(terms), utilities)
    return terms


def ranks_of(
    utilities: list[float], *, noise: float, grid: float = 0.0, lapse: float = 0.0
) -> NDArray[np.float64]:
    """Ranks by 40,000 people who all want the same."""
    generator = np.random.default_rng(0)
    return annotate(
        terms_of(utilities),
        np.tile(COSTS, (PEOPLE, 1)),
        noise=noise,
        grid=grid,
        lapse=lapse,
        generator=generator,
    )


def close(share: float, probability: float) -> bool:
    """Within four standard deviations of a binomial."""
    return bool(abs(share - probability) < 4 * np.sqrt(probability * (1 - probability) / PEOPLE))


@pytest.mark.parametrize("noise", [0.5, 2.0])
@pytest.mark.parametrize("gap", [0.0, 0.3, 1.0, 2.5])
def test_choices_have_bradley_and_terrys_probability(gap: float, noise: float) -> None:
    ranks = ranks_of([-1.0, -1.0 - gap], noise=noise)
    assert set(map(tuple, ranks.tolist())) == {(1, 2), (2, 1)}
    assert close((ranks[:, 0] == 1).mean(), 1 / (1 + np.exp(-gap / noise)))


def test_rankings_have_plackett_and_luces_probabilities() -> None:
    utilities, noise = [0.0, -0.4, -1.0], 0.7
    counts = Counter(map(tuple, ranks_of(utilities, noise=noise).astype(int).tolist()))
    strengths = np.exp(np.array(utilities) / noise)
    for order in permutations(range(3)):  # best first
        first, second, third = strengths[list(order)]
        probability = first / (first + second + third) * second / (second + third)
        ranks = tuple(order.index(image) + 1 for image in range(3))
        assert close(counts[ranks] / PEOPLE, probability)


def test_a_lapse_is_noise_alone() -> None:
    ranks = ranks_of([0.0, -1.0], noise=0.5, lapse=0.3)
    assert close((ranks[:, 0] == 1).mean(), 0.7 / (1 + np.exp(-2)) + 0.15)
    assert close((ranks_of([0.0, -5.0], noise=0.1, lapse=1.0)[:, 0] == 1).mean(), 0.5)


@pytest.mark.parametrize("gap", [0.0, 0.8])
@pytest.mark.parametrize("grid", [0.4, 1.5])
def test_ties_have_the_probability_that_the_grid_gives(grid: float, gap: float) -> None:
    # Two feelings x apart fall into one step of a randomly placed grid with probability
    # 1 - |x| / grid; x is logistic around the gap.
    ranks = ranks_of([0.0, -gap * 0.5], noise=0.5, grid=grid)
    expected, _ = integrate.quad(
        lambda x: (1 - abs(x) / grid) * stats.logistic.pdf(x, loc=gap), -grid, grid, points=[0]
    )
    tied = ranks[:, 0] == ranks[:, 1]
    assert close(tied.mean(), expected)
    assert (ranks[tied] == 1.5).all()


def test_equal_seeds_give_equal_ranks_and_scale_moves_them_together() -> None:
    utilities = [0.0, -0.5, -1.0, -2.0]
    np.testing.assert_array_equal(ranks_of(utilities, noise=1.0), ranks_of(utilities, noise=1.0))
    doubled = ranks_of([2 * utility for utility in utilities], noise=2.0)
    np.testing.assert_array_equal(ranks_of(utilities, noise=1.0), doubled)


def test_mean_ranks_equal_scipy() -> None:
    values = np.random.default_rng(0).integers(0, 4, size=(50, 7)).astype(float)
    np.testing.assert_array_equal(mean_ranks(values), stats.rankdata(-values, axis=-1))


def test_tastes_differ_around_the_true_costs() -> None:
    generator = np.random.default_rng(0)
    tastes = draw_tastes(PEOPLE, spread=0.5, generator=generator)
    assert tastes.shape == (PEOPLE, len(TERMS))
    # A log-normal of mean 1 and log-spread 0.5 has a standard deviation of 0.533.
    np.testing.assert_allclose(tastes.mean(axis=0), COSTS, rtol=4 * 0.533 / np.sqrt(PEOPLE))
    np.testing.assert_allclose(np.log(tastes).std(axis=0), 0.5, rtol=0.02)
    correlations = np.corrcoef(np.log(tastes).T) - np.eye(len(TERMS))
    assert np.abs(correlations).max() < 0.025
    same = draw_tastes(3, spread=0.0, generator=generator)
    np.testing.assert_array_equal(same, np.tile(COSTS, (3, 1)))


def test_people_choose_by_their_own_tastes() -> None:
    terms = np.zeros((2, len(TERMS)))
    terms[0, TERMS.index("colour")] = terms[1, TERMS.index("blur")] = 1
    tastes = np.tile(COSTS, (2, 1))
    tastes[0, TERMS.index("colour")] = 20.0
    tastes[1, TERMS.index("blur")] = 20.0
    ranks = annotate(terms, tastes, noise=0.2, generator=np.random.default_rng(0))
    assert ranks.tolist() == [[2, 1], [1, 2]]


@pytest.mark.parametrize(
    ("noise", "grid", "lapse"), [(0.0, 0.0, 0.0), (1.0, -0.1, 0.0), (1.0, 0.0, 1.1)]
)
def test_numbers_out_of_range_are_refused(noise: float, grid: float, lapse: float) -> None:
    with pytest.raises(ValueError, match=f"noise is {noise}, grid {grid} and lapse {lapse}"):
        ranks_of([0.0, 1.0], noise=noise, grid=grid, lapse=lapse)
