"""Reward guidance: what cannot be guided, and numbers that are not finite, are told clearly."""

from collections.abc import Callable

import pytest
import torch
from accelerate.hooks import CpuOffload, add_hook_to_module
from diffusers import (
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    FlowMatchHeunDiscreteScheduler,
    HeunDiscreteScheduler,
    ModularPipeline,
    SequentialPipelineBlocks,
    StableDiffusionImg2ImgPipeline,
)
from helpers.brightness import Brightness
from helpers.guided import PROMPT, made, prepared, same
from helpers.tiny_pipelines import build, unet
from torch import Tensor

from stablepref.integrations.best_of_n.choose import best_of_n
from stablepref.integrations.diffusion.schedulers import another_scheduler
from stablepref.integrations.guidance import RewardGuidance
from stablepref.integrations.reward import DifferentiableReward


def test_a_decoder_that_overflows_is_told() -> None:
    pipe, arguments = prepared("sd")
    pipe.to(torch.float16)
    pipe.vae.register_to_config(force_upcast=False)
    with torch.no_grad():
        pipe.vae.decoder.conv_out.weight.mul_(60000)
    guidance = RewardGuidance(pipe, PROMPT, Brightness(), scale=0.1)
    with pytest.raises(ValueError, match=r"guidance after step 1 of 4: .*infinite.*bfloat16"):
        made(pipe, arguments, **guidance.arguments)


def test_a_gradient_that_is_not_finite_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, arguments = prepared("sd")
    match = Brightness.match

    def kinked(self: Brightness, *features: Tensor) -> Tensor:
        scores = match(self, *features)
        return (scores - scores.detach()).sqrt()  # 0, with a slope that is infinite

    monkeypatch.setattr(Brightness, "match", kinked)
    guidance = RewardGuidance(pipe, PROMPT, Brightness(), scale=0.1)
    with pytest.raises(ValueError, match=r"step 1 of 4: the reward's gradient is not finite in f"):
        made(pipe, arguments, **guidance.arguments)


def test_a_reward_without_slope_is_told() -> None:
    pipe, arguments = prepared("sd")
    plain = made(pipe, arguments, prompt=[PROMPT])
    guidance = RewardGuidance(pipe, PROMPT, Brightness(0.0), scale=0.1)
    with pytest.warns(UserWarning, match="reward of 1 of 1 pictures has no gradient after step 1"):
        assert same(made(pipe, arguments, **guidance.arguments), plain)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"scale": -1.0}, ValueError, "scale must be a number from 0, got -1.0"),
        ({"scale": float("nan")}, ValueError, "scale must be a number from 0, got nan"),
        ({"steps": (0.5, 0.2)}, ValueError, r"two shares in order.*got \(0.5, 0.2\)"),
        ({"steps": (2, 8)}, ValueError, "two shares in order"),
        ({"views": -1}, ValueError, "views must be 0 or more"),
        ({"reduce": "max"}, ValueError, "reduce must be"),
        ({"prompt": ""}, ValueError, "prompt 0 is empty"),
        ({"scorer": "no-such-model"}, ValueError, "unknown model"),
        ({"pipe": "sd"}, TypeError, "pipe is a str; expected a diffusers"),
        (
            {"scorer": DifferentiableReward(Brightness())},
            TypeError,
            "scorer is a DifferentiableReward; pass its scorer",
        ),
    ],
)
def test_wrong_arguments(change: dict[str, object], error: type[Exception], says: str) -> None:
    call = {"pipe": build("sd")[0], "prompt": PROMPT, "scorer": Brightness(), "scale": 0.1}
    with pytest.raises(error, match=says):
        RewardGuidance(**{**call, **change})  # type: ignore[arg-type] # wrong ones


def heun(pipe: DiffusionPipeline) -> None:
    pipe.scheduler = HeunDiscreteScheduler.from_config(pipe.scheduler.config)


def adapted(pipe: DiffusionPipeline) -> None:
    pipe.unet.encoder_hid_proj = torch.nn.Identity()


def offloaded(pipe: DiffusionPipeline) -> None:
    add_hook_to_module(pipe.unet, CpuOffload("cpu"))


def casting(pipe: DiffusionPipeline) -> None:
    pipe.unet.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn)


def test_pndm_is_refused_with_a_line_that_helps() -> None:
    """Stable Diffusion 1.x comes with it: what the message says makes guidance work."""
    pipe, arguments = prepared("sd", "PNDMScheduler")
    with pytest.raises(ValueError, match="with PNDMScheduler") as caught:
        RewardGuidance(pipe, PROMPT, Brightness(), scale=0.1)
    line = str(caught.value).partition("Replace the scheduler: ")[2]
    exec(line, {"pipe": pipe})
    guidance = RewardGuidance(pipe, PROMPT, Brightness(), scale=0.1)
    made(pipe, arguments, **guidance.arguments)
    assert list(guidance.rewards) == [1, 2, 3]
    for flow in (
        FlowMatchHeunDiscreteScheduler(),
        DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction"),
    ):
        assert 'scheduler="flow-euler"' in another_scheduler(flow)


def test_a_modular_pipeline_is_called_one() -> None:
    for use in (
        lambda pipe: RewardGuidance(pipe, PROMPT, Brightness(), scale=0.1),
        lambda pipe: best_of_n(pipe, PROMPT, Brightness(), 1),
    ):
        with pytest.raises(TypeError, match=r"a modular pipeline, ModularPipeline.*a function"):
            use(ModularPipeline(SequentialPipelineBlocks()))


def test_a_negative_prompt_is_a_text_where_the_prompt_is() -> None:
    pipe, arguments = prepared("sd")
    guidance = RewardGuidance(pipe, PROMPT, Brightness(), scale=0.05)
    text = made(pipe, arguments, **guidance.arguments, negative_prompt="a dog", guidance_scale=5.0)
    several = RewardGuidance(pipe, [PROMPT], Brightness(), scale=0.05)
    more = made(pipe, arguments, **several.arguments, negative_prompt=["a dog"], guidance_scale=5.0)
    assert same(text, more)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (casting, "the pipeline's unet casts its layers.*enable_layerwise_casting"),
        (heun, "guidance is for .*this is StableDiffusionPipeline with HeunDiscreteScheduler"),
        (lambda pipe: setattr(pipe, "vae", None), "has no VAE: pictures are scored"),
        (adapted, "does not go with an IP-Adapter"),
        (lambda p: p.scheduler.register_to_config(thresholding=True), "go with thresholding"),
        (offloaded, "the pipeline's unet is offloaded"),
    ],
)
def test_unsupported_pipelines_are_refused_before_sampling(
    change: Callable[[DiffusionPipeline], None], says: str
) -> None:
    pipe, _ = build("sd")
    change(pipe)
    with pytest.raises(ValueError, match=says):
        RewardGuidance(pipe, PROMPT, Brightness(), scale=0.1)


def test_other_pipelines_are_refused() -> None:
    pipe, _ = build("sd")
    parts = StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
    says = r"for StableDiffusionPipeline, .*is StableDiffusionImg2ImgPipeline with .*best of n"
    with pytest.raises(ValueError, match=says):
        RewardGuidance(parts, PROMPT, Brightness(), scale=0.1)


def test_an_embedded_guidance_scale_is_not_for_callbacks() -> None:
    pipe, arguments = prepared("sd")
    pipe.unet = unet(cross_attention_dim=32, attention_head_dim=4, time_cond_proj_dim=8)
    guidance = RewardGuidance(pipe, PROMPT, Brightness(), scale=0.1)
    with pytest.raises(ValueError, match="does not go with an embedded guidance scale; call guid"):
        _ = guidance.arguments
    guidance.draw(**arguments)
    assert list(guidance.rewards) == [1, 2, 3]


def test_wrong_calls_are_told_at_the_first_step() -> None:
    pipe, arguments = prepared("sd")
    guidance = RewardGuidance(pipe, [PROMPT, "a dog"], Brightness(), scale=0.1, steps=(0.9, 1))
    with pytest.raises(ValueError, match=r"none of the 4 steps is guided: steps=\(0.9, 1\)"):
        made(pipe, arguments, **guidance.arguments)
    guidance = RewardGuidance(pipe, [PROMPT, "a dog"], Brightness(), scale=0.1)
    with pytest.raises(ValueError, match=r"needs prompt_embeds: call pipe\(\*\*guidance.arguments"):
        made(pipe, arguments, prompt=PROMPT, callback_on_step_end=guidance)
    with pytest.raises(ValueError, match="makes 1 pictures and guidance has 2 prompts"):
        made(pipe, arguments, **{**guidance.arguments, "prompt": PROMPT})
    other, _ = prepared("sd")
    with pytest.raises(ValueError, match="made for another StableDiffusionPipeline"):
        made(other, arguments, **guidance.arguments)
    heun(pipe)
    with pytest.raises(ValueError, match="with HeunDiscreteScheduler"):
        made(pipe, arguments, **guidance.arguments)
