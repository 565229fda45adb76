"""Stable Diffusion 1.5 as it comes, but for the size of its networks."""

from typing import Any

from diffusers import PNDMScheduler
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from transformers import CLIPConfig, CLIPImageProcessor

from helpers.tiny_finetune import pipeline

# scheduler/scheduler_config.json of stable-diffusion-v1-5.
SCHEDULER: dict[str, Any] = {
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "clip_sample": False,
}
_TOWER = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "projection_dim": 8,
}  # fmt: skip


def sd15() -> Any:  # noqa: ANN401 (diffusers has no types)
    """With PNDM and a safety checker, whose weights are random: it may blank any picture."""
    pipe: Any = pipeline()
    pipe.scheduler = PNDMScheduler.from_config(SCHEDULER)
    towers = {"vision_config": {**_TOWER, "image_size": 32, "patch_size": 16}}
    config = CLIPConfig(**towers, text_config=dict(_TOWER), projection_dim=8)
    small = {"shortest_edge": 32}
    pipe.register_modules(
        safety_checker=StableDiffusionSafetyChecker(config).eval(),
        feature_extractor=CLIPImageProcessor(size=small, crop_size={"height": 32, "width": 32}),
    )
    return pipe
