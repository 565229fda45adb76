"""The pipeline's own call from within: the same latents, predictions and pictures, bit for bit."""

from typing import Any

import pytest
import torch
from helpers.tiny_finetune import PROMPTS, generators, in_float64, pipeline
from helpers.tiny_pipelines import short_run
from torch import Tensor

from stablepref.integrations.diffusion.denoiser import denoiser_of
from stablepref.integrations.diffusion.sampling import SamplingLoop
from stablepref.integrations.diffusion.x0 import noise_level

KINDS = [
    "sd",
    "sdxl",
    "sd3",
    "flux",
    "pixart",
    "sana",
    "lcm",
    "qwen",
    "z-image",
    "flux2",
    "lumina2",
]
STEPS, GUIDANCE = 4, 3.0
OWN = ("num_inference_steps", "negative_prompt")
UNGUIDED = ("sd", "sd3", "flux", "qwen")
IN_FLOAT64 = ("sd", "sdxl", "sd3", "pixart", "lcm")
"""Through and through; the others turn or add up in float32, whatever comes in."""


def loop_of(kind: str, **options: Any) -> SamplingLoop:  # noqa: ANN401 (those of the loop)
    return SamplingLoop(
        pipeline(kind),
        steps=STEPS,
        guidance=GUIDANCE,
        arguments={name: v for name, v in short_run(kind).items() if name not in OWN},
        **options,
    )


def own(loop: SamplingLoop, kind: str, output_type: str) -> Tensor:
    """What the pipeline itself makes for the generators of `generators(2)`."""
    scale = "true_cfg_scale" if kind == "qwen" else "guidance_scale"
    given = {"negative_prompt": [" "] * 2} if kind == "qwen" else {}
    made: Tensor = loop.pipe(
        prompt=list(PROMPTS),
        generator=generators(2),
        output_type=output_type,
        **{**short_run(kind), "num_inference_steps": STEPS, scale: GUIDANCE, **given},
    ).images
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_latents_pictures_and_predictions_are_the_pipelines(kind: str) -> None:
    loop = loop_of(kind)
    expected, pictures = own(loop, kind, "latent"), own(loop, kind, "pt")
    steps: list[tuple[Tensor, Tensor]] = []

    def rule(scheduler: object, index: int, output: Tensor, latents: Tensor) -> None:
        del scheduler
        assert index == len(steps)
        steps.append((output, latents))

    with torch.no_grad():
        found = loop.sample(PROMPTS, generators(2), rule=rule)
        if kind != "flux2":  # whose call returns them unpacked and scaled for the VAE
            assert torch.equal(found, expected)
        assert torch.equal(loop.decode(found), pictures)
        assert torch.equal(loop.noise(generators(2)), steps[0][1])
        scheduler = loop.scheduler()
        for index, (output, latents) in enumerate(steps):
            seen = latents / noise_level(scheduler, index).scale
            again = loop.denoise(seen, scheduler.timesteps[index], PROMPTS)
            assert torch.equal(again, output)
        # Noise that is given is what the loop begins with, whatever the generators draw.
        if kind != "lcm":  # whose steps draw, too
            assert torch.equal(loop.sample(PROMPTS, generators(2, 7), latents=steps[0][1]), found)


@pytest.mark.parametrize(
    ("kind", "guided"),
    [
        *((kind, True) for kind in KINDS),
        # With guidance the half without it is called too: this one by each way of calling alone.
        *((kind, False) for kind in UNGUIDED),
        *(pytest.param(k, False, marks=pytest.mark.slow) for k in KINDS if k not in UNGUIDED),
    ],
)
def test_each_picture_may_have_a_timestep_of_its_own(kind: str, guided: bool) -> None:
    loop = loop_of(kind)
    noise, times = loop.noise(generators(2)), loop.scheduler().timesteps[[0, 2]]
    with torch.no_grad():
        found = loop.denoise(noise, times, PROMPTS, guided=guided)
        rows = [
            loop.denoise(noise[row : row + 1], times[row], PROMPTS[row : row + 1], guided=guided)
            for row in range(2)
        ]
    torch.testing.assert_close(found, torch.cat(rows), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(rows[0], rows[1])


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_have_the_slope_of_finite_differences(kind: str) -> None:
    """In float64, along a direction of the latents, with and without checkpointing."""
    loop = loop_of(kind)
    in_float64(loop.pipe)
    noise = loop.noise(generators(2)).double()
    time = loop.scheduler().timesteps[1]
    slope, mix = (
        torch.randn(noise.shape, generator=torch.Generator().manual_seed(seed)).double()
        for seed in (1, 2)
    )

    def value(latents: Tensor) -> Tensor:
        return (loop.denoise(latents, time, PROMPTS) * mix).sum()

    given = noise.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(given), given)
    with torch.no_grad():
        size = 1e-5 if kind in IN_FLOAT64 else 1e-3
        difference = (value(noise + size * slope) - value(noise - size * slope)) / (2 * size)
    assert (gradient * slope).sum().item() == pytest.approx(
        difference.item(), rel=1e-5 if kind in IN_FLOAT64 else 2e-3
    )
    loop.checkpointing = True
    (again,) = torch.autograd.grad(value(given), given)
    torch.testing.assert_close(again, gradient)


@pytest.mark.parametrize("last_steps", [2, STEPS])
@pytest.mark.parametrize("kind", KINDS)
def test_whole_calls_have_the_slope_of_finite_differences(kind: str, last_steps: int) -> None:
    """In float64, along a direction of all of the denoiser's weights, in the last steps alone."""
    loop = loop_of(kind)
    in_float64(loop.pipe)
    weights = [*denoiser_of(loop.pipe).parameters()]
    source = torch.Generator().manual_seed(1)
    slopes = [torch.randn(weight.shape, generator=source).double() for weight in weights]

    def finished(size: float) -> Tensor:
        """Latents by weights that move before the last steps, and back after them."""

        @torch.no_grad()
        def move(by: float) -> None:
            for weight, slope in zip(weights, slopes, strict=True):
                weight.add_(by * slope)

        def rule(scheduler: object, index: int, output: Tensor, latents: Tensor) -> None:
            del scheduler, output, latents
            if index == STEPS - last_steps - 1:
                move(size)

        if last_steps == STEPS:
            move(size)
        with torch.no_grad():
            made = loop.sample(PROMPTS, generators(2), rule=rule)
        move(-size)
        return made

    mix = torch.randn(finished(0).shape, generator=source).double()
    made = loop.sample(PROMPTS, generators(2), last_steps=last_steps)
    gradients = torch.autograd.grad((made * mix).sum(), weights, allow_unused=True)
    size = 1e-4
    difference = ((finished(size) - finished(-size)) * mix).sum().item() / (2 * size)
    slope = sum(
        (one * slope).sum().item()
        for one, slope in zip(gradients, slopes, strict=True)
        if one is not None
    )
    assert slope == pytest.approx(difference, rel=3e-3)


def test_the_pipeline_is_left_as_it_was() -> None:
    pipe = pipeline("flux")
    before, scheduler = dict(vars(pipe)), dict(vars(pipe.scheduler))
    loop = SamplingLoop(pipe, steps=2, height=32, width=32)
    loop.denoise(loop.noise(generators(1)), loop.scheduler().timesteps[0], ["a dog"])
    with pytest.raises(KeyError, match="of the rule"):
        loop.sample(["a dog"], generators(1), rule=failing)
    assert {**vars(pipe), "_current_timestep": None} == {**before, **left(pipe)}
    assert vars(pipe.scheduler) == scheduler
    assert "forward" not in vars(pipe.transformer)
    assert torch.is_grad_enabled()


def failing(*given: object) -> Tensor:
    raise KeyError("of the rule")


def left(pipe: Any) -> dict[str, object]:  # noqa: ANN401 (diffusers has no types)
    """What a call of the pipeline always leaves behind."""
    marks = ("_guidance_scale", "_joint_attention_kwargs", "_current_timestep", "_interrupt",
             "_num_timesteps", "_progress_bar_config")  # fmt: skip
    return {name: vars(pipe)[name] for name in marks if name in vars(pipe)} | {
        "_current_timestep": None
    }


def test_texts_are_encoded_once() -> None:
    loop = loop_of("sd3")
    calls = []
    handle = loop.pipe.text_encoder.text_model.register_forward_hook(lambda *given: calls.append(1))
    for _ in range(2):
        loop.sample(PROMPTS, generators(2))
    handle.remove()
    assert len(calls) == 2  # of the prompts and of the negative ones
    trained = loop.pipe.text_encoder.requires_grad_()
    made = loop.sample(PROMPTS, generators(2), last_steps=STEPS)
    made.sum().backward()
    assert all(weight.grad is None for weight in trained.parameters())


def test_arguments_that_the_pipeline_does_not_take_are_refused() -> None:
    with pytest.raises(ValueError, match="FluxPipeline takes no eta; leave it out"):
        SamplingLoop(pipeline("flux"), steps=2, arguments={"eta": 0.5})
