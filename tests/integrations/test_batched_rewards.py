"""Rewards for trainers with forms of their own, called as their training code calls them."""

import asyncio
import inspect
from typing import Any

import numpy as np
import pytest
import torch
from helpers.brightness import Brightness
from helpers.served import grey, noisy
from helpers.small_vae import vae as small_vae
from helpers.tiny import tiny_clip

from stablepref.integrations.batched_rewards import (
    dance_grpo,
    verl_omni_batched,
    verl_omni_latents,
)
from stablepref.integrations.sampled_rewards import flow_grpo_multi_score
from stablepref.models.function import FunctionScorer


def run_single(compute_score: Any, image: torch.Tensor, prompt: str) -> Any:  # noqa: ANN401
    """As verl-omni's VisualRewardManager.run_single."""
    return compute_score(
        data_source="drawbench",
        solution_image=image,
        ground_truth=prompt,
        extra_info={"num_turns": None, "rollout_reward_scores": {}},
        reward_router_address=None,
    )


def test_verl_omni_scores_concurrent_calls_together() -> None:
    sizes: list[int] = []

    def widths(images: list[Any], prompts: list[str]) -> list[float]:
        sizes.append(len(images))
        return [image.width + len(prompt) for image, prompt in zip(images, prompts, strict=True)]

    compute = verl_omni_batched(
        FunctionScorer(widths, name="w", unit="1"), max_batch=64, max_delay=0.2
    )
    assert inspect.iscoroutinefunction(compute)

    async def all_at_once() -> list[dict[str, float]]:
        images = [torch.zeros(3, 4, 5 + row, dtype=torch.uint8) for row in range(32)]
        calls = (run_single(compute, one, "a" * row) for row, one in enumerate(images, start=1))
        return list(await asyncio.gather(*calls))

    found = asyncio.run(all_at_once())
    assert [one["score"] for one in found] == [5 + row + row + 1 for row in range(32)]
    assert all(set(one) == {"score"} for one in found)
    assert len(sizes) < 8


@pytest.mark.parametrize(
    "image",
    [
        torch.full((3, 10, 12), 51, dtype=torch.uint8),
        torch.full((1, 3, 10, 12), 51, dtype=torch.uint8),
        torch.full((3, 10, 12), 0.2),
        torch.full((3, 10, 12), 0.2, dtype=torch.bfloat16),
        np.full((10, 12, 3), 51, np.uint8),
        grey(51),
    ],
    ids=["uint8", "batch of one", "float", "bfloat16", "channels last", "PIL"],
)
def test_verl_omni_in_every_form(image: Any) -> None:  # noqa: ANN401
    compute = verl_omni_batched(Brightness(), max_delay=0.0)
    found = asyncio.run(run_single(compute, image, "a"))
    assert found["score"] == pytest.approx(0.2, abs=1e-3)


def test_verl_omni_fails_for_one_image_alone() -> None:
    compute = verl_omni_batched(Brightness(), max_delay=0.05)

    async def some() -> list[Any]:
        images = [torch.full((3, 4, 4), 51, dtype=torch.uint8)] * 3
        prompts = ["a", " ", "a"]
        calls = (run_single(compute, i, p) for i, p in zip(images, prompts, strict=True))
        return list(await asyncio.gather(*calls, return_exceptions=True))

    first, second, third = asyncio.run(some())
    assert first["score"] == third["score"] == pytest.approx(0.2, abs=1e-6)
    assert isinstance(second, ValueError)
    with pytest.raises(ValueError, match="one image at a time, got 2"):
        asyncio.run(run_single(compute, torch.zeros(2, 3, 4, 4, dtype=torch.uint8), "a"))


def test_verl_omni_raises_what_the_model_says() -> None:
    compute = verl_omni_batched(Brightness(float("nan")))
    with pytest.raises(ValueError, match="nan"):
        asyncio.run(run_single(compute, torch.zeros(3, 4, 4, dtype=torch.uint8), "a"))


def test_verl_omni_scores_latents_together() -> None:
    """As its manager calls for `output_type` latent, and both: with the picture beside them."""
    torch.manual_seed(0)
    decoded: list[int] = []
    vae = small_vae(4, scaling_factor=1.5, shift_factor=0.25)
    whole = vae.decode

    def decode(latents: torch.Tensor, **options: Any) -> Any:  # noqa: ANN401
        decoded.append(len(latents))
        return whole(latents, **options)

    vae.decode = decode
    compute = verl_omni_latents(Brightness(), vae, max_batch=64, max_delay=0.2)
    generator = torch.Generator().manual_seed(0)
    latents = [torch.randn(4, 4, 4 + 2 * (row % 2), generator=generator) for row in range(12)]

    async def all_at_once() -> list[dict[str, float]]:
        calls = [run_single(compute, one, "a") for one in latents]
        picture = torch.zeros(3, 8, 8, dtype=torch.uint8)
        extra = {"latents_clean": latents[0][None].bfloat16()}
        both = compute(data_source="d", solution_image=picture, ground_truth="a", extra_info=extra)
        return list(await asyncio.gather(*calls, both))

    found = [one["score"] for one in asyncio.run(all_at_once())]
    with torch.no_grad():
        given = [*latents, latents[0].bfloat16().float()]
        pictures = [whole(one[None] / 1.5 + 0.25)[0] for one in given]
    expected = [Brightness().score((one / 2 + 0.5).clamp(0, 1), "a").item() for one in pictures]
    assert found == pytest.approx(expected, abs=1e-5)
    assert sum(decoded) == 13
    assert len(decoded) < 8
    for wrong in (torch.zeros(3, 8, 8, dtype=torch.uint8), torch.full((4, 2, 2), torch.nan), None):
        with pytest.raises(ValueError, match="latent"):
            asyncio.run(run_single(compute, wrong, "a"))  # type: ignore[arg-type]


def test_dance_grpo_as_its_sampling_code_calls() -> None:
    """One decoded image after another, as in sample_reference_model."""
    scorer = tiny_clip()
    reward_model, preprocess_val, tokenizer = dance_grpo(scorer, divisor=100)
    images = noisy(4)
    captions = ["a red fox", "日本 ü", "x" * 300, "a"]
    rewards = []
    for image, caption in zip(images, captions, strict=True):
        pixels = preprocess_val(image).unsqueeze(0).to(device="cpu", non_blocking=True)
        text = tokenizer([caption]).to(device="cpu", non_blocking=True)
        with torch.amp.autocast("cpu"):
            outputs = reward_model(pixels, text)
            logits = outputs["image_features"] @ outputs["text_features"].T
        rewards.append(torch.diagonal(logits))
    found = torch.cat(rewards).float()
    expected = scorer.score(images, captions) / 100
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-4)  # the product in bfloat16


def test_dance_grpo_in_batches() -> None:
    scorer = Brightness()
    reward_model, _, tokenizer = dance_grpo(scorer)
    pixels = torch.stack([torch.full((3, 8, 8), level) for level in (0.0, 0.2, 1.0)])
    outputs = reward_model(pixels, tokenizer(["a", "bb", "ccc"]))
    products = torch.einsum("bc,bc->b", outputs["image_features"], outputs["text_features"])
    assert products.tolist() == pytest.approx([0, 0.2, 1], abs=1e-6)


def test_diffusion_nft_calls_multi_score() -> None:
    """As train_nft_sd3.py: images of a VAE in half precision, several rewards, only_strict."""
    scorers = {"pickscore": Brightness(26.0), "hpsv2": Brightness(100.0)}
    reward_fn = flow_grpo_multi_score("cpu", {"pickscore": 1.0, "hpsv2": 1.0}, functions=scorers)
    images = torch.stack([torch.full((3, 8, 8), level) for level in (0.0, 0.5)]).half()
    rewards, info = reward_fn(images, ("a", "b"), ({}, {}), only_strict=True)
    assert rewards["avg"] == pytest.approx([0, 63], abs=0.05)
    assert info == {}
