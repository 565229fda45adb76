"""Signs of reward hacking: numbers worked out by hand, and hacks that are made on purpose."""

import numpy as np
import pytest
import torch
from helpers.brightness import Brightness
from helpers.tiny import tiny_clip
from PIL import Image
from torch import Tensor

from stablepref.images.sources import ImageError
from stablepref.integrations.ensemble import Ensemble
from stablepref.integrations.monitor import RewardMonitor, diversity
from stablepref.integrations.reward import DifferentiableReward


def colours(*values: tuple[int, int, int]) -> list[Image.Image]:
    return [Image.new("RGB", (16, 16), value) for value in values]


def noise(count: int, seed: int) -> Tensor:
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def test_numbers_by_hand() -> None:
    """Plain colours look alike in every view: no gap, no spread.

    Black red is (1, 0, 0), white (1, 1, 1) / sqrt 3: their cosine is 1 / sqrt 3.
    """
    images = colours((255, 0, 0), (255, 255, 255), (0, 0, 255), (51, 51, 51))
    report = RewardMonitor(Brightness(), held_out=Brightness(10.0, name="held")).report(
        images, ["a", "a", "b", "c"]
    )
    rewards = [1 / 3, 1.0, 1 / 3, 0.2]
    assert report.reward == pytest.approx(np.mean(rewards), abs=1e-5)
    assert report.robust == pytest.approx(report.reward, abs=1e-5)
    assert report.gap == pytest.approx(0, abs=1e-5)
    assert report.spread == pytest.approx(0, abs=1e-5)
    assert report.reward_std == pytest.approx(np.std(rewards, ddof=1), abs=1e-5)
    assert report.held_out == pytest.approx(10 * report.reward, abs=1e-4)
    assert report.diversity == pytest.approx(1 - 1 / 3**0.5, abs=1e-5)
    assert set(report.scalars()) == set(vars(report))
    assert RewardMonitor(Brightness()).report(images, ["a"] * 4).held_out is None


def test_diversity_of_single_images_is_over_all_pairs() -> None:
    """Red, green and white: cosines 0, 1 / sqrt 3 and 1 / sqrt 3."""
    images = colours((255, 0, 0), (0, 255, 0), (255, 255, 255))
    expected = (1 + 2 * (1 - 1 / 3**0.5)) / 3
    found = diversity(Brightness(), images, ["a", "b", "c"])
    assert found == pytest.approx(expected, abs=1e-5)


def test_views_are_those_of_the_scorer() -> None:
    scorer = tiny_clip()
    images = noise(3, seed=0)
    report = RewardMonitor(scorer, views=4).report(images, ["a cat"] * 3)
    rows = [item.view_scores for item in scorer.stream(images, "a cat", views=4)]
    gaps = [row[0] - np.mean(row[1:]) for row in rows]
    spreads = [max(row) - min(row) for row in rows]
    assert report.gap == pytest.approx(np.mean(gaps), abs=1e-4)
    assert report.spread == pytest.approx(np.mean(spreads), abs=1e-4)


def test_an_optimised_pattern_widens_the_gap() -> None:
    scorer = tiny_clip()
    monitor = RewardMonitor(scorer)
    images, prompts = noise(2, seed=1) * 0.5 + 0.25, ["a cat"] * 2
    assert monitor.signs(monitor.report(images, prompts)) == []
    reward = DifferentiableReward(scorer)
    for _ in range(10):
        leaf = images.detach().requires_grad_()
        (slope,) = torch.autograd.grad(reward(leaf, prompts).sum(), leaf)
        images = (images + 0.01 * slope.sign()).clamp(0, 1)
    report = monitor.report(images, prompts)
    assert monitor.baseline is not None
    assert report.gap > monitor.baseline.gap
    assert any("slight crop destroys" in sign for sign in monitor.signs(report))


def test_one_image_for_all_seeds_and_a_falling_second_opinion() -> None:
    dark = Brightness(-1.0, name="dark")
    monitor = RewardMonitor(Brightness(), held_out=dark)
    prompts = ["a"] * 3
    monitor.report(colours((90, 0, 0), (0, 100, 0), (0, 0, 110)), prompts)
    report = monitor.report(colours((200, 200, 200), (200, 200, 200), (210, 210, 210)), prompts)
    signs = monitor.signs(report)
    assert any("diversity fell" in sign for sign in signs)
    assert any("held-out score fell" in sign for sign in signs)
    better = colours((120, 0, 0), (0, 130, 0), (0, 0, 140))
    honest = RewardMonitor(Brightness(), held_out=Brightness(2.0))
    honest.report(colours((90, 0, 0), (0, 100, 0), (0, 0, 110)), prompts)
    assert honest.signs(honest.report(better, prompts)) == []


def test_wrong_use() -> None:
    scorer = Brightness()
    with pytest.raises(ValueError, match="views must be 1 or more"):
        RewardMonitor(scorer, views=0)
    with pytest.raises(ValueError, match="held_out bright is optimised as well"):
        RewardMonitor(scorer, held_out=scorer)
    monitor = RewardMonitor(scorer)
    with pytest.raises(ValueError, match="at least two"):
        monitor.report(noise(1, seed=0), ["a"])
    with pytest.raises(ValueError, match="1 prompts for 2 images"):
        monitor.report(noise(2, seed=0), ["a"])
    with pytest.raises(ImageError, match="no such file"):
        monitor.report(["gone.png", "gone.png"], ["a", "a"])


def test_a_scorer_that_is_optimised_in_an_ensemble_or_as_a_copy_is_not_held_out() -> None:
    first, second = tiny_clip(name="first"), Brightness()
    both = Ensemble([first, second], normalise=[(0, 1), (0, 1)])
    for scorer, held_out in ((both, first), (first, both), (first, tiny_clip(name="copy"))):
        with pytest.raises(ValueError, match="is optimised as well; pass another scorer"):
            RewardMonitor(scorer, held_out=held_out)
    assert RewardMonitor(second, held_out=first).held_out is first
