"""Which pictures a training step makes: a pure function of the seed and the step."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

_TRAINING = 1
_SAMPLES = 0


class Picture(NamedTuple):
    """A picture to make.

    Attributes:
        prompt: What it should show.
        seed: Of all of its noise.
    """

    prompt: str
    seed: int

    def generator(self) -> torch.Generator:
        """A new generator of its noise, on the CPU, so that devices make the same picture."""
        return torch.Generator().manual_seed(self.seed)


def step_pictures(
    prompts: Sequence[str], step: int, *, batch_size: int, group: int, seed: int
) -> list[Picture]:
    """The pictures of a training step, `group` of each prompt in a row.

    Prompts come in a new random order each time all of them were used.

    Args:
        prompts: To train on.
        step: From 0.
        batch_size: Number of pictures, a multiple of `group`.
        group: Pictures of each prompt.
        seed: Of order and noise.
    """
    places = range(step * (batch_size // group), (step + 1) * (batch_size // group))
    chosen = [prompts[shuffled(len(prompts), p // len(prompts), seed)[p % len(prompts)]]
              for p in places]  # fmt: skip
    return [
        Picture(prompt, noise_seed(seed, _TRAINING, step, place * group + number))
        for place, prompt in enumerate(chosen)
        for number in range(group)
    ]


def sample_pictures(prompts: Sequence[str], *, each: int, seed: int) -> list[Picture]:
    """The pictures by which a training is monitored, `each` of every prompt in a row."""
    return [
        Picture(prompt, noise_seed(seed, _SAMPLES, place, number))
        for place, prompt in enumerate(prompts)
        for number in range(each)
    ]


def late_step(step: int, *, steps: int, last_steps: int, seed: int) -> int:
    """The sampling step, from 0, through which ReFL goes back: one of the last, at random."""
    return steps - 1 - random.Random(f"late step {seed} {step}").randrange(last_steps)


def noise_seed(*place: int) -> int:
    """A 63-bit seed for a place, of numbers of 0 or more (numpy's `SeedSequence`)."""
    return int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0]) >> 1


def shuffled(count: int, epoch: int, seed: int) -> list[int]:
    """The places of `count` items in the random order of an epoch, from 0."""
    order = list(range(count))
    random.Random(f"order {seed} {epoch}").shuffle(order)
    return order
