"""Which pictures a step makes: every prompt in turn, noise of its own for each."""

from collections import Counter

import pytest
import torch

from stablepref.integrations.finetune.batches import (
    Picture,
    late_step,
    sample_pictures,
    step_pictures,
)

PROMPTS = [f"prompt {i}" for i in range(5)]


def test_prompts_come_equally_often_in_a_new_order() -> None:
    made = [
        step_pictures(PROMPTS, step, batch_size=4, group=2, seed=0) for step in range(5)
    ]  # 2 prompts a step: two rounds of all five
    order = [pictures[i].prompt for pictures in made for i in (0, 2)]
    assert all(p[0].prompt == p[1].prompt for pictures in made for p in (pictures[:2],))
    assert sorted(order[:5]) == sorted(order[5:]) == sorted(PROMPTS)
    assert order[:5] != order[5:]
    assert Counter(p.prompt for pictures in made for p in pictures) == dict.fromkeys(PROMPTS, 4)


def test_every_picture_has_its_own_noise() -> None:
    pictures = [
        picture
        for step in range(4)
        for picture in step_pictures(PROMPTS, step, batch_size=8, group=4, seed=0)
    ]
    watched = sample_pictures(PROMPTS, each=2, seed=0)
    assert [picture.prompt for picture in watched[:4]] == [PROMPTS[0]] * 2 + [PROMPTS[1]] * 2
    seeds = {picture.seed for picture in [*pictures, *watched]}
    assert len(seeds) == len(pictures) + len(watched)
    other = step_pictures(PROMPTS, 0, batch_size=8, group=4, seed=1)
    assert not seeds & {picture.seed for picture in other}


def test_they_are_a_function_of_seed_and_step() -> None:
    one, same = (step_pictures(PROMPTS, 7, batch_size=4, group=1, seed=3) for _ in range(2))
    assert one == same
    few = step_pictures(PROMPTS[:1], 0, batch_size=4, group=1, seed=0)
    assert [picture.prompt for picture in few] == PROMPTS[:1] * 4
    first, second = (torch.randn(3, generator=Picture("a", 5).generator()) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("last_steps", [1, 3])
def test_late_steps_are_among_the_last(last_steps: int) -> None:
    found = Counter(late_step(i, steps=10, last_steps=last_steps, seed=0) for i in range(300))
    assert sorted(found) == list(range(10 - last_steps, 10))
    assert min(found.values()) > 300 / last_steps * 0.7
