"""The noise levels that Diffusion-DPO trains at: those of the pipeline's training."""

from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
)
from helpers.tiny_finetune import pipeline

from stablepref.integrations.finetune.dpo_pairs import training_noise


def test_noise_is_that_of_training_a_diffusion_model() -> None:
    like = torch.zeros(4000, 1)
    ddim = DDIMScheduler(beta_schedule="scaled_linear")
    times, signal, level, noise = training_noise(ddim, range(4000), like, flow=False)
    assert times.min() < 10
    assert times.max() > 989
    assert float(times.float().mean()) == pytest.approx(499.5, abs=15)
    kept = ddim.alphas_cumprod[times]
    torch.testing.assert_close(signal[:, 0], kept.sqrt())
    torch.testing.assert_close(level[:, 0], (1 - kept).sqrt())
    assert float(noise.std()) == pytest.approx(1, abs=0.05)
    scheduler = pipeline("sd3").scheduler
    times, signal, level, _ = training_noise(scheduler, range(4000), like, flow=True)
    torch.testing.assert_close(times, 1000 * level[:, 0])
    torch.testing.assert_close(signal + level, torch.ones(4000, 1))
    normal = torch.logit(level)  # of the logistic of a normal number
    assert float(normal.mean()) == pytest.approx(0, abs=0.06)
    assert float(normal.std()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("setting", [
    {"shift": 3.0}, {"flow_shift": 3.0, "use_flow_sigmas": True}, {"use_dynamic_shifting": True},
])  # fmt: skip
def test_noise_levels_are_shifted_as_the_schedulers_are(setting: dict[str, Any]) -> None:
    """A shift of s makes s x / (1 + (s - 1) x) of a level x; a dynamic one belongs to a size."""
    solver = "flow_shift" in setting
    kind: Any = DPMSolverMultistepScheduler if solver else FlowMatchEulerDiscreteScheduler
    like, seeds = torch.zeros(50, 1), range(50)
    _, _, plain, _ = training_noise(FlowMatchEulerDiscreteScheduler(), seeds, like, flow=True)
    times, signal, level, _ = training_noise(kind(**setting), seeds, like, flow=True)
    expected = plain if "use_dynamic_shifting" in setting else 3 * plain / (1 + 2 * plain)
    torch.testing.assert_close(level, expected)
    torch.testing.assert_close(signal, 1 - expected)
    torch.testing.assert_close(times, 1000 * expected[:, 0])
