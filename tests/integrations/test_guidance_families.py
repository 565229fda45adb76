"""Reward guidance by the pipeline's own call: every pipeline that is called from within."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from helpers.brightness import Brightness
from helpers.guided import PROMPT, made, prepared, same
from helpers.pictured import with_pictures
from helpers.tiny_finetune import generators, in_float64
from helpers.tiny_pipelines import often_or_slow
from torch import Tensor

from stablepref.integrations.best_of_n.choose import best_of_n
from stablepref.integrations.diffusion.call import call
from stablepref.integrations.diffusion.probing import Probe
from stablepref.integrations.diffusion.sampling import SamplingLoop
from stablepref.integrations.diffusion.x0 import noise_level
from stablepref.integrations.guidance import RewardGuidance

KINDS = (
    "sd", "sdxl", "sd3", "flux", "flux2", "qwen", "z-image", "lumina2", "lcm", "pixart", "sana",
    "sana-dpm",
)  # fmt: skip
IN_FLOAT64 = ("sd", "sdxl", "sd3", "pixart", "lcm")
"""Through and through; the others turn or add up in float32, whatever comes in."""
GUIDED = 1
"""The step whose latents are moved."""


def loop_of(kind: str, pipe: Any, arguments: dict[str, Any]) -> SamplingLoop:  # noqa: ANN401 (diffusers has no types)
    """What finds latents and predictions of that pipeline otherwise; `test_call` compares it."""
    own = ("num_inference_steps", "height", "width", "negative_prompt", "guidance_scale")
    return SamplingLoop(
        pipe,
        steps=arguments["num_inference_steps"],
        guidance=arguments.get("guidance_scale", 1.0),
        height=32,
        width=32,
        arguments={name: value for name, value in arguments.items() if name not in own},
    )


def guided_arguments(kind: str) -> tuple[Any, dict[str, Any]]:
    """A pipeline, and a call with guidance where there is one."""
    pipe, arguments = prepared(kind.removesuffix("-dpm"))
    if kind == "sana-dpm":  # as Sana comes
        pipe.scheduler = DPMSolverMultistepScheduler(
            use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0
        )
    arguments.pop("negative_prompt", None)
    return pipe, {**arguments, **({} if kind == "qwen" else {"guidance_scale": 3.0})}


def predicted(scheduler: Any, output: Tensor, latents: Tensor) -> Tensor:  # noqa: ANN401 (diffusers has no types)
    """The finished latents that an output predicts at the step, spelt out."""
    time = scheduler.timesteps[GUIDED]
    flow = "Flow" in type(scheduler).__name__ or scheduler.config.get("use_flow_sigmas")
    if flow:
        return latents - scheduler.sigmas[GUIDED].double() * output
    kept = scheduler.alphas_cumprod[int(time)].double()
    x0 = (latents - (1 - kept).sqrt() * output) / kept.sqrt()
    if "LCM" in type(scheduler).__name__:
        far = 10 * float(time)
        skip = 0.25 / (far**2 + 0.25)
        return far / (far**2 + 0.25) ** 0.5 * x0 + skip * latents
    return x0


@pytest.mark.parametrize(
    "kind", often_or_slow(KINDS, "sd3", "flux", "flux2", "qwen", "z-image", "lcm", "sana-dpm")
)
def test_what_is_added_is_the_finite_difference(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64, of a reward spelt out, along a direction; at scale 0 no bit changes."""
    pipe, arguments = guided_arguments(kind)
    in_float64(pipe)
    scorer = Brightness().double()
    prompts = [PROMPT, "red"]
    call = {**arguments, "output_type": "pt"}
    none = RewardGuidance(pipe, prompts, scorer, scale=0).draw(**call, generator=generators(2))
    plain = pipe(prompt=list(prompts), **call, generator=generators(2)).images
    assert torch.equal(none.images, plain)
    found: list[tuple[Tensor, Tensor]] = []
    move = RewardGuidance._moved

    def watched(self: RewardGuidance, latents: Tensor, gradient: Tensor, step: int) -> Tensor:
        found.append((latents, gradient))
        return move(self, latents, gradient, step)

    monkeypatch.setattr(RewardGuidance, "_moved", watched)
    share = GUIDED / 4
    guidance = RewardGuidance(pipe, prompts, scorer, scale=0.1, steps=(share, share))
    before = vars(pipe).copy()
    led = guidance.draw(**call, generator=generators(2)).images
    assert {n: v for n, v in vars(pipe).items() if n in before} == before | left(pipe)
    assert list(guidance.rewards) == [GUIDED]
    ((latents, gradient),) = found
    loop = loop_of(kind, pipe, arguments)
    scheduler = loop.scheduler()
    time = scheduler.timesteps[GUIDED]

    @torch.no_grad()
    def reward(latents: Tensor) -> Tensor:
        output = loop.denoise(latents, time, prompts)
        found: Tensor = scorer(loop.decode(predicted(scheduler, output, latents)), prompts)
        return found

    exact = kind in IN_FLOAT64
    torch.testing.assert_close(
        guidance.rewards[GUIDED], reward(latents), rtol=0, atol=1e-9 if exact else 1e-5
    )
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(1)).double()
    # Mostly along the gradient, so that rounding in float32 is small beside the difference.
    direction = noise + 100 * gradient / gradient.norm()
    size = 1e-6 if exact else 1e-3
    numeric = (reward(latents + size * direction) - reward(latents - size * direction)) / 2 / size
    analytic = (gradient * direction).flatten(1).sum(1)
    torch.testing.assert_close(analytic, numeric, rtol=1e-4 if exact else 2e-2, atol=1e-9)
    assert (scorer(led, prompts) > scorer(plain, prompts)).all()


def left(pipe: Any) -> dict[str, object]:  # noqa: ANN401 (diffusers has no types)
    """What every call of a pipeline leaves behind."""
    return {name: value for name, value in vars(pipe).items() if name.startswith("_")}


@pytest.mark.parametrize("kind", ["sd", "sdxl", "sd3"])
def test_a_callback_leads_to_the_same_pictures(kind: str) -> None:
    pipe, arguments = guided_arguments(kind)
    guidance = RewardGuidance(pipe, [PROMPT, "a dog"], Brightness(), scale=0.1)
    more = {"num_images_per_prompt": 2, "negative_prompt": ["a dog"] * 2}
    as_callback = made(pipe, arguments, **guidance.arguments, **more)
    rewards = guidance.rewards
    drawn = guidance.draw(**arguments, **more, generator=torch.Generator().manual_seed(0)).images
    assert same(drawn, as_callback)
    assert all(torch.equal(rewards[step], value) for step, value in guidance.rewards.items())
    assert list(rewards) == [1, 2, 3]


@pytest.mark.parametrize("kind", ["z-image", "qwen"])
def test_several_pictures_of_each_prompt_and_none_of_the_users_things_change(kind: str) -> None:
    """Prompts of different length, negative ones, guidance, no gradients and inference mode."""
    pipe, arguments = guided_arguments(kind)
    prompts = ["red", "a blue dog left of a cat"]
    negative = ["a cat", "a green square of any"]
    more: dict[str, Any] = {"num_images_per_prompt": 2}
    if kind != "flux":
        more["negative_prompt"] = negative
    if kind == "qwen":
        more["true_cfg_scale"] = 3.0
    guidance = RewardGuidance(pipe, prompts, Brightness(), scale=0.1)

    def drawn() -> Tensor:
        found: Tensor = guidance.draw(
            **arguments, **more, generator=generators(4), output_type="pt"
        ).images
        return found

    pictures = drawn()
    assert prompts == guidance.prompts == ["red", "a blue dog left of a cat"]
    assert negative == ["a cat", "a green square of any"]
    assert guidance.rewards[1].shape == (4,)
    with torch.inference_mode():
        assert torch.equal(drawn(), pictures)
    plain = pipe(
        prompt=list(prompts), generator=generators(4), output_type="pt",
        **{**arguments, **more, **({"negative_prompt": [*negative]} if kind != "flux" else {})},
    ).images  # fmt: skip
    each = ["red"] * 2 + prompts[1:] * 2
    assert (Brightness()(pictures, each) > Brightness()(plain, each)).all()


CONTROLLED = (
    "StableDiffusionControlNetPipeline",
    "StableDiffusionXLControlNetPipeline",
    "StableDiffusion3ControlNetPipeline",
    "StableDiffusion3ControlNetInpaintingPipeline",
    "FluxControlNetPipeline",
    "QwenImageControlNetPipeline",
    "SanaControlNetPipeline",
    "ZImageControlNetPipeline",
)


def controlled(name: str) -> tuple[Any, dict[str, Any]]:
    """A pipeline with a picture as a condition, and the arguments of a call."""
    pipe, arguments = with_pictures(name)
    pipe.set_progress_bar_config(disable=True)
    return pipe, {**arguments, "output_type": "pt"}


@pytest.mark.parametrize(
    "name", often_or_slow(CONTROLLED, CONTROLLED[0], CONTROLLED[2], "FluxControlNetPipeline")
)
def test_a_picture_as_a_condition(name: str) -> None:
    pipe, arguments = controlled(name)

    def drawn(draw: Callable[..., Any], **more: object) -> Tensor:
        torch.manual_seed(0)  # of the noise that Stable Diffusion 3 adds to the picture
        found: Tensor = draw(**arguments, **more, generator=generators(2)).images
        return found

    prompts = [PROMPT, "red"]
    plain = drawn(pipe, prompt=[*prompts])
    none = RewardGuidance(pipe, prompts, Brightness(), scale=0)
    assert torch.equal(drawn(none.draw), plain)
    guidance = RewardGuidance(pipe, prompts, Brightness(), scale=0.1)
    assert drawn(guidance.draw).mean() > plain.mean()
    assert list(guidance.rewards) == [1, 2, 3]


@pytest.mark.parametrize("name", often_or_slow(CONTROLLED, *CONTROLLED[2:5]))
def test_a_look_ahead_predicts_what_the_call_does(name: str) -> None:
    """With the picture that the call encoded: its noise is not drawn again."""
    pipe, arguments = controlled(name)
    given = {**arguments, "prompt": [PROMPT, "red"], "generator": generators(2)}
    probe = Probe(pipe, given)
    outputs: list[Tensor] = []
    ahead: list[Tensor] = []

    def rule(scheduler: object, index: int, output: Tensor, latents: Tensor) -> None:
        outputs.append(output)

    def after(scheduler: Any, done: int, latents: Tensor) -> Tensor:  # noqa: ANN401 (diffusers' schedulers share no type)
        if done < len(scheduler.timesteps):
            scale = noise_level(scheduler, done).scale
            ahead.append(probe.output(latents / scale, scheduler.timesteps[done]))
        return latents

    with torch.no_grad(), probe.kept():
        call(pipe, given, scheduler=copy.deepcopy(pipe.scheduler), rule=rule, after=after)
    assert len(ahead) == 3
    for found, own in zip(ahead, outputs[1:], strict=True):
        torch.testing.assert_close(found, own, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["StableDiffusionControlNetPipeline", "FluxControlNetPipeline"])
def test_a_picture_for_some_of_the_steps_is_refused(name: str) -> None:
    pipe, arguments = controlled(name)
    guidance = RewardGuidance(pipe, PROMPT, Brightness(), scale=0.1)
    with pytest.raises(ValueError, match="control_guidance_end depends on the number of a step"):
        guidance.draw(**arguments, control_guidance_end=0.5)


def test_a_function_draws_candidates_of_best_of_n() -> None:
    pipe, arguments = guided_arguments("flux")
    guidance = RewardGuidance(pipe, PROMPT, Brightness(), scale=0.1)

    def guided(prompts: list[str], seeds: list[int]) -> Any:  # noqa: ANN401 (pictures)
        assert set(prompts) == {PROMPT}
        noise = [torch.Generator().manual_seed(seed) for seed in seeds]
        return guidance.draw(**arguments, num_images_per_prompt=len(seeds), generator=noise).images

    led = best_of_n(guided, PROMPT, Brightness(), 3, batch_size=2)
    plain = best_of_n(pipe, PROMPT, Brightness(), 3, batch_size=2, **arguments)
    assert all(a > b for a, b in zip(led.scores, plain.scores, strict=True))


@pytest.mark.parametrize("kind", ["flux", "lcm", "pixart"])
def test_callbacks_that_do_not_get_enough_are_refused(kind: str) -> None:
    pipe, _ = guided_arguments(kind)
    guidance = RewardGuidance(pipe, PROMPT, Brightness(), scale=0.1)
    with pytest.raises(ValueError, match=r"a callback of \w+ does not get .* guidance.draw"):
        _ = guidance.arguments


@pytest.mark.parametrize(
    ("kind", "given", "says"),
    [
        ("flux", {"steps": 4}, "FluxPipeline takes no argument 'steps'; it takes: prompt, "),
        ("sd", {"prompt": "a dog"}, "prompt is what the guidance itself gives; leave it out"),
        ("sd", {"callback_on_step_end": print}, "callback_on_step_end is what the guidance"),
        ("sd3", {"skip_guidance_layers": [0]}, "skip_guidance_layers depends on the number of a"),
        ("lumina2", {"cfg_trunc_ratio": 0.5}, "cfg_trunc_ratio depends on the number of a step"),
    ],
)
def test_wrong_calls_are_refused_before_anything_is_made(
    kind: str, given: dict[str, object], says: str
) -> None:
    pipe, arguments = prepared(kind)
    calls = []
    handle = pipe.vae.register_forward_pre_hook(lambda *_: calls.append(1))
    guidance = RewardGuidance(pipe, PROMPT, Brightness(), scale=0.1)
    with pytest.raises(ValueError, match=says):
        guidance.draw(**{**arguments, **given})
    handle.remove()
    assert not calls
