"""Collects preferences in the laboratory: scenes, generators' pictures, and people's ranks."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count as count_up
from typing import final

import numpy as np

from stablepref.evaluation.means import Array

from ..world.language import describe
from ..world.scenes import Scene, Split, sample_scene
from .annotators import annotate, draw_tastes
from .generators import GENERATORS, Picture, generate
from .settings import Setting


@final
@dataclass(frozen=True, eq=False)
class Collected:
    """One prompt's pictures, not drawn yet, and how people rank them.

    Attributes:
        name: Of the group: setting, seed, split and position.
        prompt: The words.
        pictures: By the generators.
        people: Numbers of those who ranked.
        annotations: Their ranks, shape ``(annotators, images)``, 1 is best.
    """

    name: str
    prompt: str
    pictures: tuple[Picture, ...]
    people: tuple[int, ...]
    annotations: Array

    def terms(self) -> Array:
        """The terms of the pictures' true utilities, shape ``(images, terms)``."""
        return np.stack([picture.terms() for picture in self.pictures])


def collect(
    setting: Setting,
    *,
    split: Split,
    seed: int,
    size: int | None = None,
    annotators: int | None = None,
) -> Iterator[Collected]:
    """Collect groups without end, each of another scene of the split.

    Each group is a function of setting, split, seed and its position, so that a smaller data set
    is the beginning of a larger one. People, and their tastes, depend on setting and seed alone:
    the same ones rank all splits.

    Args:
        setting: Who draws, who ranks, and how noisily.
        split: Where the prompts' scenes are from; splits share none.
        seed: Of everything.
        size: Pictures in each group; None draws it as the setting says.
        annotators: People who rank each group; None is the setting's number for the split.

    Returns:
        An iterator over the groups.

    Raises:
        ValueError: If ``annotators`` is not between 1 and the number of people there are.
    """
    number = setting.annotators[split] if annotators is None else annotators
    if not 1 <= number <= setting.people:
        raise ValueError(f"annotators is {number}; expected 1 to {setting.people}")
    return _collected(setting, split, seed, size, number)


def _collected(
    setting: Setting, split: Split, seed: int, size: int | None, number: int
) -> Iterator[Collected]:
    name = f"{setting.name} {seed}"
    tastes = crowd(setting, seed)
    for index, scene in enumerate(distinct_scenes(split, random.Random(f"scenes {name} {split}"))):
        rng = random.Random(f"group {name} {split} {index}")
        prompt = describe(scene, rng)
        pictures = _answers(setting, scene, size, rng)
        terms = np.stack([picture.terms() for picture in pictures])
        people, annotations = asked(terms, setting, tastes, number, rng)
        yield Collected(
            f"{setting.name}-{seed}-{split}-{index:06}", prompt, pictures, people, annotations
        )


def crowd(setting: Setting, seed: int) -> Array:
    """The tastes of a setting's people, shape ``(people, terms)``; the same for all splits."""
    rng = random.Random(f"people {setting.name} {seed}")
    return draw_tastes(
        setting.people,
        spread=setting.spread,
        generator=np.random.default_rng(rng.getrandbits(64)),
    )


def asked(
    terms: Array, setting: Setting, tastes: Array, number: int, rng: random.Random
) -> tuple[tuple[int, ...], Array]:
    """Have some of the people rank a group.

    Args:
        terms: Of the pictures' utilities, shape ``(images, terms)``.
        setting: How noisily they rank.
        tastes: Of everyone, from `crowd`.
        number: How many rank.
        rng: Chooses them, and draws their noise.

    Returns:
        Their numbers, and their ranks of shape ``(number, images)``, 1 is best.
    """
    people = tuple(sorted(rng.sample(range(setting.people), number)))
    return people, annotate(
        terms,
        tastes[list(people)],
        noise=setting.noise,
        grid=setting.grid,
        lapse=setting.lapse,
        generator=np.random.default_rng(rng.getrandbits(64)),
    )


def distinct_scenes(split: Split, rng: random.Random) -> Iterator[Scene]:
    """Scenes of a split without end, none twice."""
    seen = set()
    for _ in count_up():
        scene = sample_scene(rng, split)
        if scene not in seen:
            seen.add(scene)
            yield scene


def _answers(
    setting: Setting, scene: Scene, size: int | None, rng: random.Random
) -> tuple[Picture, ...]:
    if size is None:
        (size,) = rng.choices(tuple(setting.sizes), weights=tuple(setting.sizes.values()))
    names = setting.generators
    chosen = rng.sample(names, size) if size <= len(names) else rng.choices(names, k=size)
    return tuple(generate(GENERATORS[name], scene, rng) for name in chosen)
