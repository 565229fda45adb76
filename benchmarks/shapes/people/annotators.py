"""Simulated people who rank pictures: with tastes of their own, noise, ties and lapses."""

import numpy as np

from stablepref.evaluation.means import Array

from .utility import COSTS


def draw_tastes(people: int, *, spread: float, generator: np.random.Generator) -> Array:
    """How much each person minds each term of utility.

    A weight is the true cost times a log-normal factor of mean 1, so that the mean person's
    utility is the true one.

    Args:
        people: Number of people.
        spread: Standard deviation of a factor's logarithm; 0 for people who all want the same.
        generator: Draws them.

    Returns:
        Weights of shape ``(people, terms)``.
    """
    normal = generator.standard_normal((people, len(COSTS)))
    return np.asarray(COSTS * np.exp(spread * normal - spread**2 / 2))


def annotate(
    terms: Array,
    tastes: Array,
    *,
    noise: float,
    grid: float = 0.0,
    lapse: float = 0.0,
    generator: np.random.Generator,
) -> Array:
    """Rank the pictures of one group, as each of several people would.

    A person feels ``utility / noise + g`` for a picture, with a standard Gumbel number g for each
    look at it. The difference of two such numbers is logistic, so the person prefers a to b with
    the probability of Bradley and Terry (1952), sigmoid((u_a - u_b) / noise), and ranks the group
    as Plackett and Luce say (Yellott 1977).

    Args:
        terms: Of the pictures' utilities, shape ``(images, terms)``.
        tastes: Weights of the people who rank, shape ``(annotators, terms)``.
        noise: Scale of the noise in units of utility, above 0.
        grid: Feelings are rounded to steps of this size, in units of the noise; within a step
            pictures tie. Each person's steps lie elsewhere. With 0 only equal numbers tie.
        lapse: Probability that a person ranks this group without looking: by noise alone.
        generator: Draws noise, steps and lapses.

    Returns:
        Ranks of shape ``(annotators, images)``, 1 is best; ties share their mean rank.

    Raises:
        ValueError: If ``noise`` is not positive, ``grid`` is negative, or ``lapse`` no probability.
    """
    if not noise > 0 or not grid >= 0 or not 0 <= lapse <= 1:
        raise ValueError(
            f"noise is {noise}, grid {grid} and lapse {lapse}; expected noise above 0, grid 0 or "
            "more, and lapse from 0 to 1"
        )
    people = len(tastes)
    awake = generator.random((people, 1)) >= lapse
    offsets = generator.random((people, 1))
    felt = -(tastes @ terms.T) * awake / noise + generator.gumbel(size=(people, len(terms)))
    if grid:
        felt = np.floor(felt / grid + offsets)
    return mean_ranks(felt)


def mean_ranks(values: Array) -> Array:
    """Ranks along the last axis, 1 for the largest value; equal values share their mean rank."""
    above = (values[..., None, :] > values[..., :, None]).sum(axis=-1)
    equal = (values[..., None, :] == values[..., :, None]).sum(axis=-1)
    return np.asarray(above + (equal + 1) / 2)
