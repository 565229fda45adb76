"""Pictures of tiny pipelines, drawn with and without guidance by a reward."""

from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from helpers.tiny_pipelines import build

PROMPT = "a red circle"


def prepared(
    kind: str, scheduler: str | None = None, *, steps: int = 4, **config: object
) -> tuple[DiffusionPipeline, dict[str, Any]]:
    pipe, arguments = build(kind)
    pipe.set_progress_bar_config(disable=True)
    if scheduler is not None:
        before = pipe.scheduler.config
        pipe.scheduler = getattr(diffusers, scheduler).from_config(before, **config)
    return pipe, {**arguments, "num_inference_steps": steps}


def made(
    pipe: DiffusionPipeline, arguments: dict[str, Any], *, seed: int = 0, **more: object
) -> list[Image.Image]:
    generator = torch.Generator().manual_seed(seed)
    return list(pipe(generator=generator, **{**arguments, **more}).images)


def same(one: list[Image.Image], other: list[Image.Image]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
