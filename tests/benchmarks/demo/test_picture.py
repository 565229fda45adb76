"""Where the dots of a demonstration's plot lie."""

import itertools
import math
import random

import pytest

from stablepref.benchmarks.demo.picture import stacked_dots


@pytest.mark.parametrize("count", [1, 2, 7, 100, 1000])
def test_dots_are_inside_apart_and_in_the_order_of_the_scores(count: int) -> None:
    rng = random.Random(count)
    scores = [rng.gauss(30, 4) for _ in range(count)]
    dots = stacked_dots(scores, width=400, height=150)
    assert len(dots.places) == count
    for x, y in dots.places:
        assert dots.radius <= x <= 400 - dots.radius
        assert dots.radius <= y <= 150 - dots.radius
    for (one, at), (other, there) in itertools.islice(
        itertools.combinations(zip(scores, dots.places, strict=True), 2), 20_000
    ):
        assert math.dist(at, there) >= 2 * dots.radius - 1e-9
        assert (at[0] - there[0]) * (one - other) >= 0


def test_a_case_worked_by_hand() -> None:
    """8 columns of 10; the stack is as high as 4 dots at least, so 40 / 4 = 10 a dot."""
    dots = stacked_dots([0.0, 8.0, 0.5, 4.0], width=80, height=40)
    assert dots.places == [(5, 5), (75, 5), (5, 15), (45, 5)]
    assert dots.radius == pytest.approx(4.4)
    assert dots.mean == pytest.approx(80 * 3.125 / 8)


def test_equal_scores_are_one_stack_in_the_middle() -> None:
    dots = stacked_dots([3.0] * 20, width=400, height=100)
    assert len({x for x, _ in dots.places}) == 1
    assert dots.mean == 200
    assert max(y for _, y in dots.places) + dots.radius <= 100
