"""Flow-GRPO and its relatives: densities by hand, ratios, windows, and a step by a naive loop."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
)
from helpers.brightness import Brightness
from helpers.tiny_finetune import PROMPTS, in_float64, moved, noisy_pipeline, pipeline, plain_run
from torch import Tensor

from stablepref.integrations.diffusion.sampling import SamplingLoop
from stablepref.integrations.finetune.config import FinetuneConfig
from stablepref.integrations.finetune.grpo import (
    clip_range,
    grpo_step,
    guarded_log_ratio,
    kl_weight,
    noisy_steps,
    transition_of,
)
from stablepref.integrations.finetune.state import FinetuneRun
from stablepref.integrations.finetune.trajectories import Choice, rollout
from stablepref.integrations.finetune.transitions import Density, Kind, Transition, check_policy
from stablepref.integrations.reward import DifferentiableReward
from stablepref.models.function import FunctionScorer

GRPO: dict[str, Any] = {"method": "grpo", "batch_size": 4, "pictures_per_prompt": 2,
                        "sampling_steps": 3}  # fmt: skip


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def flow(steps: int = 4) -> FlowMatchEulerDiscreteScheduler:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(steps)
    return scheduler


@pytest.mark.parametrize("kind", ["sde", "cps"])
def test_without_noise_a_step_is_diffusers_own(kind: Kind) -> None:
    scheduler, latents = flow(), drawn(0, 2, 4, 3, 3)
    scheduler.set_begin_index(0)
    for step, timestep in enumerate(scheduler.timesteps):
        velocity = drawn(step + 1, 2, 4, 3, 3)
        density = Transition(kind, 0.7).density(scheduler, velocity, latents, step, noisy=False)
        assert density.std == 0
        latents = scheduler.step(velocity, timestep, latents, return_dict=False)[0]
        torch.testing.assert_close(density.mean, latents.double(), rtol=1e-5, atol=1e-5)


def test_the_density_of_the_differential_equation_by_hand() -> None:
    """At sigma 1/2 and then 1/4: s = 0.7 x 1, dt = -1/4; and at sigma 1, with the second sigma."""
    scheduler = flow()
    scheduler.sigmas = torch.tensor([1.0, 0.5, 0.25, 0.0])
    x, v = torch.full((1, 1), 2.0), torch.full((1, 1), 3.0)
    mean, std, diffusion = Transition("sde", 0.7).density(scheduler, v, x, 1)
    pull = 0.49 / (2 * 0.5)
    assert mean.item() == pytest.approx(2 * (1 - pull / 4) + 3 * (1 + pull * 0.5) * -0.25)
    assert (std, diffusion) == pytest.approx((0.7 * 0.5, 0.7))
    _, std, diffusion = Transition("sde", 0.7).density(scheduler, v, x, 0)
    assert diffusion == pytest.approx(0.7 * math.sqrt(1 / 0.5))
    assert std == pytest.approx(diffusion * math.sqrt(0.5))


def test_the_equation_keeps_the_marginals_of_the_schedule() -> None:
    """Of a normal picture with a known velocity: the variance stays (1 - sigma)^2 + sigma^2."""
    steps = 2000
    scheduler = flow(steps)
    scheduler.sigmas = torch.linspace(0.9, 0.3, steps)
    variance = 0.9**2 + 0.1**2
    for step in range(steps - 1):
        sigma = float(scheduler.sigmas[step])
        # The velocity that is expected at x is x times (sigma - (1 - sigma)) / variance.
        slope = (2 * sigma - 1) / (sigma**2 + (1 - sigma) ** 2)
        one = torch.ones(1, 1, dtype=torch.float64)
        density = Transition("sde", 0.7).density(scheduler, slope * one, one, step)
        variance = variance * float(density.mean) ** 2 + density.std**2
    assert variance == pytest.approx(0.3**2 + 0.7**2, rel=5e-3)


def test_cps_keeps_the_coefficients_of_picture_and_noise() -> None:
    scheduler = flow()
    scheduler.sigmas = torch.tensor([0.8, 0.5, 0.0])
    picture, noise = 3.0, -2.0
    x = torch.full((1, 1), 0.2 * picture + 0.8 * noise)
    v = torch.full((1, 1), noise - picture)
    density = Transition("cps", 0.8).density(scheduler, v, x, 0)
    std = 0.5 * math.sin(0.4 * math.pi)
    assert density.std == pytest.approx(std)
    assert density.mean.item() == pytest.approx(0.5 * picture + math.sqrt(0.25 - std**2) * noise)
    drawn_there = torch.tensor([[density.mean.item() + 3.0]])
    chance = Transition("cps", 0.8).log_probability(drawn_there, density)
    assert chance.item() == pytest.approx(-9)


@pytest.mark.parametrize(("settings", "expected"), [
    ({}, [[0, 1, 2, 3, 4, 5, 6, 7, 8]] * 3),
    ({"grpo_window": 4, "grpo_window_moves": "sliding", "grpo_window_every": 1},
     [[0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5]]),
    ({"grpo_window": 8, "grpo_window_moves": "sliding", "grpo_window_every": 1},
     [[*range(8)], [*range(1, 9)], [*range(8)]]),
    ({"grpo_window": 4, "grpo_window_moves": "sliding", "grpo_window_every": 2},
     [[0, 1, 2, 3], [0, 1, 2, 3], [1, 2, 3, 4]]),
    ({"grpo_window": 50}, [[*range(9)]] * 3),
])  # fmt: skip
def test_steps_with_noise(settings: dict[str, Any], expected: list[list[int]]) -> None:
    config = FinetuneConfig(method="grpo", sampling_steps=10, **settings)
    assert [list(noisy_steps(config, step)) for step in range(3)] == expected


def test_a_window_at_random_lies_in_the_first_half() -> None:
    config = FinetuneConfig(method="grpo", sampling_steps=10, grpo_window=3)
    found = [list(noisy_steps(config, step)) for step in range(60)]
    assert {steps[0] for steps in found} == {0, 1, 2}
    assert all(steps == [*range(steps[0], steps[0] + 3)] for steps in found)
    assert found == [list(noisy_steps(config, step)) for step in range(60)]


def test_the_guards_ratio_by_hand() -> None:
    """By -0.3 less likely; the mean moved by 2, the deviation is 0.5: b = 4 / 0.5."""
    now, zeros = torch.tensor([-1.3]), torch.zeros(1, 1)
    choice = Choice(0, zeros, zeros, torch.tensor([-1.0]), zeros)
    found = guarded_log_ratio(now, choice, Density(zeros + 2.0, 0.5, 0.7), std=0.5)
    assert found.item() == pytest.approx((-0.3 + 8) * 0.5)


def test_the_guard_takes_the_bias_out_of_the_ratio() -> None:
    """What the old policy drew is in the mean as likely under a moved one; plainly it is not."""
    old, noise = torch.zeros(20000, 8), torch.randn(20000, 8, generator=torch.Generator())
    std, kind = 0.3, Transition("sde", 0.7)
    before = Density(old, std, std)
    after = old + std * noise
    choice = Choice(0, old, after, kind.log_probability(after, before), old)
    moved_mean = Density(old + 0.05, std, std)
    now = kind.log_probability(after, moved_mean)
    plain = float((now - choice.log_probability).mean())
    assert plain == pytest.approx(-(0.05**2) / (2 * std**2), rel=0.05)
    guarded = float(guarded_log_ratio(now, choice, moved_mean, std=std).mean())
    assert abs(guarded) < 0.05 * abs(plain) * std + 2e-4


def test_defaults_of_each_variant() -> None:
    sde, ddim = FlowMatchEulerDiscreteScheduler(), DDIMScheduler(clip_sample=False)
    for settings, scheduler, eta, clip, hold in (
        ({}, sde, 0.7, 1e-4, 0.04),
        ({"grpo_noise": "cps"}, sde, 0.8, 1e-5, 0.0),
        ({"grpo_window": 3}, sde, 0.7, 1e-5, 0.0),
        ({"grpo_window": 3, "grpo_window_moves": "sliding"}, sde, 0.7, 1e-4, 0.0),
        ({"grpo_guard": True}, sde, 0.7, 2e-6, 0.04),
        ({}, ddim, 1.0, 1e-4, 0.04),
        ({"grpo_window": 3}, ddim, 1.0, 1e-5, 0.0),
        ({"grpo_eta": 0.2, "grpo_clip": 0.5, "grpo_kl": 0.3}, sde, 0.2, 0.5, 0.3),
        ({"grpo_noise": "cps", "grpo_kl": 0.1}, sde, 0.8, 1e-5, 0.1),
    ):
        config = FinetuneConfig(method="grpo", **settings)  # type: ignore[arg-type] # by name
        transition = transition_of(config, scheduler)
        assert (transition.eta, clip_range(config)) == (eta, clip)
        assert kl_weight(config) == hold


def test_what_does_not_go_together() -> None:
    with pytest.raises(ValueError, match="grpo_guard is on and grpo_noise is 'cps'"):
        FinetuneConfig(method="grpo", grpo_guard=True, grpo_noise="cps")
    scheduler = DDIMScheduler(clip_sample=False)
    for settings in ({"grpo_guard": True}, {"grpo_noise": "cps"}):
        config = FinetuneConfig(method="grpo", **settings)  # type: ignore[arg-type] # by name
        with pytest.raises(
            ValueError, match="is for flow matching; the pipeline has DDIMScheduler"
        ):
            transition_of(config, scheduler)
    with pytest.raises(ValueError, match=r"method grpo needs DDIM.*or FlowMatch"):
        check_policy(DDIMScheduler(), method="grpo", flow=True)


@pytest.mark.parametrize(("settings", "method", "hint"), [
    ({}, "ddpo", r'Pass scheduler="ddim"'),
    ({}, "grpo", r'Pass scheduler="ddim"'),
    ({"use_flow_sigmas": True}, "grpo", r'Pass scheduler="flow-euler"'),
    ({"use_flow_sigmas": True}, "ddpo", "flow matching: use another method, such as nft or grpo"),
])  # fmt: skip
def test_another_scheduler_or_method_is_named(
    settings: dict[str, Any], method: str, hint: str
) -> None:
    scheduler = DPMSolverMultistepScheduler(**settings)
    with pytest.raises(ValueError, match=hint):
        check_policy(scheduler, method=method, flow=method == "grpo")


def begun(kind: str, folder: Path, **settings: object) -> FinetuneRun:
    pipe = in_float64(pipeline("sd3") if kind == "flow" else noisy_pipeline())
    reward = DifferentiableReward(Brightness().double(), vae=pipe.vae)
    return plain_run(pipe, reward, folder, **{**GRPO, **settings})


def naive_gradients(run: FinetuneRun, alone: list[Any], better: Tensor) -> dict[str, Tensor]:
    """Picture by picture and step by step, at the weights as they are."""
    config, scheduler = run.config, run.loop.scheduler()
    transition = transition_of(config, scheduler)
    total = torch.zeros((), dtype=torch.float64)
    for made, advantage in zip(alone, better, strict=True):
        for choice in made.choices:
            timestep = scheduler.timesteps[choice.step]
            with torch.no_grad():
                network = run.policies.pipe.components[run_part(run)]
                network.disable_adapters()
                first = run.loop.denoise(choice.before, timestep, made.prompts)
                network.enable_adapters()
            outputs = (run.loop.denoise(choice.before, timestep, made.prompts), first)
            (mean, std, s), (base, *_) = (
                transition.density(scheduler, output, choice.before, choice.step)
                for output in outputs
            )
            error = (choice.after - mean).square().mean()
            now = -error if transition.kind == "cps" else -error / (2 * std**2)
            then = (choice.after - choice.mean).square().mean()
            then = -then if transition.kind == "cps" else -then / (2 * std**2)
            log_ratio, length = now - then, 1.0
            if config.grpo_guard:
                b = (mean - choice.mean).square().mean() / (2 * std**2)
                log_ratio = (log_ratio + b) * std
                length = float(scheduler.sigmas[choice.step] - scheduler.sigmas[choice.step + 1])
            ratio, bound = log_ratio.exp(), clip_range(config)
            loss = -min(ratio * advantage, ratio.clamp(1 - bound, 1 + bound) * advantage) / length
            loss = loss + kl_weight(config) * (mean - base).square().mean() / (2 * s**2)
            total = total + loss / len(alone) / len(made.choices)
    names, weights = zip(*run.policies.trained.named_parameters(), strict=True)
    gradients = torch.autograd.grad(total, weights, allow_unused=True)
    return {
        name: torch.zeros_like(weight) if gradient is None else gradient
        for name, weight, gradient in zip(names, weights, gradients, strict=True)
    }


def run_part(run: FinetuneRun) -> str:
    return "unet" if hasattr(run.policies.pipe, "unet") else "transformer"


@pytest.mark.parametrize(("kind", "settings"), [
    ("flow", {"grpo_kl": 0.04}),
    ("flow", {"grpo_noise": "cps", "grpo_kl": 0.0}),
    ("flow", {"grpo_guard": True, "grpo_kl": 0.0}),
    ("ddim", {"grpo_kl": 0.04}),
])  # fmt: skip
def test_two_updates_move_weights_along_the_gradients_of_a_naive_loss(
    kind: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    """At the second the ratio is not 1 any more."""
    run = begun(kind, tmp_path, **settings, updates=2, grpo_clip=0.05)
    transition, steps = (
        transition_of(run.config, run.loop.pipe.scheduler),
        noisy_steps(run.config, 0),
    )
    pictures = run.pictures(0)
    alone = [
        rollout(run.loop, [p.prompt], [p.generator()], transition, noisy=steps) for p in pictures
    ]
    with torch.no_grad():
        rewards = torch.cat([run.reward(a.latents, a.prompts, step=0) for a in alone])
    better = torch.zeros(4, dtype=torch.float64)
    for row, picture in enumerate(pictures):
        group = [r for r, p in zip(rewards, pictures, strict=True) if p.prompt == picture.prompt]
        better[row] = (rewards[row] - sum(group) / 2) / (rewards.std(correction=0) + 1e-4)
    weights = dict(run.policies.trained.named_parameters())
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    first = naive_gradients(run, alone, better)
    with torch.no_grad():
        for name, weight in weights.items():
            weight.sub_(first[name])
    second = naive_gradients(run, alone, better)
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(before[name])
    assert max(value.abs().max() for value in first.values()) > 1e-6
    found = moved(run, grpo_step)
    for name in weights:
        torch.testing.assert_close(found[name], -first[name] - second[name], rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("settings", [
    {"kind": "flow"}, {"kind": "flow", "grpo_noise": "cps", "guidance": 3.0},
    {"kind": "ddim", "gradient_checkpointing": False}, {"kind": "flow", "grpo_guard": True},
])  # fmt: skip
def test_ratios_are_exactly_1_before_the_first_update(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    """Bit for bit, in float32."""
    given = dict(settings)
    pipe = pipeline("sd3") if given.pop("kind") == "flow" else noisy_pipeline()
    reward = DifferentiableReward(Brightness(), vae=pipe.vae)
    run = plain_run(pipe, reward, tmp_path, **{**GRPO, "updates": 1, "grpo_kl": 0.04, **given})
    metrics = grpo_step(run, 0)
    assert metrics["ratio_before"] == 0
    assert metrics["clipped"] == 0
    assert metrics["kl"] > 0


@pytest.mark.parametrize("kind", ["sde", "cps", "ddim"])
def test_odds_of_pictures_in_bfloat16_are_in_float32(kind: Kind) -> None:
    """As those of the same numbers in float32: bit for bit, nothing is rounded on the way."""
    scheduler: Any = flow() if kind != "ddim" else DDIMScheduler(clip_sample=False)
    scheduler.set_timesteps(4)
    before, output, after = (drawn(seed, 2, 4, 8, 8).bfloat16() for seed in range(3))
    transition = Transition(kind, 0.7)
    found = transition.density(scheduler, output, before, 1)
    expected = transition.density(scheduler, output.float(), before.float(), 1)
    assert found.mean.dtype == torch.float32
    assert torch.equal(found.mean, expected.mean)
    odds = transition.log_probability(after, found)
    assert odds.dtype == torch.float32
    assert torch.equal(odds, transition.log_probability(after.float(), expected))


def test_micro_batches_change_nothing(tmp_path: Path) -> None:
    found = [moved(begun("flow", tmp_path, micro_batch_size=size), grpo_step) for size in (None, 3)]
    assert max(step.abs().max() for step in found[0].values()) > 1e-6
    for name, step in found[0].items():
        torch.testing.assert_close(found[1][name], step, rtol=1e-5, atol=1e-10)


def test_outside_of_the_window_and_from_the_same_noise_there_is_nothing_to_choose(
    tmp_path: Path,
) -> None:
    """Pictures of a prompt are equal up to the window, and those of other prompts are not."""
    run = begun("flow", tmp_path, grpo_same_noise=True, grpo_window=1, grpo_window_moves="sliding",
                grpo_window_every=1, micro_batch_size=3)  # fmt: skip
    seen: list[Tensor] = []
    denoise = type(run.loop).denoise

    def looked(self: SamplingLoop, latents: Tensor, *given: object, **named: object) -> Tensor:
        if torch.is_grad_enabled():
            seen.extend(latents.unbind())
        found: Tensor = denoise(self, latents, *given, **named)  # type: ignore[arg-type] # handed on
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(run.loop), "denoise", looked)
        grpo_step(run, 1)  # the window is the second step alone
    assert len(seen) == 4, "one choice of each picture"
    torch.testing.assert_close(seen[0], seen[1])
    torch.testing.assert_close(seen[2], seen[3])
    assert float((seen[0] - seen[2]).abs().max()) > 0.1


def test_prompts_whose_pictures_are_equal_are_dropped_and_counted(tmp_path: Path) -> None:
    flat = FunctionScorer(lambda images, prompts: [1.0] * len(images), name="g", unit="u")
    run = plain_run(pipeline("sd3"), flat, tmp_path, **GRPO)
    metrics: dict[str, float] = {}
    found = moved(run, lambda run, step: metrics.update(grpo_step(run, step)))
    assert not any(value.any() for value in found.values())
    assert (metrics["dropped"], metrics["loss"], metrics["grad_norm"]) == (2, 0, 0)
    half = FunctionScorer(
        lambda images, prompts: [p == PROMPTS[0] or i.getpixel((1, 2))[0] for i, p in
                                 zip(images, prompts, strict=True)],
        name="h", unit="u",
    )  # fmt: skip
    run = plain_run(pipeline("sd3"), half, tmp_path, **GRPO)
    found = moved(run, lambda run, step: metrics.update(grpo_step(run, step)))
    assert metrics["dropped"] == 1
    assert any(value.any() for value in found.values())
