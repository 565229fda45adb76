"""Generators err as often as they say, in the order of their skill, the same for the same seed."""

import random

import numpy as np
import pytest

from stablepref.benchmarks.shapes.people.fidelity import (
    FAULT_COSTS,
    fault_kinds,
    render_with_faults,
)
from stablepref.benchmarks.shapes.people.generators import GENERATORS, Generator, Picture, generate
from stablepref.benchmarks.shapes.people.utility import TERMS, true_utility
from stablepref.benchmarks.shapes.world.errors import error_kinds
from stablepref.benchmarks.shapes.world.language import parse
from stablepref.benchmarks.shapes.world.scenes import sample_scene

SCENE = parse("from left to right: a red circle, a blue square and a green star")


def pictures(generator: Generator, number: int) -> list[Picture]:
    rng = random.Random(f"test {generator.name}")
    return [generate(generator, sample_scene(rng), rng) for _ in range(number)]


def test_a_picture_depends_on_the_seed_alone() -> None:
    for generator in GENERATORS.values():
        one, again, other = (generate(generator, SCENE, random.Random(seed)) for seed in (1, 1, 2))
        assert one == again
        assert (one.draw() == again.draw()).all()
        assert one.seed != other.seed


def test_a_picture_shows_what_it_says() -> None:
    for picture in pictures(GENERATORS["level-3"], 10):
        assert picture.generator == "level-3"
        expected = render_with_faults(picture.shown, picture.faults, seed=picture.seed, size=48)
        assert (picture.draw(48) == expected).all()
        named = dict(zip(TERMS, picture.terms().tolist(), strict=True))
        assert {kind: named[kind] for kind in picture.faults} == picture.faults
        assert set(picture.faults) <= set(fault_kinds(picture.shown))


def test_skill_orders_mean_utility_and_both_its_parts() -> None:
    faults = np.array([name in FAULT_COSTS for name in TERMS])
    levels = [
        np.stack([picture.terms() for picture in pictures(generator, 300)])
        for generator in GENERATORS.values()
    ]
    for part in (np.ones(len(TERMS)), ~faults, faults):
        means = [true_utility(terms * part).mean() for terms in levels]
        assert means == sorted(means)
        assert means[-1] > means[0] + 1


@pytest.mark.parametrize("errors", [0.0, 4.0])
def test_never_or_always_in_error(errors: float) -> None:
    rng = random.Random(0)
    generator = Generator("x", errors=errors, faults=0, severity=0.5)
    shown = [generate(generator, SCENE, rng) for _ in range(50)]
    assert not any(picture.faults for picture in shown)
    # Four errors may mend each other, but seldom do.
    assert sum(picture.shown != SCENE for picture in shown) >= (49 if errors else 0)
    assert errors or all(picture.shown == SCENE for picture in shown)


def test_faults_are_as_frequent_and_severe_as_they_say() -> None:
    rng = random.Random(0)
    generator = Generator("x", errors=0, faults=1.5, severity=0.3)
    drawn = [generate(generator, SCENE, rng).faults for _ in range(2000)]
    severities = [value for faults in drawn for value in faults.values()]
    # Of 12,000 chances a quarter: the standard deviation is 47. A beta distribution with parameters
    # 1.2 and 2.8 has mean 0.3 and standard deviation sqrt(0.3 x 0.7 / 5).
    assert abs(len(severities) - 3000) < 4 * 47
    assert abs(np.mean(severities) - 0.3) < 4 * np.sqrt(0.042 / 3000)
    assert np.std(severities) == pytest.approx(np.sqrt(0.042), rel=0.05)
    counts = [sum(kind in faults for faults in drawn) for kind in FAULT_COSTS]
    assert min(counts) > 500 - 4 * 20
    assert max(counts) < 500 + 4 * 20


def test_relations_asked_for_hold_or_are_plainly_broken() -> None:
    rng = random.Random(0)
    generator = Generator("x", errors=3.0, faults=0, severity=0.5)
    lost = 0
    for _ in range(500):
        scene = sample_scene(rng)
        shown = generate(generator, scene, rng).shown
        lost += scene.relation is not None and len(shown.groups) == 1
        if scene.relation is not None and len(shown.groups) > 1:
            assert shown.relation is not None
        assert error_kinds(shown)
    assert lost > 10
