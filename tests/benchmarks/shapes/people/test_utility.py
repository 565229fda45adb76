"""The formula of true utility, worked by hand."""

import numpy as np
import pytest

from stablepref.benchmarks.shapes.people.utility import COSTS, TERMS, true_utility, utility_terms
from stablepref.benchmarks.shapes.world.language import parse


def test_utility_worked_by_hand() -> None:
    wanted = parse("two red circles and a blue square on a pink background")
    shown = parse("from left to right: a red circle, an orange square and a black ring")
    terms = utility_terms(wanted, shown, {"blur": 0.5, "overlap": 0.25})
    # Colour 1.0, count 0.8, extra 0.8, background 0.6; blur 0.5 x 1.5, overlap 0.25 x 1.0.
    assert true_utility(terms) == pytest.approx(-(3.2 + 0.75 + 0.25))
    named = dict(zip(TERMS, terms.tolist(), strict=True))
    assert {name: value for name, value in named.items() if value} == {
        "colour": 1, "count": 1, "extra": 1, "background": 1, "blur": 0.5, "overlap": 0.25
    }  # fmt: skip


def test_every_term_costs_what_the_formula_says() -> None:
    costs = {
        "colour": 1.0, "shape": 1.0, "size": 0.6, "count": 0.8, "missing": 1.6, "extra": 0.8,
        "relation": 1.0, "background": 0.6,
        "blur": 1.5, "noise": 1.2, "contrast": 1.2, "clutter": 1.0, "cut": 1.0, "overlap": 1.0,
    }  # fmt: skip
    assert list(costs) == list(TERMS)
    assert true_utility(np.eye(len(TERMS))).tolist() == [-cost for cost in costs.values()]
    # The documented formula names the same numbers.
    for name, cost in costs.items():
        assert f"{cost} {name}" in (true_utility.__doc__ or "")


def test_a_flawless_picture_has_utility_zero() -> None:
    scene = parse("a red circle above a blue square")
    assert true_utility(utility_terms(scene, scene, {})) == 0
    assert (COSTS > 0).all()
