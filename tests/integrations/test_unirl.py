"""The backend for UniRL, made and called as its reward service does."""

import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest
import torch
from helpers.brightness import Brightness
from helpers.served import grey
from PIL import Image

PLACE = "stablepref.integrations.unirl"


@dataclass
class PromptRewardComponentSpec:
    """The configuration of rewards that choose a prompt."""

    prompt_source: str = "generation"


class RewardBackend:
    """What its backends have in common, as far as ours rely on it."""

    input_kind = "image"

    def __init__(
        self,
        model_name: str = "",
        batch_size: int = 8,
        timeout: float = 60.0,
        prompt_source: str = "generation",
    ) -> None:
        self.model_name, self.batch_size, self.prompt_source = model_name, batch_size, prompt_source

    def prompts(self, request: "Request") -> list[str]:
        return list(request.original if self.prompt_source == "original" else request.generation)


@dataclass
class RewardResponse:
    """What a backend returns."""

    rewards: list[float] = field(default_factory=list)
    component_rewards: dict[str, list[float]] = field(default_factory=dict)
    successes: list[bool] = field(default_factory=list)
    errors: list[str | None] = field(default_factory=list)
    compute_time: float = 0.0


@dataclass
class Request:
    """A request's images and prompts."""

    images: list[Any] | None
    generation: list[str]
    original: list[str] = field(default_factory=list)


@pytest.fixture
def unirl(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Our module, with imitations of the two of UniRL's that it imports."""
    for name in ("unirl", "unirl.reward", "unirl.reward.base", "unirl.types", "unirl.types.reward"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    for module, ours in (
        ("unirl.reward.base", (PromptRewardComponentSpec, RewardBackend)),
        ("unirl.types.reward", (RewardResponse,)),
    ):
        for one in ours:
            setattr(sys.modules[module], one.__name__, one)
    monkeypatch.setattr(
        "stablepref.integrations.sampled_rewards.load", lambda name, device: Brightness()
    )
    yield importlib.import_module(PLACE)
    sys.modules.pop(PLACE, None)


def backend(unirl: ModuleType, **fields: object) -> Any:  # noqa: ANN401 (of a module made here)
    spec = unirl.StableprefSpec(scorer="bright", **fields)
    return unirl.StableprefReward(config=spec, base_device="cpu")


def test_rewards(unirl: ModuleType) -> None:
    reward = backend(unirl, divisor=2.0, batch_size=2)
    images: list[Image.Image] = [grey(level) for level in (0, 51, 255)]
    found = reward.compute_rewards(Request(images, ["a", "b", "c"]))
    assert isinstance(found, RewardResponse)
    assert found.rewards == pytest.approx([0, 0.1, 0.5], abs=1e-6)
    assert found.successes == [True] * 3
    assert found.errors == [None] * 3
    assert reward.is_available()


def test_the_original_prompt(unirl: ModuleType) -> None:
    red = Image.new("RGB", (8, 8), (255, 0, 0))
    request = Request([red], ["rewritten"], ["red"])
    assert backend(unirl).compute_rewards(request).rewards == pytest.approx([1 / 3], abs=1e-6)
    found = backend(unirl, prompt_source="original").compute_rewards(request)
    assert found.rewards == pytest.approx([1], abs=1e-6)


def test_a_bad_image_is_a_failure_in_its_place(unirl: ModuleType) -> None:
    images = [grey(51), torch.full((3, 4, 4), 7.0), grey(255)]
    found = backend(unirl).compute_rewards(Request(images, ["a", "b", "c"]))
    assert found.successes == [True, False, True]
    assert "must lie in [0, 1]" in found.errors[1]
    assert found.rewards == pytest.approx([0.2, 0, 1], abs=1e-6)


def test_gradients(unirl: ModuleType) -> None:
    pixels = torch.full((2, 3, 8, 8), 0.2, dtype=torch.bfloat16, requires_grad=True)
    rewards = backend(unirl).compute_rewards_differentiable(pixels, ["a", "red"], records=None)
    assert rewards.tolist() == pytest.approx([0.2, 0.2], abs=1e-3)
    rewards.sum().backward()
    assert pixels.grad is not None
    assert pixels.grad[1, 1:].abs().max() == 0
    assert pixels.grad[1, 0].sum().item() == pytest.approx(1, abs=1e-2)


def test_memory_is_given_back(unirl: ModuleType) -> None:
    reward = backend(unirl)
    reward.offload()
    assert reward.scorer.device.type == "cpu"
    reward.onload()
    assert reward.compute_rewards(Request([grey(51)], ["a"])).rewards == pytest.approx([0.2])


def test_mistakes(unirl: ModuleType) -> None:
    with pytest.raises(ValueError, match="names no scorer"):
        unirl.StableprefReward(config=unirl.StableprefSpec(), base_device="cpu")
    with pytest.raises(ValueError, match="1 images and 2 prompts"):
        backend(unirl).compute_rewards(Request([grey(1)], ["a", "b"]))
    assert backend(unirl).compute_rewards(Request(None, [])).rewards == []
