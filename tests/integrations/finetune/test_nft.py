"""DiffusionNFT: its parts by hand, and a whole step against a naive loop."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler
from helpers.brightness import Brightness
from helpers.tiny_finetune import (
    PROMPTS,
    SIDE,
    bright,
    disturb,
    in_float64,
    moved,
    pipeline,
    plain_run,
)
from torch import Tensor
from torch.func import functional_call

from stablepref.integrations.diffusion.denoiser import denoiser_of
from stablepref.integrations.diffusion.sampling import SamplingLoop
from stablepref.integrations.finetune.batches import noise_seed
from stablepref.integrations.finetune.nft import contrast_loss, goodness, inertia, nft_step
from stablepref.integrations.finetune.noising import Noising
from stablepref.integrations.finetune.state import FinetuneRun
from stablepref.integrations.reward import DifferentiableReward
from stablepref.models.function import FunctionScorer

NFT: dict[str, Any] = {"method": "nft", "batch_size": 4, "pictures_per_prompt": 2}


def test_the_loss_by_hand() -> None:
    """One number: x0 is 1, new predicts 3, old 2, beta 1/2, of a picture that is 3/4 good.

    good = 2.5, bad = 1.5 x 2 - 0.5 x 3 = 1.5; errors 1.5 and 0.5, squares over sizes the same.
    """
    found = contrast_loss(
        torch.ones(1, 1), torch.full((1, 1), 3.0), torch.full((1, 1), 2.0),
        torch.tensor([0.75]), beta=0.5,
    )  # fmt: skip
    assert found.tolist() == pytest.approx([(0.75 * 1.5 + 0.25 * 0.5) / 0.5 * 5])


def test_the_size_of_an_error_has_no_gradient_and_a_floor() -> None:
    new = torch.tensor([[3.0, 1.0]], requires_grad=True)
    x0, share = torch.zeros(1, 2), torch.ones(1)
    (gradient,) = torch.autograd.grad(contrast_loss(x0, new, x0, share, beta=1.0).sum(), new)
    assert gradient.tolist() == [pytest.approx([5 * 3 / 2, 5 * 1 / 2])]  # 2 error / 2 numbers / 2
    exact = torch.zeros(1, 2, requires_grad=True)
    assert torch.autograd.grad(contrast_loss(x0, exact, x0, share, beta=1.0).sum(), exact)[
        0
    ].tolist() == [[0, 0]]


def test_how_good_a_picture_is() -> None:
    found = goodness(torch.tensor([-7.0, -5.0, 0.0, 1.0, 5.0]))
    assert found.tolist() == pytest.approx([0, 0, 0.5, 0.6, 1])


def test_schedules_of_the_old_policy() -> None:
    assert [inertia(step, "copy") for step in (1, 1000)] == [0, 0]
    assert [inertia(s, "rising") for s in (1, 20, 500, 900)] == pytest.approx(
        [0.001, 0.02, 0.5, 0.5]
    )
    assert [inertia(s, "late") for s in (1, 75, 76, 175, 900)] == pytest.approx(
        [0, 0, 0.0075, 0.75, 0.999]
    )
    assert [inertia(step, "steady") for step in (1, 1000)] == [0.9, 0.9]


def apart(run: FinetuneRun) -> FinetuneRun:
    """The old policy neither the trained one nor the first."""
    assert run.policies.old is not None
    noise = torch.Generator().manual_seed(7)
    for value in run.policies.old.buffers():
        value.add_(0.1 * torch.randn(value.shape, generator=noise))
    return run


def predicted(
    run: FinetuneRun, weights: Mapping[str, Tensor], x: Tensor, time: Tensor, texts: dict[str, Any]
) -> Tensor:
    """The denoiser's output with some weights."""
    network = denoiser_of(run.loop.pipe)
    given = {name.replace("/", "."): value for name, value in weights.items()}
    output: Tensor = functional_call(
        network, given, (x,), {"timestep": time.expand(1), **texts, "return_dict": False}
    )[0]
    return output


@torch.no_grad()
def conditions(pipe: Any, prompt: str) -> dict[str, Any]:  # noqa: ANN401 (diffusers has no types)
    """What the denoiser of Stable Diffusion 1 or 3 is conditioned on, without guidance."""
    if hasattr(pipe, "unet"):
        return {"encoder_hidden_states": pipe.encode_prompt(prompt, pipe.device, 1, False)[0]}
    tokens, _, pooled, _ = pipe.encode_prompt(prompt, None, None, do_classifier_free_guidance=False)
    return {"encoder_hidden_states": tokens, "pooled_projections": pooled}


def naive_loss(run: FinetuneRun, levels: list[tuple[float, float]], kind: str) -> Tensor:
    """Picture by picture and level by level, with the paper's mixtures of outputs."""
    config, old = run.config, run.policies.old
    assert old is not None
    scheduler = run.loop.scheduler()
    trained = dict(run.policies.trained.named_parameters())
    before = dict(old.named_buffers())
    first = {n: torch.zeros_like(w) if "lora_B" in n else w.detach() for n, w in trained.items()}
    pictures = run.pictures(0)
    now = {name: weight.detach().clone() for name, weight in trained.items()}
    with torch.no_grad():
        for name, weight in trained.items():
            weight.copy_(before[name])
        drawn = [run.loop.sample([p.prompt], [p.generator()]) for p in pictures]
        rewards = torch.cat(
            [run.reward(x, [p.prompt], step=0) for x, p in zip(drawn, pictures, strict=True)]
        )
        for name, weight in trained.items():
            weight.copy_(now[name])
    total = torch.zeros((), dtype=torch.float64)
    for picture, x0, reward in zip(pictures, drawn, rewards, strict=True):
        same = [r for r, p in zip(rewards, pictures, strict=True) if p.prompt == picture.prompt]
        advantage = (reward - sum(same) / len(same)) / (rewards.std(correction=0) + 1e-4)
        good = min(max(float(advantage) / 10 + 0.5, 0.0), 1.0)
        leader = next(one for one in pictures if one.prompt == picture.prompt)
        generator = torch.Generator().manual_seed(noise_seed(leader.seed, 0))
        chosen = torch.randperm(len(levels), generator=generator)[: config.nft_timesteps]
        texts = conditions(run.loop.pipe, picture.prompt)
        for level in chosen.tolist():
            signal, noise = levels[level]
            epsilon = torch.randn(x0.shape[1:], generator=generator, dtype=x0.dtype)[None]
            x = signal * x0 + noise * epsilon
            time = scheduler.timesteps[level]
            new, past, base = (
                predicted(run, weights, x, time, texts) for weights in (trained, before, first)
            )
            past, base = past.detach(), base.detach()

            def finished(
                output: Tensor, x: Tensor = x, signal: float = signal, noise: float = noise
            ) -> Tensor:
                if kind == "epsilon":
                    return (x - noise * output) / signal
                return (signal * x if kind == "v_prediction" else x) - noise * output

            beta = config.nft_beta
            for share, mixed in (
                (good, beta * new + (1 - beta) * past),
                (1 - good, (1 + beta) * past - beta * new),
            ):
                error = finished(mixed) - x0
                total = (
                    total + share * error.square().mean() / error.detach().abs().mean() / beta * 5
                )
            velocity, other = new, base
            if kind == "epsilon":  # signal epsilon - noise x0
                velocity, other = (signal * out - noise * finished(out) for out in (new, base))
            total = total + config.nft_kl * (velocity - other).square().mean()
    return total / len(pictures) / len(chosen)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "flow"])
def test_weights_move_along_the_gradient_of_a_naive_loss(kind: str, tmp_path: Path) -> None:
    pipe = pipeline("sd3" if kind == "flow" else "sd")
    if kind != "flow":
        pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, prediction_type=kind)
    pipe = in_float64(pipe)
    reward = DifferentiableReward(Brightness().double(), vae=pipe.vae)
    settings = {**NFT, "nft_beta": 0.3, "nft_kl": 0.1, "nft_timesteps": 2, "sampling_steps": 3}
    run = apart(plain_run(pipe, reward, tmp_path, **settings))
    scheduler = run.loop.scheduler()
    if kind == "flow":
        levels = [(1 - float(s), float(s)) for s in scheduler.sigmas[:-1]]
    else:
        kept = [float(scheduler.alphas_cumprod[t]) for t in scheduler.timesteps]
        levels = [(math.sqrt(k), math.sqrt(1 - k)) for k in kept]
    loss = naive_loss(run, levels, kind)
    names, weights = zip(*run.policies.trained.named_parameters(), strict=True)
    gradients = torch.autograd.grad(loss, weights, allow_unused=True)
    expected = {n: g for n, g in zip(names, gradients, strict=True) if g is not None}
    found = moved(run, nft_step)
    assert max(value.abs().max() for value in expected.values()) > 1e-6
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], -gradient, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("rank", [2, 0])
def test_micro_batches_and_checkpointing_change_nothing(rank: int, tmp_path: Path) -> None:
    found = []
    for settings in (
        {"gradient_checkpointing": False},
        {"gradient_checkpointing": True, "micro_batch_size": 3},
    ):
        pipe = in_float64(pipeline())
        reward = DifferentiableReward(Brightness().double(), vae=pipe.vae)
        run = plain_run(pipe, reward, tmp_path, **NFT, rank=rank, nft_timesteps=1, **settings)
        disturb(run.policies.trained, seed=2)
        found.append(moved(run, nft_step))
    assert max(step.abs().max() for step in found[0].values()) > 1e-6
    for name, step in found[0].items():
        torch.testing.assert_close(found[1][name], step, rtol=1e-5, atol=1e-9)


def test_metrics_and_the_old_policy_after_a_step(tmp_path: Path) -> None:
    pipe = pipeline()
    run = apart(plain_run(pipe, bright(pipe), tmp_path, **NFT, nft_old="late"))
    old = run.policies.old
    assert old is not None
    chosen = run.pictures(99)
    with torch.no_grad(), old.in_place():
        latents = run.loop.sample([p.prompt for p in chosen], [p.generator() for p in chosen])
        rewards = run.rewards(latents, [p.prompt for p in chosen], 99)
    before = {name: value.clone() for name, value in old.named_buffers()}
    metrics = nft_step(run, 99)
    assert metrics["reward"] == pytest.approx(float(rewards.mean()), abs=1e-6)
    assert metrics["dropped"] == 0
    for name, weight in run.policies.trained.named_parameters():
        expected = 0.1875 * before[name] + 0.8125 * weight.detach()  # 25 x 0.0075 of itself
        torch.testing.assert_close(old.get_buffer(name), expected)


def test_prompts_whose_pictures_are_equal_are_dropped_and_counted(tmp_path: Path) -> None:
    """Of one prompt all rewards are the same; of another training's prompts, of all."""
    pipe = in_float64(pipeline())

    def reward(images: list[Any], prompts: list[str]) -> list[float]:
        return [
            0.5 if prompt == PROMPTS[0] else sum(image.getpixel((3, 4)))
            for image, prompt in zip(images, prompts, strict=True)
        ]

    run = plain_run(pipe, FunctionScorer(reward, name="f", unit="u"), tmp_path, **NFT)
    run.reward._vae.to(torch.float64)
    metrics: dict[str, float] = {}

    def step(run: FinetuneRun, number: int) -> None:
        metrics.update(nft_step(run, number))

    assert max(value.abs().max() for value in moved(run, step).values()) > 0
    assert metrics["dropped"] == 1
    flat = FunctionScorer(lambda images, prompts: [1.0] * len(images), name="g", unit="u")
    none = plain_run(pipeline(), flat, tmp_path, **NFT)
    assert not any(value.any() for value in moved(none, step).values())
    assert (metrics["dropped"], metrics["loss"], metrics["grad_norm"]) == (2, 0, 0)


def test_noise_of_every_scheduler_is_as_it_adds_it() -> None:
    """Euler's schedulers scale latents, which the denoiser does not see."""
    pipe = pipeline()
    pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    loop = SamplingLoop(pipe, steps=3, guidance=1.0)
    x0, noise = torch.ones(2, 4, 2, 2), torch.full((2, 4, 2, 2), 0.5)
    scheduler = loop.scheduler()
    for step in range(3):
        timestep = scheduler.timesteps[step]
        theirs = scheduler.add_noise(x0, noise, timestep.expand(2))
        scheduler._step_index = None
        expected = scheduler.scale_model_input(theirs, timestep)
        found = Noising(loop).noised(x0, noise, torch.full((2,), step))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_pictures_are_drawn_with_the_guidance_that_is_asked_for(
    guidance: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that are rewarded are the pipeline's own, by its call."""
    pipe: Any = pipeline()
    run = plain_run(pipe, bright(pipe), tmp_path, **{**NFT, "guidance": guidance})
    rewarded: list[Tensor] = []
    parts = FinetuneRun.reward_parts

    def seen(self: FinetuneRun, latents: Tensor, *rest: Any) -> Tensor:  # noqa: ANN401 (of the method)
        rewarded.append(latents)
        return parts(self, latents, *rest)

    monkeypatch.setattr(FinetuneRun, "reward_parts", seen)
    pictures = run.pictures(0)
    with run.policies.drawing():
        expected = pipe(
            [one.prompt for one in pictures], generator=[one.generator() for one in pictures],
            guidance_scale=guidance, num_inference_steps=2, height=SIDE, width=SIDE,
            output_type="latent",
        ).images  # fmt: skip
    nft_step(run, 0)
    torch.testing.assert_close(torch.cat(rewarded), expected, rtol=1e-4, atol=1e-5)
