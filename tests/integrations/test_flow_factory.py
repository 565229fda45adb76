"""Reward models for Flow-Factory, made and called as its loader and its processor do."""

import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.brightness import Brightness
from helpers.served import grey

PLACE = "stablepref.integrations.flow_factory"


class BaseRewardModel:
    """What its reward models have in common, as far as ours rely on it."""

    required_fields: tuple[str, ...] = ()
    use_tensor_inputs = False

    def __init__(self, config: Any, accelerator: Any) -> None:  # noqa: ANN401
        self.accelerator, self.config = accelerator, config
        self.device = accelerator.device if config.device == torch.device("cuda") else config.device
        self.dtype = config.dtype
        self.model: object = None


class PointwiseRewardModel(BaseRewardModel):
    """Each sample by itself."""


class GroupwiseRewardModel(BaseRewardModel):
    """All samples of a group together."""


@dataclass
class RewardModelOutput:
    """What a reward model returns."""

    rewards: torch.Tensor
    extra_info: dict[str, object] | None = None


@pytest.fixture
def rewards(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Our module, with an imitation of `flow_factory.rewards.abc` in its place."""
    for name in ("flow_factory", "flow_factory.rewards", "flow_factory.rewards.abc"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    theirs = sys.modules["flow_factory.rewards.abc"]
    for one in (PointwiseRewardModel, GroupwiseRewardModel, RewardModelOutput):
        setattr(theirs, one.__name__, one)
    monkeypatch.setattr(
        "stablepref.integrations.sampled_rewards.load", lambda name, device: Brightness()
    )
    yield importlib.import_module(PLACE)
    sys.modules.pop(PLACE, None)


def config(**fields: object) -> SimpleNamespace:
    return SimpleNamespace(device=torch.device("cpu"), dtype=torch.float32, batch_size=4, **fields)


ACCELERATOR = SimpleNamespace(device=torch.device("cpu"))


def called(reward: Any, prompts: list[str], images: list[Any]) -> torch.Tensor:  # noqa: ANN401
    """As the processor: by keywords, those of `required_fields`, and metadata."""
    fields = {"prompt": prompts, "image": images, "metadata": ["{}"] * len(prompts)}
    assert set(reward.required_fields) <= set(fields)
    output = reward(**fields)
    assert isinstance(output, RewardModelOutput)
    return torch.as_tensor(output.rewards, dtype=torch.float32)


def test_pointwise(rewards: ModuleType) -> None:
    reward = rewards.PointwiseReward(config(scorer="bright"), ACCELERATOR)
    assert isinstance(reward, PointwiseRewardModel)
    images: list[Any] = [grey(level) for level in (0, 51, 255)]
    assert called(reward, ["a", "b", "c"], images).tolist() == pytest.approx([0, 0.2, 1], abs=1e-6)
    images = [torch.full((3, 8, 8), level) for level in (0.0, 0.2, 1.0)]
    assert called(reward, ["a", "b", "c"], images).tolist() == pytest.approx([0, 0.2, 1], abs=1e-6)


@pytest.mark.parametrize(
    ("levels", "shares"),
    [
        ([10, 30, 20], [0, 1, 0.5]),
        ([10, 30, 30, 20], [0, 2.5 / 3, 2.5 / 3, 1 / 3]),
        ([7, 7], [0.5, 0.5]),
    ],
)
def test_groupwise(rewards: ModuleType, levels: list[int], shares: list[float]) -> None:
    reward = rewards.GroupwiseReward(config(scorer="bright"), ACCELERATOR)
    assert isinstance(reward, GroupwiseRewardModel)
    images: list[Any] = [grey(level) for level in levels]
    found = called(reward, ["a fox"] * len(levels), images)
    assert found.tolist() == pytest.approx(shares)


def test_groupwise_of_one(rewards: ModuleType) -> None:
    reward = rewards.GroupwiseReward(config(scorer="bright"), ACCELERATOR)
    assert called(reward, ["a"], [grey(3)]).tolist() == [0]


def test_mistakes(rewards: ModuleType) -> None:
    with pytest.raises(ValueError, match="no scorer"):
        rewards.PointwiseReward(config(), ACCELERATOR)
    reward = rewards.GroupwiseReward(config(scorer="bright"), ACCELERATOR)
    with pytest.raises(ValueError, match="one prompt, got 2"):
        reward(prompt=["a", "b"], image=[grey(1), grey(2)])
    with pytest.raises(ValueError, match="no images for 1 prompts"):
        reward(prompt=["a"], video=[[grey(1)]])


def test_without_flow_factory_it_says_so() -> None:
    sys.modules.pop(PLACE, None)
    with pytest.raises(ImportError, match="Flow-Factory, which cannot be imported"):
        importlib.import_module(PLACE)
