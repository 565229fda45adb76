"""Noise optimisation: the climb, its regulariser, what is kept, and what it refuses."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.hooks import CpuOffload, add_hook_to_module
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DiffusionPipeline,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    PixArtAlphaPipeline,
)
from helpers.brightness import Brightness
from helpers.pictured import with_pictures
from helpers.tiny import tiny_clip
from helpers.tiny_pipelines import build, often_or_slow
from PIL import Image
from scipy.stats import chi
from torch import Tensor

from stablepref.integrations.noise_optimization import (
    OptimizedNoise,
    norm_log_density,
    optimize_noise,
)

PROMPTS = ["a red circle", "a dog"]
CONTROLLED = "StableDiffusionControlNetPipeline"
CONTROLLED_LATER = (
    "FluxControlNetPipeline",
    "QwenImageControlNetPipeline",
    "SanaControlNetPipeline",
    "ZImageControlNetPipeline",
)


def prepared(kind: str, steps: int = 1) -> tuple[DiffusionPipeline, dict[str, Any]]:
    if kind.endswith("Pipeline"):
        pipe, arguments = with_pictures(kind)
    else:
        pipe, arguments = build("pixart" if kind == "pixart-alpha" else kind)
    if kind == "pixart-alpha":
        pipe = PixArtAlphaPipeline(**pipe.components)
        pipe.scheduler = DDPMScheduler()  # as its one-step models have it
    pipe.set_progress_bar_config(disable=True)
    return pipe, {**arguments, "num_inference_steps": steps}


def own_noise(seeds: list[int]) -> Tensor:
    drawn = [torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(s)) for s in seeds]
    return torch.cat(drawn)


def same(one: list[Image.Image], other: list[Image.Image]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(
    "kind",
    often_or_slow(
        ["sd", "sdxl", "sd3", "pixart", "pixart-alpha", "sana"], "sdxl", "sd3", "pixart-alpha"
    ),
)
def test_the_reward_rises_from_that_of_the_pipelines_own_picture(kind: str) -> None:
    pipe, arguments = prepared(kind)
    scorer = tiny_clip()
    found = optimize_noise(pipe, PROMPTS, scorer, iterations=4, seed=7, **arguments)
    generators = [torch.Generator().manual_seed(7 + i) for i in range(2)]
    first = pipe(PROMPTS, generator=generators, **arguments).images
    assert found.seeds == [7, 8]
    assert found.rewards.shape == (5, 2)
    # Pictures are rounded to 8 bits, rewards are of float pixels.
    torch.testing.assert_close(found.rewards[0], scorer.score(first, PROMPTS), rtol=0, atol=0.02)
    best = found.rewards.amax(dim=0)
    torch.testing.assert_close(best, scorer.score(found.images, PROMPTS), rtol=0, atol=0.02)
    assert (best > found.rewards[0] + 0.3).all()
    assert found.latents.shape == (2, 4, 16, 16)
    assert same(pipe(**found.call).images, found.images)


@pytest.mark.parametrize(
    "kind",
    often_or_slow(
        ["flux", "flux2", "lcm", "qwen", "lumina2", "z-image", CONTROLLED, *CONTROLLED_LATER],
        "flux", "flux2", "qwen", "z-image", CONTROLLED, "FluxControlNetPipeline",
    ),
)  # fmt: skip
def test_it_rises_with_later_pipelines_too(kind: str) -> None:
    """Of packed latents, of other signs, with an embedded guidance, and with a ControlNet."""
    pipe, arguments = prepared(kind)
    scorer = tiny_clip()
    found = optimize_noise(pipe, PROMPTS, scorer, iterations=3, seed=7, **arguments)
    generators = [torch.Generator().manual_seed(7 + i) for i in range(2)]
    assert PROMPTS == ["a red circle", "a dog"]  # Z-Image's call writes into lists of prompts
    first = pipe(prompt=[*PROMPTS], **{**found.arguments, "generator": generators}).images
    torch.testing.assert_close(found.rewards[0], scorer.score(first, PROMPTS), rtol=0, atol=0.02)
    best = found.rewards.amax(dim=0)
    torch.testing.assert_close(best, scorer.score(found.images, PROMPTS), rtol=0, atol=0.02)
    assert (best > found.rewards[0]).all()
    assert same(pipe(**found.call).images, found.images)


def test_equal_calls_find_equal_noise_with_stochastic_steps_too() -> None:
    pipe, arguments = prepared("sdxl", steps=3)
    pipe.scheduler = EulerAncestralDiscreteScheduler.from_config(pipe.scheduler.config)

    def search() -> OptimizedNoise:
        return optimize_noise(pipe, PROMPTS, tiny_clip(), iterations=3, **arguments)

    one, other = search(), search()
    assert torch.equal(one.rewards, other.rewards)
    assert torch.equal(one.latents, other.latents)
    assert same(one.images, other.images)
    assert same(pipe(**one.call).images, one.images)
    generators = [torch.Generator().manual_seed(i) for i in range(2)]
    first = pipe(PROMPTS, generator=generators, **arguments).images
    untouched = optimize_noise(pipe, PROMPTS, tiny_clip(), iterations=0, **arguments)
    assert same(untouched.images, first)


def test_a_step_of_the_ascent_by_hand() -> None:
    """Two updates by Nesterov's rule, from gradients of the sampling spelt out."""
    pipe, arguments = prepared("sd")
    arguments["guidance_scale"] = 1.0
    scorer = tiny_clip()
    prompt, weight, rate, most = "a dog", 0.05, 3.0, 0.2
    for parameter in (*pipe.unet.parameters(), *pipe.vae.parameters()):
        parameter.requires_grad_(False)
    with torch.no_grad():
        text, _ = pipe.encode_prompt(prompt, "cpu", 1, False)
    pipe.scheduler.set_timesteps(1)
    (t,) = pipe.scheduler.timesteps
    begin, end = pipe.scheduler.alphas_cumprod[int(t)], pipe.scheduler.final_alpha_cumprod

    def objective(noise: Tensor) -> Tensor:
        out = pipe.unet(noise, t, text).sample
        x0 = (noise - (1 - begin).sqrt() * out) / begin.sqrt()
        latents = end.sqrt() * x0 + (1 - end).sqrt() * out
        picture = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
        size = noise.norm()
        likely = (noise.numel() - 1) * size.log() - size**2 / 2
        return scorer((picture / 2 + 0.5).clamp(0, 1), [prompt]).sum() + weight * likely

    noise, velocity = own_noise([3]), torch.zeros(1, 4, 16, 16)
    for _ in range(2):
        leaf = noise.clone().requires_grad_()
        (slope,) = torch.autograd.grad(objective(leaf), leaf)
        assert slope.norm() > most
        slope = slope * most / slope.norm()
        velocity = slope if not velocity.any() else 0.9 * velocity + slope
        noise = noise + rate * (slope + 0.9 * velocity)
    found = optimize_noise(
        pipe,
        prompt,
        scorer,
        iterations=2,
        seed=3,
        learning_rate=rate,
        clip=most,
        regularization=weight,
        **arguments,
    )
    assert found.best == [2]
    torch.testing.assert_close(found.latents, noise, rtol=1e-4, atol=1e-4)


def test_pictures_do_not_influence_each_other() -> None:
    pipe, arguments = prepared("sd")
    both = optimize_noise(pipe, PROMPTS, tiny_clip(), iterations=3, seed=4, **arguments)
    for i, prompt in enumerate(PROMPTS):
        one = optimize_noise(pipe, prompt, tiny_clip(), iterations=3, seed=4 + i, **arguments)
        torch.testing.assert_close(one.rewards[:, 0], both.rewards[:, i], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(one.latents[0], both.latents[i], rtol=1e-3, atol=1e-3)


def test_the_best_noise_is_kept_and_not_the_last() -> None:
    """With steps far too large the reward rises once and then falls below its beginning."""
    pipe, arguments = prepared("sd")
    wild: dict[str, Any] = {"learning_rate": 5000.0, "clip": 1.0, **arguments}
    found = optimize_noise(pipe, ["a cat"] * 3, tiny_clip(), iterations=2, **wild)
    assert found.best == [1, 1, 1]
    assert (found.rewards[2] < found.rewards[0]).all()
    scores = tiny_clip().score(found.images, "a cat")
    torch.testing.assert_close(scores, found.rewards[1], rtol=0, atol=0.02)
    none = optimize_noise(pipe, "a cat", tiny_clip(), iterations=0, **arguments)
    assert (none.best, none.rewards.shape) == ([0], (1, 1))
    torch.testing.assert_close(none.latents, own_noise([0]))


def test_the_density_is_that_of_the_chi_distribution() -> None:
    rows = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rows *= torch.linspace(0.5, 1.5, 5, dtype=torch.float64).view(-1, 1, 1)
    norms = [math.sqrt(sum(v * v for v in row.flatten().tolist())) for row in rows]
    expected = torch.tensor([chi.logpdf(norm, df=12) for norm in norms])
    found = norm_log_density(rows)
    torch.testing.assert_close(found - found[0], expected - expected[0])


def test_regularisation_keeps_the_norm() -> None:
    pipe, arguments = prepared("sd")

    def drift(weight: float) -> float:
        found = optimize_noise(
            pipe,
            "a cat",
            Brightness(100.0),
            iterations=6,
            regularization=weight,
            learning_rate=20.0,
            **arguments,
        )
        return abs(found.latents.norm().item() - math.sqrt(4 * 16 * 16 - 1))

    assert drift(10.0) < 0.5 * drift(0.0)


def test_robust_and_light_searches_climb_too() -> None:
    pipe, arguments = prepared("sd", steps=2)
    plain = optimize_noise(pipe, "a cat", tiny_clip(), iterations=3, **arguments)
    light = optimize_noise(
        pipe, "a cat", tiny_clip(), iterations=3, checkpointing=True, **arguments
    )
    torch.testing.assert_close(light.rewards, plain.rewards)
    robust = optimize_noise(
        pipe, "a cat", tiny_clip(), iterations=3, views=2, reduce="min", **arguments
    )
    assert robust.rewards[-1] > robust.rewards[0] + 0.1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    pipe, arguments = prepared("sdxl")
    pipe.to(dtype)
    pipe.vae.register_to_config(force_upcast=True)
    found = optimize_noise(pipe, "a cat", tiny_clip(), iterations=3, **arguments)
    assert found.rewards[-1] > found.rewards[0] + 0.3
    assert found.latents.dtype == pipe.vae.dtype == dtype
    (again,), (image,) = pipe(**found.call).images, found.images
    # CPUs with units for half precision round otherwise where gradients are asked for.
    assert np.abs(np.asarray(again, dtype=int) - np.asarray(image, dtype=int)).max() <= 1


def test_the_pipeline_is_left_as_it_was() -> None:
    pipe, arguments = prepared("sd")
    pipe.set_progress_bar_config(disable=False)
    optimize_noise(pipe, "a cat", Brightness(), iterations=1, **arguments)
    for part in (pipe.unet, pipe.text_encoder):
        assert all(p.requires_grad and p.grad is None for p in part.parameters())
        assert "forward" not in vars(part)
    assert pipe._progress_bar_config == {"disable": False}


def offloaded(pipe: DiffusionPipeline) -> None:
    add_hook_to_module(pipe.unet, CpuOffload("cpu"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"iterations": -1}, "iterations and regularization must be 0 or more"),
        ({"learning_rate": 0.0}, "learning_rate and clip above 0"),
        ({"clip": -0.1}, "learning_rate and clip above 0"),
        ({"regularization": -0.1}, "must be 0 or more"),
        ({"latents": 1}, "latents is an argument that optimize_noise sets itself"),
        ({"steps": 4}, "steps is an argument that StableDiffusionPipeline does not take"),
        ({"prompt": ["a", ""]}, "prompt 1 is empty"),
        (
            {"pipe": "StableDiffusionImg2ImgPipeline"},
            "noise optimisation is for .*; this is StableDiffusionImg2ImgPipeline; use best of n",
        ),
        ({"scheduler": "heun"}, "there is no scheduler 'heun'; expected one of ddim"),
    ],
)
def test_wrong_arguments(change: dict[str, object], says: str) -> None:
    pipe, arguments = prepared(str(change.get("pipe", "sd")))
    call = {**change, "pipe": pipe} if "pipe" in change else change
    call = {"pipe": pipe, "prompt": "a cat", "scorer": Brightness(), **arguments, **call}
    with pytest.raises(ValueError, match=says):
        optimize_noise(**call)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda pipe: setattr(pipe, "vae", None), "has no VAE"),
        (
            lambda pipe: pipe.register_modules(safety_checker=torch.nn.Identity()),
            "has a safety checker, which would blank pictures",
        ),
        (offloaded, "the pipeline's unet is offloaded"),
    ],
)
def test_unsupported_pipelines(change: Callable[[DiffusionPipeline], None], says: str) -> None:
    pipe, arguments = prepared("sd")
    change(pipe)
    with pytest.raises(ValueError, match=says):
        optimize_noise(pipe, "a cat", Brightness(), **arguments)
    with pytest.raises(TypeError, match="pipe is a NoneType"):
        optimize_noise(None, "a cat", Brightness())  # type: ignore[arg-type] # wrong


def test_the_scheduler_by_its_name() -> None:
    pipe, arguments = prepared("sd", steps=2)
    found = optimize_noise(
        pipe, "a cat", Brightness(), iterations=1, scheduler="euler", **arguments
    )
    assert type(pipe.scheduler) is EulerDiscreteScheduler
    plain = optimize_noise(pipe, "a cat", Brightness(), iterations=1, **arguments)
    assert torch.equal(found.latents, plain.latents)
    assert found.rewards[1] > found.rewards[0]


def test_sampling_without_gradient_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, arguments = prepared("sd")
    monkeypatch.setattr(DDIMScheduler, "step", torch.no_grad()(DDIMScheduler.step))
    with pytest.raises(ValueError, match=r"iteration 0 of 50.*DDIMScheduler keeps no gradient"):
        optimize_noise(pipe, "a cat", Brightness(), **arguments)


def test_overflow_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, arguments = prepared("sd")
    match = Brightness.match

    def kinked(self: Brightness, *features: Tensor) -> Tensor:
        scores = match(self, *features)
        return (scores - scores.detach()).sqrt()

    with monkeypatch.context() as patch:
        patch.setattr(Brightness, "match", kinked)
        with pytest.raises(ValueError, match="iteration 0 of 50: the reward's gradient is not fin"):
            optimize_noise(pipe, "a cat", Brightness(), **arguments)
    pipe.to(torch.float16)
    pipe.vae.register_to_config(force_upcast=False)
    with torch.no_grad():
        pipe.vae.decoder.conv_out.weight.mul_(60000)
    with pytest.raises(ValueError, match=r"iteration 0 of 50: .*bfloat16 or float32"):
        optimize_noise(pipe, "a cat", Brightness(), **arguments)


@pytest.mark.parametrize("kind", often_or_slow(["sd", "pixart"], "pixart"))
def test_a_compiled_denoiser_is_searched_as_it_is(kind: str) -> None:
    pipe, arguments = prepared(kind)
    plain = optimize_noise(pipe, "a cat", Brightness(), iterations=1, **arguments)
    part = "unet" if kind == "sd" else "transformer"
    setattr(pipe, part, torch.compile(getattr(pipe, part), backend="eager"))
    with torch.compiler.set_stance("force_eager"):
        found = optimize_noise(pipe, "a cat", Brightness(), iterations=1, **arguments)
    assert torch.equal(found.latents, plain.latents)


def test_it_works_without_gradients_around_it_and_with_a_negative_prompt() -> None:
    pipe, arguments = prepared("sd")
    call = {**arguments, "negative_prompt": "a dog", "guidance_scale": 4.0, "iterations": 1}
    expected = optimize_noise(pipe, PROMPTS, Brightness(), **call)
    with torch.no_grad():
        found = optimize_noise(pipe, PROMPTS, Brightness(), **call)
    assert torch.equal(found.latents, expected.latents)
    assert found.call["negative_prompt"] == ["a dog", "a dog"]


def test_bright_pictures_cause_no_warning_of_a_range() -> None:
    """The VAE may decode a picture without a value below 0; no reward was made by the user."""
    pipe, arguments = prepared("sd")
    with torch.no_grad():
        pipe.vae.decoder.conv_out.weight.mul_(0.01)
        pipe.vae.decoder.conv_out.bias.fill_(0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        optimize_noise(pipe, PROMPTS, Brightness(), **arguments, iterations=1)
