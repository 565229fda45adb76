"""Rewards of latents are those of the pictures that the VAE makes of them."""

from typing import Any

import pytest
import torch
from helpers.brightness import Brightness
from helpers.tiny import tiny_clip
from helpers.tiny_finetune import PROMPTS, pipeline

from stablepref.integrations.ensemble import Ensemble
from stablepref.integrations.finetune.latent_reward import LatentReward, WeightedReward
from stablepref.integrations.reward import DifferentiableReward
from stablepref.models.function import FunctionScorer


@pytest.fixture(scope="module")
def latents() -> torch.Tensor:
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def test_they_are_those_of_the_decoded_pictures(latents: torch.Tensor) -> None:
    pipe, scorer = pipeline(), tiny_clip()
    with torch.no_grad():
        decoded = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
    expected = scorer.score(((decoded + 1) / 2).clamp(0, 1), PROMPTS)
    for reward in (
        scorer,
        DifferentiableReward(scorer, vae=pipe.vae),
        DifferentiableReward(scorer),
        DifferentiableReward(scorer, value_range=(-1, 1)),
    ):
        leaf = latents.clone().requires_grad_()
        found = LatentReward(pipe, reward)(leaf, PROMPTS, step=0)
        torch.testing.assert_close(found.detach(), expected, rtol=1e-4, atol=1e-4)
        found.sum().backward()
        assert leaf.grad is not None
        assert leaf.grad.abs().max() > 0


def test_views_are_those_of_the_step(latents: torch.Tensor) -> None:
    pipe = pipeline()
    reward = LatentReward(pipe, DifferentiableReward(tiny_clip(), vae=pipe.vae, views=2))
    first, again, second = (reward(latents, PROMPTS, step=step) for step in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_what_it_depends_on() -> None:
    pipe = pipeline()
    one = LatentReward(pipe, DifferentiableReward(Brightness(), vae=pipe.vae)).described()
    assert one == LatentReward(pipe, Brightness()).described()
    for other in (
        DifferentiableReward(Brightness(), views=1),
        DifferentiableReward(Brightness(), reduce="min"),
        DifferentiableReward(Brightness(2.0)),
    ):
        assert LatentReward(pipe, other).described() != one
    scorers = [Brightness(), Brightness(2.0)]
    told = [
        LatentReward(pipe, Ensemble(scorers, weights=weights, normalise=pairs)).described()
        for weights, pairs in (
            ([1.0, 1.0], [(0.0, 1.0), (0.0, 1.0)]),
            ([1.0, 2.0], [(0.0, 1.0), (0.0, 1.0)]),
            ([1.0, 1.0], [(0.5, 1.0), (0.0, 1.0)]),
        )
    ]
    assert told[0] != told[1]
    assert told[0] != told[2]


def test_of_several_each_is_what_it_is_alone(latents: torch.Tensor) -> None:
    pipe, clip = pipeline(), tiny_clip()
    alone = [
        DifferentiableReward(clip, vae=pipe.vae, views=2, reduce="min"),
        DifferentiableReward(Brightness(), value_range=(-1, 1)),
        DifferentiableReward(FunctionScorer(corner, name="corner", unit="level")),
    ]
    several = LatentReward(
        pipe,
        [
            WeightedReward(alone[0], 2.0, "match"),
            WeightedReward(alone[1], -3.0),
            WeightedReward(alone[2]),
        ],
    )
    assert several.names == ["match", "bright", "corner"]
    with torch.no_grad():
        parts = several.parts(latents, PROMPTS, step=1)
        for place, one in enumerate(alone):
            expected = LatentReward(pipe, one)(latents, PROMPTS, step=1)
            torch.testing.assert_close(parts[:, place], expected)
        total = several(latents, PROMPTS, step=1)
    torch.testing.assert_close(total, 2 * parts[:, 0] - 3 * parts[:, 1] + parts[:, 2])


def test_samples_are_measured_by_the_weighted_sum() -> None:
    pipe, clip = pipeline(), tiny_clip()
    pixels = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    several = LatentReward(pipe, [WeightedReward(clip, 2.0), WeightedReward(Brightness(), -3.0)])
    expected = 2 * clip.score(pixels, PROMPTS) - 3 * Brightness().score(pixels, PROMPTS)
    torch.testing.assert_close(several.scorer.score(pixels, PROMPTS), expected)
    half = LatentReward(pipe, [WeightedReward(Brightness(), 0.5)])
    assert half.described() != LatentReward(pipe, Brightness()).described()


def corner(images: list[Any], prompts: list[str]) -> list[float]:
    """The red of a picture's first pixel."""
    return [image.getpixel((0, 0))[0] / 255 for image in images]


@pytest.mark.parametrize(("given", "says"), [
    ([], "the list of rewards is empty"),
    ([WeightedReward(Brightness(), 0.0)], "the weight of reward 0 is 0.0"),
    ([WeightedReward(Brightness(), float("nan"))], "the weight of reward 0 is nan"),
    ([WeightedReward(Brightness()), WeightedReward(Brightness())], "called bright, bright"),
    ([WeightedReward(Brightness()), WeightedReward(Ensemble([Brightness()]), 1.0, "two")],
     "one of several rewards is an ensemble"),
])  # fmt: skip
def test_several_that_cannot_be(given: list[WeightedReward], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        LatentReward(pipeline(), given)
    with pytest.raises(TypeError, match="reward 0 is a Brightness; expected a WeightedReward"):
        LatentReward(pipeline(), [Brightness()])  # type: ignore[list-item] # as a user might


def test_wrong_use() -> None:
    pipe = pipeline()
    with pytest.raises(TypeError, match="reward is a function; expected a DifferentiableReward"):
        LatentReward(pipe, lambda images: images)  # type: ignore[arg-type] # as a user might
    with pytest.raises(ValueError, match="another VAE than the pipeline"):
        LatentReward(pipe, DifferentiableReward(Brightness(), vae=pipeline().vae))
