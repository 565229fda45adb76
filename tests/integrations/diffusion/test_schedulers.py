"""Another scheduler by its name: Stable Diffusion 1.5's own is replaced, others are refused."""

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler, PNDMScheduler
from helpers.brightness import Brightness
from helpers.docs import PYTHON_BLOCK
from helpers.places import DOCS
from helpers.sd15 import sd15
from helpers.tiny_finetune import PROMPTS, generators, pipeline, quick

from stablepref.integrations.best_of_n.choose import best_of_n
from stablepref.integrations.diffusion.load import load_pipeline
from stablepref.integrations.diffusion.sampling import SamplingLoop
from stablepref.integrations.diffusion.schedulers import NAMED, use_scheduler
from stablepref.integrations.diffusion.x0 import SCHEDULERS, prediction_type
from stablepref.integrations.finetune.run import finetune
from stablepref.integrations.guidance import RewardGuidance

SHORT: dict[str, Any] = {"num_inference_steps": 2, "height": 32, "width": 32}


def test_names_are_those_of_the_schedulers_that_are_known() -> None:
    assert set(NAMED.values()) == set(SCHEDULERS)


def test_it_is_ddim_of_the_same_noise_levels() -> None:
    pipe, before = sd15(), sd15().scheduler
    use_scheduler(pipe, "ddim")
    assert type(pipe.scheduler) is DDIMScheduler
    assert torch.equal(pipe.scheduler.alphas_cumprod, before.alphas_cumprod)
    assert pipe.scheduler.config.steps_offset == 1
    assert pipe.scheduler.config.set_alpha_to_one is False
    # One that says nothing of clipping is for latents all the same.
    pipe.scheduler = PNDMScheduler()
    use_scheduler(pipe, "ddim")
    assert pipe.scheduler.config.clip_sample is False


@pytest.mark.parametrize("name", [name for name in NAMED if name != "flow-euler"])
def test_each_name_samples_as_the_pipeline_with_it(name: str) -> None:
    pipe = sd15()
    pipe.safety_checker = None
    use_scheduler(pipe, name)
    assert type(pipe.scheduler) is getattr(diffusers, NAMED[name])
    expected = pipe(list(PROMPTS), generator=generators(2), output_type="latent", **SHORT).images
    loop = SamplingLoop(pipe, steps=2, height=32, width=32)
    assert torch.equal(loop.sample(PROMPTS, generators(2)), expected)


def test_wrong_names_and_ways_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no scheduler 'pndm'; expected one of ddim, ddpm"):
        use_scheduler(sd15(), "pndm")
    with pytest.raises(
        ValueError, match=r"'ddim' does not fit a pipeline with FlowMatchEuler.*flow-"
    ):
        use_scheduler(pipeline("sd3"), "ddim")
    with pytest.raises(ValueError, match=r"'flow-euler' does not fit a pipeline with PNDM"):
        use_scheduler(sd15(), "flow-euler")


def test_everything_takes_the_name_and_hints_at_it(tmp_path: Path) -> None:
    hint = r'Pass scheduler="ddim" \(--scheduler ddim\)'
    with pytest.raises(ValueError, match=hint):
        RewardGuidance(sd15(), "a dog", Brightness(), scale=0.1)
    with pytest.raises(ValueError, match=hint):
        best_of_n(sd15(), "a dog", Brightness(), 2, prune={0.5: 0.5}, **SHORT)
    with pytest.raises(ValueError, match=hint):
        finetune(sd15(), PROMPTS, Brightness(), quick(), out=tmp_path)
    with pytest.raises(ValueError, match=r"safety_checker=None .--no-safety-checker"):
        finetune(sd15(), PROMPTS, Brightness(), quick(), out=tmp_path, scheduler="ddim")
    pipe = sd15()
    pipe.safety_checker = None
    guidance = RewardGuidance(pipe, "a dog", Brightness(), scale=0.1, scheduler="ddim")
    pipe(**guidance.arguments, **SHORT)
    assert list(guidance.rewards) == [1]
    pipe = sd15()
    pipe.safety_checker = None
    call: dict[str, Any] = {**SHORT, "num_inference_steps": 4}
    chosen = best_of_n(pipe, "a dog", Brightness(), 2, prune={0.5: 0.5}, scheduler="ddim", **call)
    assert sum(candidate.pruned for candidate in chosen.candidates) == 1


def test_a_folder_is_loaded_without_its_checker_and_with_the_scheduler(tmp_path: Path) -> None:
    sd15().save_pretrained(tmp_path)
    device = torch.device("cpu")
    whole: Any = load_pipeline(str(tmp_path), dtype=None, device=device)
    assert type(whole.scheduler) is PNDMScheduler
    assert whole.safety_checker is not None
    loaded: Any = load_pipeline(
        str(tmp_path), dtype=None, device=device, scheduler="ddim", safety_checker=False
    )
    assert type(loaded.scheduler) is DDIMScheduler
    assert loaded.scheduler.config.clip_sample is False
    assert loaded.safety_checker is None


# scheduler_config.json of Sana, as far as flow matching goes.
SANA: dict[str, Any] = {
    "use_flow_sigmas": True,
    "prediction_type": "flow_prediction",
    "flow_shift": 3.0,
}


def flow(name: str, shift: float) -> Any:  # noqa: ANN401 (diffusers has no types)
    """A scheduler of flow matching by its name here, with a shift."""
    if name == "flow-euler":
        return FlowMatchEulerDiscreteScheduler(shift=shift)
    return getattr(diffusers, NAMED[name])(**{**SANA, "flow_shift": shift})


@pytest.mark.parametrize("after", ["flow-euler", "dpm++", "unipc"])
@pytest.mark.parametrize("before", ["flow-euler", "dpm++", "unipc"])
def test_flow_matching_stays_what_it_is(before: str, after: str) -> None:
    pipe: Any = pipeline("sd3")
    pipe.scheduler = flow(before, 3.0)
    use_scheduler(pipe, after)
    assert type(pipe.scheduler) is getattr(diffusers, NAMED[after])
    pipe.scheduler.set_timesteps(5)
    wanted = flow(after, 3.0)
    wanted.set_timesteps(5)
    assert torch.equal(pipe.scheduler.sigmas, wanted.sigmas)
    # Of the noise level s that a shift of 1 has, 3 s / (1 + 2 s).
    plain = flow(after, 1.0)
    plain.set_timesteps(5)
    first = float(plain.sigmas[1])
    if after != "flow-euler":  # whose first and last levels are shifted once more
        assert float(wanted.sigmas[1]) == pytest.approx(3 * first / (1 + 2 * first), rel=1e-5)
    assert prediction_type(pipe.scheduler) == "flow_prediction"
    loop = SamplingLoop(pipe, steps=2, height=32, width=32, guidance=2.0)
    made = pipe(
        list(PROMPTS), generator=generators(2), output_type="latent", guidance_scale=2.0, **SHORT
    )
    assert torch.equal(loop.sample(PROMPTS, generators(2)), made.images)


@pytest.mark.parametrize("name", ["ddim", "ddpm", "euler", "euler-ancestral", "lcm"])
def test_solvers_of_flow_matching_are_not_replaced_by_others(name: str) -> None:
    pipe: Any = pipeline("sd3")
    pipe.scheduler = flow("dpm++", 3.0)
    before = pipe.scheduler
    with pytest.raises(ValueError, match=r"does not fit .*; expected dpm\+\+, unipc, flow-euler"):
        use_scheduler(pipe, name)
    assert pipe.scheduler is before
    pipe.scheduler = diffusers.DPMSolverMultistepScheduler()
    with pytest.raises(ValueError, match="'flow-euler' does not fit a pipeline with DPMSolver"):
        use_scheduler(pipe, "flow-euler")


def test_settings_that_would_be_lost_are_named() -> None:
    pipe: Any = pipeline("sd3")
    karras: dict[str, Any] = {"use_karras_sigmas": True}
    terminal: dict[str, Any] = {"shift_terminal": 0.02}
    for setting, name in (
        (karras, "dpm++"), (karras, "unipc"), (terminal, "dpm++"),
        ({"invert_sigmas": True}, "unipc"),
    ):  # fmt: skip
        pipe.scheduler = FlowMatchEulerDiscreteScheduler(**setting)
        ((key, value),) = setting.items()
        with pytest.raises(ValueError, match=f"settings {key}={value} it does not have"):
            use_scheduler(pipe, name)
        use_scheduler(pipe, "flow-euler")
        assert pipe.scheduler.config[key] == value
    pipe.scheduler = FlowMatchEulerDiscreteScheduler(**terminal, shift=3.0)
    use_scheduler(pipe, "unipc")
    pipe.scheduler.set_timesteps(5)
    assert float(pipe.scheduler.sigmas[-2]) == pytest.approx(0.02, abs=1e-6)
    for name in ("dpm++", "flow-euler"):
        pipe.scheduler = diffusers.UniPCMultistepScheduler(
            **SANA, **(terminal if name == "dpm++" else karras)
        )
        with pytest.raises(ValueError, match="it does not have for flow matching"):
            use_scheduler(pipe, name)
    pipe.scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, time_shift_type="linear"
    )
    with pytest.raises(ValueError, match="time_shift_type='linear' it does not have"):
        use_scheduler(pipe, "dpm++")


@pytest.mark.parametrize("name", ["dpm++", "unipc"])
@pytest.mark.parametrize("kind", ["flux", "flux2", "qwen", "lumina2", "z-image"])
def test_noise_levels_of_a_call_need_a_scheduler_that_takes_them(kind: str, name: str) -> None:
    pipe: Any = pipeline(kind)
    before = pipe.scheduler
    with pytest.raises(ValueError, match=r"whose call gives the noise .* expected flow-euler"):
        use_scheduler(pipe, name)
    assert pipe.scheduler is before
    use_scheduler(pipe, "flow-euler")


def test_a_class_of_ones_own_is_what_its_parent_is() -> None:
    class Mine(FlowMatchEulerDiscreteScheduler):
        """As people write them."""

    pipe: Any = pipeline("sd3")
    pipe.scheduler = Mine(shift=3.0)
    with pytest.raises(ValueError, match="'ddim' does not fit"):
        use_scheduler(pipe, "ddim")
    pipe.scheduler.set_shift(5.0)  # which the configuration does not show
    use_scheduler(pipe, "dpm++")
    assert pipe.scheduler.config.flow_shift == 5.0


@pytest.mark.parametrize("page", ["guidance.md", "finetuning.md", "best_of_n.md"])
def test_the_pages_lines_for_stable_diffusion_1_5_run(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they stand, but for the download and the GPU; then what the page is about."""
    text = (DOCS / page).read_text(encoding="utf-8")
    (block,) = (one[1] for one in PYTHON_BLOCK.finditer(text) if "stable-diffusion-v1-5" in one[1])

    def downloaded(name: str, **given: Any) -> Any:  # noqa: ANN401 (diffusers has no types)
        assert name == "stable-diffusion-v1-5/stable-diffusion-v1-5"
        pipe = sd15()
        if "safety_checker" in given:
            pipe.register_modules(safety_checker=given["safety_checker"])
        pipe.to = lambda device: pipe if device == "cuda" else None
        return pipe

    monkeypatch.setattr(diffusers.StableDiffusionPipeline, "from_pretrained", downloaded)
    scope: dict[str, Any] = {}
    exec(block, scope)
    pipe = scope["pipe"]
    if page == "guidance.md":
        guidance = RewardGuidance(pipe, "a dog", Brightness(), scale=0.1)
        pipe(**guidance.arguments, **SHORT)
        assert list(guidance.rewards) == [1]
    elif page == "finetuning.md":
        assert finetune(pipe, PROMPTS, Brightness(), quick(), out=tmp_path, progress=False).lora
    else:
        found = best_of_n(pipe, "a dog", Brightness(), 2, scheduler="ddim", **SHORT)
        assert len(found.candidates) == 2
