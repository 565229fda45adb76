"""Another scheduler by its name: Stable Diffusion 1.5's own is replaced, others are refused."""

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler, PNDMScheduler
from helpers.brightness import Brightness
from helpers.tiny_finetune import PROMPTS, generators, pipeline, quick

from stablepref.integrations.best_of_n.choose import best_of_n
from stablepref.integrations.diffusion.load import load_pipeline
from stablepref.integrations.diffusion.sampling import SamplingLoop
from stablepref.integrations.diffusion.schedulers import NAMED, use_scheduler
from stablepref.integrations.diffusion.x0 import SCHEDULERS
from stablepref.integrations.finetune.run import finetune
from stablepref.integrations.guidance import RewardGuidance

# scheduler/scheduler_config.json of stable-diffusion-v1-5.
SD15: dict[str, Any] = {
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "clip_sample": False,
}
SHORT: dict[str, Any] = {"num_inference_steps": 2, "height": 32, "width": 32}


def sd15() -> Any:  # noqa: ANN401 (diffusers has no types)
    """Stable Diffusion 1.5 as it comes: with PNDM and a safety checker, any network for that."""
    pipe: Any = pipeline()
    pipe.scheduler = PNDMScheduler.from_config(SD15)
    pipe.register_modules(safety_checker=pipe.text_encoder)
    return pipe


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
    pipe = sd15()
    pipe.register_modules(safety_checker=None)
    pipe.save_pretrained(tmp_path)
    device = torch.device("cpu")
    whole: Any = load_pipeline(str(tmp_path), dtype=None, device=device)
    assert type(whole.scheduler) is PNDMScheduler
    loaded: Any = load_pipeline(
        str(tmp_path), dtype=None, device=device, scheduler="ddim", safety_checker=False
    )
    assert type(loaded.scheduler) is DDIMScheduler
    assert loaded.scheduler.config.clip_sample is False
    assert loaded.safety_checker is None
