"""A step of DRaFT and of ReFL moves the weights along the gradient of the mean reward."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.brightness import Brightness
from helpers.tiny_finetune import bright, in_float64, moved, noisy_pipeline, plain_run

from stablepref.integrations.finetune.backprop import draft_step, reward_loss
from stablepref.integrations.finetune.batches import late_step
from stablepref.integrations.reward import DifferentiableReward


@pytest.mark.parametrize(("method", "margin"), [("draft", None), ("refl", 0.465)])
def test_weights_move_along_the_gradient_of_the_mean(
    method: str, margin: float | None, tmp_path: Path
) -> None:
    pipe = in_float64(noisy_pipeline())
    reward = DifferentiableReward(Brightness().double(), vae=pipe.vae, views=1)
    settings: dict[str, Any] = {"method": method, "last_steps": 2, "margin": margin}
    run = plain_run(pipe, reward, tmp_path, **settings)
    rewards = []
    for picture in run.pictures(0):  # one by one
        if method == "refl":
            at = late_step(0, steps=2, last_steps=2, seed=0)
            latents = run.loop.predict([picture.prompt], [picture.generator()], at=at)
        else:
            latents = run.loop.sample([picture.prompt], [picture.generator()], last_steps=2)
        rewards.append(reward(latents, [picture.prompt], step=0)[0])
    losses = [-r if margin is None else torch.relu(margin - r) for r in rewards]
    assert margin is None or 0 < sum(bool(loss == 0) for loss in losses) < 4
    names, weights = zip(*run.policies.trained.named_parameters(), strict=True)
    gradients = torch.autograd.grad(sum(losses) / 4, weights)  # type: ignore[arg-type] # a tensor
    expected = dict(zip(names, gradients, strict=True))
    found = moved(run, draft_step)
    assert max(value.abs().max() for value in expected.values()) > 1e-5
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], -gradient, rtol=1e-4, atol=1e-9)


def test_micro_batches_and_checkpointing_change_nothing(tmp_path: Path) -> None:
    found = []
    for settings in (
        {"gradient_checkpointing": False},
        {"gradient_checkpointing": True},
        {"micro_batch_size": 3},
    ):
        pipe = in_float64(noisy_pipeline())
        reward = DifferentiableReward(Brightness().double(), vae=pipe.vae)
        run = plain_run(pipe, reward, tmp_path, last_steps=2, **settings)
        found.append(moved(run, draft_step))
    for other in found[1:]:
        for name, step in found[0].items():
            torch.testing.assert_close(other[name], step, rtol=1e-5, atol=1e-10)


def test_metrics_are_those_of_the_pictures(tmp_path: Path) -> None:
    pipe = noisy_pipeline()
    run = plain_run(pipe, bright(pipe), tmp_path)
    with torch.no_grad():
        chosen = run.pictures(0)
        latents = run.loop.sample([p.prompt for p in chosen], [p.generator() for p in chosen])
        rewards = run.reward(latents, [p.prompt for p in chosen], step=0)
    metrics = draft_step(run, 0)
    assert metrics["reward"] == pytest.approx(rewards.mean().item(), abs=1e-5)
    assert metrics["reward_std"] == pytest.approx(rewards.std(correction=0).item(), abs=1e-5)
    assert metrics["loss"] == pytest.approx(-metrics["reward"])
    assert math.isfinite(metrics["grad_norm"])
    assert metrics["grad_norm"] > 0


def test_the_loss_by_hand() -> None:
    rewards = torch.tensor([1.0, 3.0])
    assert reward_loss(rewards, margin=None).tolist() == [-1, -3]
    assert reward_loss(rewards, margin=2.0).tolist() == [1, 0]
