"""A step of DDPO moves the weights along the gradient of the clipped loss."""

import math
from pathlib import Path

import pytest
import torch
from helpers.brightness import Brightness
from helpers.tiny_finetune import bright, moved, noisy_pipeline, pipeline, plain_run
from torch import Tensor
from torch.distributions import Normal

from stablepref.integrations.finetune.ddpo import advantages, ddim_step, rollout
from stablepref.integrations.finetune.ddpo_method import ddpo_step
from stablepref.integrations.reward import DifferentiableReward

DDPO = {"method": "ddpo", "batch_size": 8, "updates": 1, "eta": 0.8}


def test_weights_move_along_the_gradient_of_a_naive_loss(tmp_path: Path) -> None:
    """Of all pictures and steps, each by itself, with torch's own density."""
    pipe = noisy_pipeline().to(torch.float64)
    reward = DifferentiableReward(Brightness().double(), vae=pipe.vae)
    run = plain_run(pipe, reward, tmp_path, **DDPO)
    pictures = run.pictures(0)
    alone = [rollout(run.loop, [p.prompt], [p.generator()], eta=0.8) for p in pictures]
    rewards = torch.cat([reward(one.latents, one.prompts, step=0) for one in alone])
    better = advantages(rewards, [picture.prompt for picture in pictures])
    total = torch.zeros((), dtype=torch.float64)
    scheduler = run.loop.scheduler()
    for trajectory, advantage in zip(alone, better, strict=True):
        conditions = run.loop.conditions(trajectory.prompts)
        for choice in trajectory.transitions:
            output = run.loop.denoiser(choice.before, scheduler.timesteps[choice.step], conditions)
            mean, std = ddim_step(scheduler, output, choice.before, choice.step, eta=0.8)
            chance = Normal(mean, std).log_prob(choice.after).mean()
            # At the weights that drew, the ratio is 1 and its gradient that of the logarithm.
            total = total - advantage * chance / (8 * 2)
    names, weights = zip(*run.weights.named_parameters(), strict=True)
    expected = dict(zip(names, torch.autograd.grad(total, weights), strict=True))
    found = moved(run, ddpo_step)
    assert max(value.abs().max() for value in expected.values()) > 1e-6
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], -gradient, rtol=1e-4, atol=1e-10)


def test_micro_batches_change_nothing(tmp_path: Path) -> None:
    found: list[dict[str, Tensor]] = []
    for size in (None, 3):
        pipe = noisy_pipeline().to(torch.float64)
        reward = DifferentiableReward(Brightness().double(), vae=pipe.vae)
        run = plain_run(pipe, reward, tmp_path, micro_batch_size=size, **DDPO)
        found.append(moved(run, ddpo_step))
    for name, step in found[0].items():
        torch.testing.assert_close(found[1][name], step, rtol=1e-5, atol=1e-10)


def test_ratios_are_clipped_from_the_second_update_on(tmp_path: Path) -> None:
    settings = {**DDPO, "clip_range": 1e-6}
    pipe = noisy_pipeline()
    first = ddpo_step(plain_run(pipe, bright(pipe), tmp_path, **settings), 0)
    assert first["clipped"] == 0
    assert first["loss"] == pytest.approx(0, abs=1e-4), "advantages have a mean of 0"
    pipe = noisy_pipeline()
    run = plain_run(pipe, bright(pipe), tmp_path, **{**settings, "updates": 2})
    second = ddpo_step(run, 0)
    assert 0.5 < second["clipped"] <= 1
    assert second["reward"] == first["reward"]
    assert math.isfinite(second["grad_norm"])


def test_sampling_without_noise_is_refused(tmp_path: Path) -> None:
    """Of one step, which ends in the finished picture."""
    pipe = pipeline()
    run = plain_run(pipe, bright(pipe), tmp_path, **{**DDPO, "sampling_steps": 1})
    with pytest.raises(ValueError, match="none of the 1 sampling_steps has noise"):
        ddpo_step(run, 0)
