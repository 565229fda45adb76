"""The sampling loop: the pipeline's own pictures, and gradients as finite differences are."""

import copy
from collections.abc import Callable, Sequence

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline
from helpers.tiny_finetune import PROMPTS, SIDE, generators, in_float64, pipeline
from torch import Tensor

from stablepref.integrations.diffusion.sampling import SamplingLoop, check_scheduler
from stablepref.integrations.diffusion.x0 import SCHEDULERS

STEPS = 4
FLOW = "FlowMatchEulerDiscreteScheduler"
CASES = [
    *(("sd", name) for name in SCHEDULERS if name != FLOW),
    *(("sdxl", name) for name in ("DDIMScheduler", "EulerAncestralDiscreteScheduler")),
    *(
        pytest.param("sdxl", name, marks=pytest.mark.slow)
        for name in SCHEDULERS
        if name not in (FLOW, "DDIMScheduler", "EulerAncestralDiscreteScheduler")
    ),
    ("sd3", FLOW),
]


def latents_of(pipe: DiffusionPipeline, **arguments: object) -> Tensor:
    """The pipeline's own, for the generators of `generators(2)`."""
    call = {"num_inference_steps": STEPS, "generator": generators(2), "output_type": "latent"}
    made: Tensor = pipe(list(PROMPTS), **{**call, **arguments}).images
    return made


@pytest.mark.parametrize(("kind", "scheduler"), CASES)
def test_latents_are_those_of_the_pipeline(kind: str, scheduler: str) -> None:
    pipe = pipeline(kind)
    pipe.scheduler = getattr(diffusers, scheduler).from_config(pipe.scheduler.config)
    for guidance in (1.0, 5.0):
        expected = latents_of(pipe, height=SIDE, width=SIDE, guidance_scale=guidance)
        loop = SamplingLoop(pipe, steps=STEPS, guidance=guidance, height=SIDE, width=SIDE)
        found = loop.sample(PROMPTS, generators(2), last_steps=2)
        assert found.requires_grad
        assert torch.equal(found, expected)
    assert (expected[0] - expected[1]).abs().max() > 0.1


@pytest.mark.parametrize("kind", ["sd", "sdxl", "sd3"])
def test_negative_prompts_sizes_and_the_scheduler_are_kept(kind: str) -> None:
    pipe = pipeline(kind)
    before = copy.deepcopy(vars(pipe.scheduler))
    loop = SamplingLoop(
        pipe, steps=STEPS, guidance=3.0, negative_prompt="a cat", height=SIDE, width=2 * SIDE
    )
    found = loop.sample(PROMPTS, generators(2))
    assert not found.requires_grad
    assert vars(pipe.scheduler).keys() == before.keys()
    assert pipe.scheduler.timesteps.tolist() == before["timesteps"].tolist()
    arguments = {"negative_prompt": ["a cat"] * 2, "height": SIDE, "width": 2 * SIDE}
    assert torch.equal(found, latents_of(pipe, guidance_scale=3.0, **arguments))


def wide_pipeline(prediction: str) -> DiffusionPipeline:
    """In float64, of whose denoiser one matrix can be trained."""
    pipe = in_float64(pipeline())
    pipe.scheduler = DDIMScheduler(prediction_type=prediction, clip_sample=False)
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        part.requires_grad_(False)
    return pipe


def by_hand(pipe: DiffusionPipeline, latents: Tensor, steps: Sequence[int]) -> Tensor:
    """DDIM without noise (Song et al. 2021, equation 12), from its definition."""
    texts = pipe.encode_prompt(list(PROMPTS), "cpu", 1, True, None)
    alphas = pipe.scheduler.alphas_cumprod.double()
    jump = 1000 // STEPS
    for step in steps:
        t = (STEPS - 1 - step) * jump
        with_text, without = (pipe.unet(latents, t, encoder_hidden_states=e).sample for e in texts)
        output = without + 2.0 * (with_text - without)
        a, b = alphas[t], alphas[t - jump] if t >= jump else torch.tensor(1.0)
        if pipe.scheduler.config.prediction_type == "epsilon":
            x0, epsilon = (latents - (1 - a).sqrt() * output) / a.sqrt(), output
        else:
            x0 = a.sqrt() * latents - (1 - a).sqrt() * output
            epsilon = a.sqrt() * output + (1 - a).sqrt() * latents
        latents = b.sqrt() * x0 + (1 - b).sqrt() * epsilon
    return latents


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("last_steps", [1, 2, STEPS])
@torch.no_grad()
def test_gradients_are_finite_differences_of_the_last_steps(
    prediction: str, last_steps: int
) -> None:
    """What came before the last K steps is held fixed, as DRaFT-K does."""
    pipe = wide_pipeline(prediction)
    weight = pipe.unet.conv_out.weight
    loop = SamplingLoop(pipe, steps=STEPS, guidance=2.0, height=SIDE, width=SIDE)
    first = STEPS - last_steps
    start = loop.noise(generators(2))
    kept = by_hand(pipe, start, range(first))
    slope = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)).double()
    mix = torch.randn(kept.shape, generator=torch.Generator().manual_seed(2)).double()

    weight.requires_grad_()
    with torch.enable_grad():
        latents = loop.sample(PROMPTS, generators(2), last_steps=last_steps)
        (gradient,) = torch.autograd.grad((latents * mix).sum(), weight)
    weight.requires_grad_(False)
    expected = by_hand(pipe, kept, range(first, STEPS))
    torch.testing.assert_close(latents, expected, rtol=1e-5, atol=1e-5)

    size = 1e-4
    ends = []
    for sign in (1, -1):
        weight.add_(sign * size * slope)
        ends.append((by_hand(pipe, kept, range(first, STEPS)) * mix).sum())
        weight.sub_(sign * size * slope)
    difference = (ends[0] - ends[1]).item() / (2 * size)
    assert (gradient * slope).sum().item() == pytest.approx(difference, rel=1e-5)


def test_all_steps_and_one_differ() -> None:
    pipe = wide_pipeline("epsilon")
    weight = pipe.unet.conv_out.weight.requires_grad_()
    loop = SamplingLoop(pipe, steps=STEPS, guidance=2.0, height=SIDE, width=SIDE)

    def gradient(make: Callable[[], Tensor]) -> Tensor:
        (found,) = torch.autograd.grad(make().sum(), weight)
        return found

    one = gradient(lambda: loop.sample(PROMPTS, generators(2), last_steps=1))
    every = gradient(lambda: loop.sample(PROMPTS, generators(2), last_steps=STEPS))
    assert not torch.allclose(one, every, rtol=0.01)
    # With alpha 1 at the end the last step's x0 prediction is the picture: ReFL is DRaFT-1.
    refl = gradient(lambda: loop.predict(PROMPTS, generators(2), at=STEPS - 1))
    torch.testing.assert_close(refl, one)
    early = gradient(lambda: loop.predict(PROMPTS, generators(2), at=1))
    assert not torch.allclose(early, one, rtol=0.01)


@pytest.mark.parametrize("kind", ["sd", "sdxl", "sd3"])
def test_checkpointing_changes_no_gradient(kind: str) -> None:
    pipe = pipeline(kind)
    denoiser = pipe.transformer if kind == "sd3" else pipe.unet
    found = []
    for checkpointing in (False, True):
        loop = SamplingLoop(
            pipe, steps=STEPS, guidance=2.0, height=SIDE, width=SIDE, checkpointing=checkpointing
        )
        denoiser.zero_grad()
        loop.sample(PROMPTS, generators(2), last_steps=2).square().mean().backward()
        found.append([w.grad.clone() for w in denoiser.parameters() if w.grad is not None])
    assert len(found[0]) > 10
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


def test_no_gradient_is_kept_under_no_grad() -> None:
    loop = SamplingLoop(pipeline(), steps=2, height=SIDE, width=SIDE)
    with torch.no_grad():
        assert not loop.sample(PROMPTS, generators(2), last_steps=2).requires_grad


@pytest.mark.parametrize(
    ("kind", "settings", "says"),
    [
        (
            "HeunDiscrete",
            {},
            r'has HeunDiscreteScheduler. Pass scheduler="ddim" .*. Replace .*: from stablepref',
        ),
        ("DDIM", {"thresholding": True}, "DDIMScheduler with thresholding"),
        ("UniPCMultistep", {"predict_x0": False}, "predict_x0=False"),
        ("FlowMatchEulerDiscrete", {"stochastic_sampling": True}, "stochastic_sampling"),
        (
            "DPMSolverMultistep",
            {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"},
            r"algorithm_type other than dpmsolver\+\+",
        ),
    ],
)
def test_other_schedulers_are_refused(kind: str, settings: dict[str, object], says: str) -> None:
    scheduler = getattr(diffusers, f"{kind}Scheduler")(**settings)
    with pytest.raises(ValueError, match=says):
        check_scheduler(scheduler)


def test_sizes_that_no_latents_have_are_refused() -> None:
    with pytest.raises(ValueError, match="divisible by 8 but are 20 and 32"):
        SamplingLoop(pipeline(), steps=2, height=20, width=32)
    with pytest.raises(ValueError, match="height without width: give both, or neither"):
        SamplingLoop(pipeline(), steps=2, height=32)
