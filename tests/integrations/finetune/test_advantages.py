"""Advantages by hand, by numpy, and what has nothing to learn from."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stablepref.integrations.finetune.advantages import (
    ADVANTAGE_BOUND,
    Advantages,
    advantages,
)

DDPO: dict[str, Any] = {"spread": "prompt", "combine": "rewards", "floor": 1e-6}
GRPO: dict[str, Any] = {"spread": "batch", "combine": "rewards", "floor": 1e-4}


def of(rewards: Tensor, prompts: list[str], **how: object) -> Advantages:
    """Of one reward."""
    chosen: dict[str, Any] = {"weights": torch.ones(1), **how}
    return advantages(rewards[:, None], prompts, **chosen)


def test_they_are_standard_within_each_prompt() -> None:
    rewards = torch.tensor([1.0, 10.0, 2.0, 30.0, 3.0, 5.0])
    found = of(rewards, ["a", "b", "a", "b", "a", "c"], **DDPO)
    deviation = math.sqrt(2 / 3)
    expected = [-1 / deviation, -1, 0, 1, 1 / deviation, 0]
    assert found.values.tolist() == pytest.approx(expected, abs=1e-4)
    assert found.kept.tolist() == [True] * 5 + [False]
    assert found.dropped == 1


def test_they_are_bounded_and_equal_rewards_have_none() -> None:
    one_of_many = torch.zeros(100)
    one_of_many[7] = 1.0
    found = of(one_of_many, ["a"] * 100, **DDPO)
    assert found.values.max().item() == ADVANTAGE_BOUND  # (1 - 0.01) / 0.0995 = 9.95
    # 0.1 is not a sum of powers of two: the mean of seven is not 0.1.
    same = of(torch.full((7,), 0.1), ["a"] * 7, **GRPO)
    assert same.values.tolist() == [0.0] * 7
    assert (same.kept.tolist(), same.dropped) == ([False] * 7, 1)


def test_flow_grpo_divides_by_the_deviation_of_the_batch() -> None:
    rewards = torch.randn(12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    prompts = list("abcabcabcabc")
    expected = np.zeros(12)
    for name in "abc":
        rows = [row for row, prompt in enumerate(prompts) if prompt == name]
        values = rewards.numpy()[rows]
        expected[rows] = (values - values.mean()) / (np.std(rewards.numpy()) + 1e-4)
    assert of(rewards, prompts, **GRPO).values.tolist() == pytest.approx(expected.tolist())


def test_of_several_rewards_either_they_or_their_advantages_are_added() -> None:
    """By hand: the first reward is 100 times as large, and would drown the second."""
    rewards = torch.tensor([[0.0, 3.0], [200.0, 1.0]])
    weights = torch.tensor([1.0, -2.0])
    for combine, expected in (
        ("rewards", [-1.0, 1.0]),  # of 0 - 6 and 200 - 2
        ("advantages", [-1.0 - 2.0, 1.0 + 2.0]),  # the second reward's are 1 and -1
    ):
        found = advantages(
            rewards, ["a", "a"], weights=weights, spread="prompt", combine=combine, floor=1e-6
        )
        assert found.values.tolist() == pytest.approx(expected, abs=1e-4)


def test_one_reward_that_differs_is_enough_to_keep_a_prompt() -> None:
    rewards = torch.tensor([[1.0, 2.0], [1.0, 3.0]])
    found = advantages(
        rewards, ["a", "a"], weights=torch.ones(2), spread="batch", combine="advantages", floor=1e-4
    )
    assert found.kept.tolist() == [True, True]
    assert found.values[1].item() == pytest.approx(1, abs=1e-3)
