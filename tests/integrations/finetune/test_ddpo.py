"""DDPO: its parts by hand, by naive loops and by diffusers' own step; and a whole step."""

import math
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler
from helpers.brightness import Brightness
from helpers.tiny_finetune import (
    PROMPTS,
    SIDE,
    bright,
    generators,
    in_float64,
    moved,
    noisy_pipeline,
    pipeline,
    plain_run,
)
from torch import Tensor
from torch.distributions import Normal

from stablepref.benchmarks.shapes.pipeline.parts import STEPS, build_scheduler
from stablepref.integrations.diffusion.sampling import SamplingLoop
from stablepref.integrations.finetune.ddpo import ddpo_step
from stablepref.integrations.finetune.trajectories import rollout
from stablepref.integrations.finetune.transitions import (
    Transition,
    check_policy,
    clipped_loss,
    ddim_density,
    log_probability,
)
from stablepref.integrations.reward import DifferentiableReward

DDPO = {"method": "ddpo", "batch_size": 8, "updates": 1, "eta": 0.8}


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_density_by_hand() -> None:
    """Two numbers at distances 1 and 2 from their means, at a deviation of 2.

    log N = -d^2 / (2 * 4) - log 2 - log(2 pi) / 2; the mean of d^2 is 2.5.
    """
    found = log_probability(torch.tensor([[1.0, 5.0]]), torch.tensor([[0.0, 3.0]]), 2.0)
    expected = -2.5 / 8 - math.log(2) - math.log(2 * math.pi) / 2
    assert found.tolist() == pytest.approx([expected], abs=1e-6)


def test_the_density_is_torchs() -> None:
    after, mean = drawn(0, 3, 4, 2, 2), drawn(1, 3, 4, 2, 2)
    expected = Normal(mean, 0.3).log_prob(after).mean(dim=(1, 2, 3))
    torch.testing.assert_close(log_probability(after, mean, 0.3), expected)
    leaf = after.clone().requires_grad_()
    assert not log_probability(leaf, mean, 0.3).requires_grad, "what was drawn has no gradient"


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_steps_are_those_of_diffusers(prediction: str, eta: float) -> None:
    scheduler = DDIMScheduler(
        prediction_type=prediction, clip_sample=False, beta_schedule="scaled_linear"
    )
    scheduler.set_timesteps(5)
    output, latents, noise = (drawn(i, 2, 4, 3, 3).double() for i in range(3))
    for step, timestep in enumerate(scheduler.timesteps):
        expected = scheduler.step(output, timestep, latents, eta=eta, variance_noise=noise)
        mean, std, _ = ddim_density(scheduler, output, latents, step, eta)
        torch.testing.assert_close(mean + std * noise, expected.prev_sample, rtol=1e-4, atol=1e-5)


def test_a_schedule_that_begins_in_pure_noise_stays_finite() -> None:
    """The laboratory's own, of whose first step diffusers makes NaN at eta 1."""
    scheduler = build_scheduler()
    scheduler.set_timesteps(STEPS)
    output, latents = drawn(0, 1, 4, 2, 2), drawn(1, 1, 4, 2, 2)
    for step in range(STEPS):
        mean, std, _ = ddim_density(scheduler, output, latents, step, 1.0)
        assert mean.isfinite().all()
        assert 0 <= std < 1
    # Nothing is known of the picture yet: x0 is minus the velocity, and what is left is noise.
    mean, std, _ = ddim_density(scheduler, output, latents, 0, 1.0)
    kept = float(scheduler.alphas_cumprod[scheduler.timesteps[1]])
    assert std == pytest.approx(math.sqrt(1 - kept), rel=1e-4)
    torch.testing.assert_close(mean, -math.sqrt(kept) * output, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_a_rollout_makes_the_pipelines_pictures(eta: float) -> None:
    pipe = pipeline()
    loop = SamplingLoop(pipe, steps=4, guidance=3.0, height=SIDE, width=SIDE)
    made = rollout(loop, PROMPTS, generators(2), Transition("ddim", eta))
    expected = pipe(
        list(PROMPTS),
        num_inference_steps=4,
        guidance_scale=3.0,
        height=SIDE,
        width=SIDE,
        generator=generators(2),
        eta=eta,
        output_type="latent",
    ).images
    torch.testing.assert_close(made.latents, expected, rtol=1e-4, atol=1e-3)
    # The last step has no noise: of it there is nothing to choose.
    assert [choice.step for choice in made.choices] == [0, 1, 2]


def test_a_rollout_is_as_likely_as_it_says() -> None:
    """Taken up again with the same weights, every ratio is 1."""
    pipe = noisy_pipeline()
    loop = SamplingLoop(pipe, steps=2, guidance=1.0, height=SIDE, width=SIDE)
    made = rollout(loop, PROMPTS, generators(2), Transition("ddim", 1.0))
    assert [choice.step for choice in made.choices] == [0, 1]
    scheduler = loop.scheduler()
    for choice in made.choices:
        timestep = scheduler.timesteps[choice.step]
        output = loop.denoise(choice.before, timestep, PROMPTS)
        mean, std, _ = ddim_density(scheduler, output, choice.before, choice.step, 1.0)
        now = log_probability(choice.after, mean, std)
        assert now.requires_grad
        assert torch.equal(now.detach(), choice.log_probability)
        # Standard normal noise: its mean square is near 1 for 2 x 256 numbers.
        far = ((choice.after - mean) / std).square().mean().item()
        assert far == pytest.approx(1.0, abs=0.2)


def test_the_loss_is_a_naive_loop() -> None:
    now, before, advantage = drawn(0, 40) * 0.3, drawn(1, 40) * 0.3, drawn(2, 40)
    found = clipped_loss((now - before).exp(), advantage, clip_range=0.2)
    rows = zip(*(each.tolist() for each in (found, now, before, advantage)), strict=True)
    for loss, new, old, better in rows:
        ratio = math.exp(new - old)
        kept = min(max(ratio, 0.8), 1.2)
        assert loss == pytest.approx(-min(ratio * better, kept * better), abs=1e-6)


@pytest.mark.parametrize(("ratio", "advantage", "moves"), [
    (1.0, 1.0, True),
    (1.5, 1.0, False),  # more likely already than it may become
    (1.5, -1.0, True),
    (0.5, 1.0, True),
    (0.5, -1.0, False),
])  # fmt: skip
def test_clipped_ratios_have_no_gradient(ratio: float, advantage: float, moves: bool) -> None:
    now = torch.tensor([math.log(ratio)], requires_grad=True)
    loss = clipped_loss(now.exp(), torch.tensor([advantage]), clip_range=0.2)
    (gradient,) = torch.autograd.grad(loss.sum(), now)
    assert gradient.item() == pytest.approx(-ratio * advantage if moves else 0.0)


def test_other_policies_are_refused() -> None:
    with pytest.raises(ValueError, match="the pipeline has EulerDiscreteScheduler"):
        check_policy(EulerDiscreteScheduler(), method="ddpo")
    with pytest.raises(ValueError, match="without clip_sample"):
        check_policy(DDIMScheduler(), method="ddpo")
    check_policy(DDIMScheduler(clip_sample=False), method="ddpo")


def test_weights_move_along_the_gradient_of_a_naive_loss(tmp_path: Path) -> None:
    """Of all pictures and steps, each by itself, with torch's own density."""
    pipe = in_float64(noisy_pipeline())
    reward = DifferentiableReward(Brightness().double(), vae=pipe.vae)
    run = plain_run(pipe, reward, tmp_path, **DDPO)
    pictures = run.pictures(0)
    noisy = Transition("ddim", 0.8)
    alone = [rollout(run.loop, [p.prompt], [p.generator()], noisy) for p in pictures]
    rewards = torch.cat([reward(one.latents, one.prompts, step=0) for one in alone])
    better = run.better(rewards[:, None], [picture.prompt for picture in pictures]).values
    total = torch.zeros((), dtype=torch.float64)
    scheduler = run.loop.scheduler()
    for trajectory, advantage in zip(alone, better, strict=True):
        for choice in trajectory.choices:
            timestep = scheduler.timesteps[choice.step]
            output = run.loop.denoise(choice.before, timestep, trajectory.prompts)
            mean, std, _ = ddim_density(scheduler, output, choice.before, choice.step, 0.8)
            chance = Normal(mean, std).log_prob(choice.after).mean()
            # At the weights that drew, the ratio is 1 and its gradient that of the logarithm.
            total = total - advantage * chance / (8 * 2)
    names, weights = zip(*run.policies.trained.named_parameters(), strict=True)
    expected = dict(zip(names, torch.autograd.grad(total, weights), strict=True))
    found = moved(run, ddpo_step)
    assert max(value.abs().max() for value in expected.values()) > 1e-6
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], -gradient, rtol=1e-4, atol=1e-10)


def test_micro_batches_change_nothing(tmp_path: Path) -> None:
    found: list[dict[str, Tensor]] = []
    for size in (None, 3):
        pipe = in_float64(noisy_pipeline())
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
