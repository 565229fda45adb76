"""Generators that err: a row of imitated text-to-image models from poor to good."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

from stablepref.evaluation.means import Array

from ..world.drawing import IMAGE_SIZE, Pixels
from ..world.errors import GENERATOR_ERRORS, error_kinds, single_error
from ..world.scenes import Scene
from .fidelity import FAULT_COSTS, fault_kinds, render_with_faults
from .utility import utility_terms

_MOST_ERRORS = 4
_STEADINESS = 4.0


@final
@dataclass(frozen=True)
class Generator:
    """How often a generator errs.

    Attributes:
        name: Its name.
        errors: Mean number of errors in what it shows, 0 to 4.
        faults: Mean number of faults in its pictures of several objects, 0 to 6.
        severity: Mean severity of a fault, strictly between 0 and 1.
    """

    name: str
    errors: float
    faults: float
    severity: float


GENERATORS: Mapping[str, Generator] = {
    generator.name: generator
    for generator in (
        Generator("level-1", errors=2.4, faults=3.6, severity=0.60),
        Generator("level-2", errors=2.0, faults=3.3, severity=0.54),
        Generator("level-3", errors=1.6, faults=3.0, severity=0.48),
        Generator("level-4", errors=1.3, faults=2.7, severity=0.42),
        Generator("level-5", errors=1.0, faults=2.4, severity=0.36),
        Generator("level-6", errors=0.75, faults=2.1, severity=0.30),
        Generator("level-7", errors=0.5, faults=1.8, severity=0.25),
        Generator("level-8", errors=0.3, faults=1.5, severity=0.20),
        Generator("level-9", errors=0.15, faults=1.2, severity=0.15),
    )
}
"""By name, from poor to good. The numbers are a choice of this laboratory."""


@final
@dataclass(frozen=True)
class Picture:
    """What a generator makes of a prompt; `draw` draws it.

    Attributes:
        wanted: The scene of the prompt.
        shown: The scene of the picture.
        faults: Severities, above 0 and up to 1, by the name of the fault.
        seed: Of the drawing.
        generator: Name of the generator.
    """

    wanted: Scene
    shown: Scene
    faults: Mapping[str, float] = field(hash=False)
    seed: int
    generator: str

    def terms(self) -> Array:
        """The terms of its true utility, see `stablepref.benchmarks.shapes.people.utility`."""
        return utility_terms(self.wanted, self.shown, self.faults)

    def draw(self, size: int = IMAGE_SIZE) -> Pixels:
        """Draw it: ``(size, size, 3)`` uint8."""
        return render_with_faults(self.shown, self.faults, seed=self.seed, size=size)


def generate(generator: Generator, scene: Scene, rng: random.Random) -> Picture:
    """Answer a prompt as a generator does.

    The number of errors is binomial out of four. They come one after another, each of a kind that
    `single_error` knows, so that a later one may spoil what is wrong already, or mend it. In a
    picture of several groups a relation that the prompt asks for holds or is plainly broken. Each
    fault that the scene can have occurs with the same probability; its severity has a beta
    distribution.

    Args:
        generator: Who answers.
        scene: What the prompt describes.
        rng: Decides everything.

    Returns:
        The picture, not drawn yet.
    """
    shown = scene
    for _ in range(_MOST_ERRORS):
        if rng.random() < generator.errors / _MOST_ERRORS:
            shown = _with_error(scene, shown, rng)
    mean = _STEADINESS * generator.severity
    faults = {
        kind: rng.betavariate(mean, _STEADINESS - mean)
        for kind in fault_kinds(shown)
        if rng.random() < generator.faults / len(FAULT_COSTS)
    }
    return Picture(scene, shown, faults, rng.getrandbits(48), generator.name)


def _with_error(wanted: Scene, shown: Scene, rng: random.Random) -> Scene:
    while True:
        kind = rng.choice(error_kinds(shown, GENERATOR_ERRORS))
        candidate = single_error(shown, kind, rng)
        # A group that comes back after one was lost would stand anywhere.
        unrelated = candidate.relation is None and len(candidate.groups) > 1
        if wanted.relation is None or not unrelated:
            return candidate
