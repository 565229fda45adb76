"""Tiny pipelines and rewards for tests of fine-tuning."""

from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from diffusers import DDIMScheduler, DiffusionPipeline
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from helpers.brightness import Brightness
from helpers.tiny_pipelines import build
from stablepref.integrations.diffusion.sampling import SamplingLoop
from stablepref.integrations.finetune.config import FinetuneConfig
from stablepref.integrations.finetune.dpo_pairs import Pair
from stablepref.integrations.finetune.latent_reward import LatentReward
from stablepref.integrations.finetune.policies import Policies
from stablepref.integrations.finetune.run import guidance_of
from stablepref.integrations.finetune.state import FinetuneRun
from stablepref.integrations.reward import DifferentiableReward

PROMPTS = ["a red circle", "a dog"]
SIDE = 16


def pipeline(kind: str = "sd") -> DiffusionPipeline:
    """A tiny pipeline, silent, equal on every call."""
    pipe, _ = build(kind)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def noisy_pipeline() -> DiffusionPipeline:
    """One whose pictures follow what its denoiser says, and whose last step has noise."""
    pipe = pipeline()
    pipe.scheduler = DDIMScheduler(
        num_train_timesteps=4,
        trained_betas=[0.3, 0.4, 0.5, 0.6],
        prediction_type="sample",
        steps_offset=1,
        set_alpha_to_one=False,
        clip_sample=False,
    )
    return pipe


def in_float64(pipe: DiffusionPipeline) -> DiffusionPipeline:
    """All of its parts in double precision, where transformers can mask CLIP's texts in it."""
    texts = CLIPTextModel | CLIPTextModelWithProjection
    clip = any(isinstance(part, texts) for part in pipe.components.values())
    if clip and int(version("transformers").split(".")[0]) < 5:
        pytest.skip("transformers before 5 has no masks in float64 for CLIP")
    return pipe.to(torch.float64)


def bright(pipe: DiffusionPipeline, **arguments: object) -> DifferentiableReward:
    """Mean brightness of the pictures, 0 to 1."""
    given: dict[str, Any] = {"vae": pipe.vae, **arguments}
    return DifferentiableReward(Brightness(), **given)


def quick(**settings: object) -> FinetuneConfig:
    """A few steps of a few small pictures."""
    chosen: dict[str, Any] = {
        "steps": 3,
        "batch_size": 4,
        "sampling_steps": 2,
        "guidance": 2.0,
        "height": SIDE,
        "width": SIDE,
        "samples": 2,
        "monitor_views": 1,
        **settings,
    }
    return FinetuneConfig(**chosen)


def generators(count: int, seed: int = 0) -> Sequence[torch.Generator]:
    """One for each picture, new ones on every call."""
    return [torch.Generator().manual_seed(seed + i) for i in range(count)]


def plain_run(
    pipe: DiffusionPipeline,
    reward: object,
    folder: Path,
    *,
    pairs: Sequence[Pair] = (),
    **settings: object,
) -> FinetuneRun:
    """A fine-tuning whose weights move by minus the gradient, which is not clipped."""
    config = quick(**{"max_grad_norm": 1e9, "guidance": 1.0, "rank": 2, **settings})
    policies = Policies.of(pipe, config)
    if config.rank:
        disturb(policies.trained)
    return FinetuneRun(
        Accelerator(cpu=True),
        SamplingLoop(
            pipe,
            steps=config.sampling_steps,
            guidance=guidance_of(pipe, config),
            height=SIDE,
            width=SIDE,
            checkpointing=config.gradient_checkpointing,
        ),
        LatentReward(pipe, reward),  # type: ignore[arg-type] # any reward
        policies,
        torch.optim.SGD(policies.trained.parameters(), lr=1.0),
        config,
        PROMPTS,
        folder,
        {},
        pairs,
    )


@torch.no_grad()
def disturb(weights: torch.nn.Module, *, seed: int = 1) -> None:
    """Move every weight a little: at zero the first LoRA matrices have no gradient."""
    noise = torch.Generator().manual_seed(seed)
    for weight in weights.parameters():
        weight.add_(0.1 * torch.randn(weight.shape, generator=noise))


def moved(run: FinetuneRun, step: Callable[[FinetuneRun, int], object]) -> dict[str, Tensor]:
    """By how much a step moves each weight, which is put back."""
    before = {
        name: weight.detach().clone() for name, weight in run.policies.trained.named_parameters()
    }
    step(run, 0)
    found = {}
    with torch.no_grad():
        for name, weight in run.policies.trained.named_parameters():
            found[name] = weight - before[name]
            weight.copy_(before[name])
    return found
