"""x0 predictions: hand-made noise is taken off again, and each scheduler's own number is met."""

from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from stablepref.integrations.diffusion.x0 import SCHEDULERS, noise_level, predict_x0

FLOW = "FlowMatchEulerDiscreteScheduler"
BY_SIGMA = ("DPMSolverMultistepScheduler", "UniPCMultistepScheduler")
STEPS = 7
CASES = [
    *((name, of) for name in SCHEDULERS if name != FLOW for of in ("epsilon", "v_prediction")),
    *((name, "sample") for name in ("DDIMScheduler", "DDPMScheduler", *BY_SIGMA)),
    *((name, "flow_prediction") for name in BY_SIGMA),
    (FLOW, "flow_prediction"),
]


def scheduler_of(name: str, of: str, **config: object) -> Any:  # noqa: ANN401 - diffusers
    """With its timesteps set; x0 predictions unclipped unless `config` says so."""
    if name == FLOW:
        config |= {"shift": 3.0}
    else:
        config |= {"prediction_type": of, "beta_schedule": "scaled_linear"}
    if name in ("DDIMScheduler", "DDPMScheduler"):
        config = {"clip_sample": False, **config}
    if of == "flow_prediction" and name != FLOW:
        config |= {"use_flow_sigmas": True}
    scheduler = getattr(diffusers, name)(**config)
    scheduler.set_timesteps(STEPS)
    return scheduler


def numbers(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x0, noise = torch.randn(2, 3, 4, 5, 6, generator=generator, dtype=torch.float64)
    return x0, noise


def ideal(of: str, x0: Tensor, noise: Tensor, signal: float, level: float) -> Tensor:
    """What a perfect denoiser says."""
    kinds = {
        "epsilon": noise,
        "v_prediction": signal * noise - level * x0,
        "flow_prediction": noise - x0,
        "sample": x0,
    }
    return kinds[of]


@pytest.mark.parametrize(("name", "of"), CASES)
@pytest.mark.parametrize("step", [1, 4])
def test_noise_that_was_added_is_taken_off(name: str, of: str, step: int) -> None:
    scheduler = scheduler_of(name, of)
    x0, noise = numbers(0)
    timestep = scheduler.timesteps[step : step + 1]
    if name == FLOW:
        latents = scheduler.scale_noise(x0, timestep, noise)
    else:
        latents = scheduler.add_noise(x0, noise, timestep)
    if of == "flow_prediction":
        level = float(scheduler.sigmas[step])
        signal = 1 - level
    elif hasattr(scheduler, "sigmas"):
        signal = float(1 / (1 + scheduler.sigmas[step].double() ** 2) ** 0.5)
        level = (1 - signal**2) ** 0.5
    else:
        signal = float(scheduler.alphas_cumprod[int(timestep)]) ** 0.5
        level = (1 - signal**2) ** 0.5
    found = predict_x0(scheduler, ideal(of, x0, noise, signal, level), latents, step)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, x0, rtol=1e-5, atol=1e-5)
    scale = noise_level(scheduler, step).scale
    torch.testing.assert_close(latents / scale, signal * x0 + level * noise, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "of", "options"),
    [
        *((name, of, {}) for name, of in CASES),
        ("DDIMScheduler", "epsilon", {"clip_sample": True, "clip_sample_range": 0.7}),
        ("DDPMScheduler", "v_prediction", {"clip_sample": True, "clip_sample_range": 0.7}),
        ("LCMScheduler", "epsilon", {"clip_sample": True, "clip_sample_range": 0.7}),
        ("LCMScheduler", "epsilon", {"timestep_scaling": 0.01}),  # latents count, too
    ],
)
def test_equals_the_schedulers_own_prediction(
    name: str, of: str, options: dict[str, object]
) -> None:
    """Official arithmetic, for a denoiser that says something arbitrary."""
    scheduler = scheduler_of(name, of, **options)
    latents, output = (part.float() for part in numbers(1))
    for step in range(STEPS - 1):
        timestep = scheduler.timesteps[step]
        found = predict_x0(scheduler, output, latents, step)
        if name != FLOW:
            scheduler.scale_model_input(latents, timestep)
        made = scheduler.step(output, timestep, latents)
        if name == FLOW:
            # It tells no prediction, but steps along the line from the latents to it.
            share = scheduler.sigmas[step + 1] / scheduler.sigmas[step]
            torch.testing.assert_close(made.prev_sample, found + share * (latents - found))
        else:
            own = made.denoised if name == "LCMScheduler" else made.get("pred_original_sample")
            own = scheduler.model_outputs[-1] if name in BY_SIGMA else own
            torch.testing.assert_close(found, own, rtol=1e-4, atol=1e-4)
    if "clip_sample" in options:
        assert found.abs().max() == pytest.approx(0.7, rel=1e-4)


def test_half_precision_is_predicted_in_single() -> None:
    scheduler = scheduler_of("DDIMScheduler", "epsilon")
    latents, output = (part.half() for part in numbers(2))
    found = predict_x0(scheduler, output, latents, 1)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, predict_x0(scheduler, output.float(), latents.float(), 1))


def test_zero_terminal_noise_is_predicted_through() -> None:
    """Pure noise at the first step, from which only velocity tells the picture."""
    scheduler = scheduler_of(
        "DDIMScheduler", "v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"
    )
    x0, noise = numbers(3)
    torch.testing.assert_close(predict_x0(scheduler, -x0, noise, 0), x0)


def test_other_prediction_types_are_refused() -> None:
    scheduler = scheduler_of("DDIMScheduler", "epsilon")
    scheduler.register_to_config(prediction_type="score")
    with pytest.raises(ValueError, match="DDIMScheduler has the prediction_type 'score'; expected"):
        predict_x0(scheduler, *numbers(4), 1)
