"""Candidates made together, and by the pipeline itself one by one."""

from collections.abc import Sequence

import numpy as np
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from stablepref.integrations.best_of_n.candidates import generate

PROMPT = "a red circle"


def make(
    pipe: DiffusionPipeline,
    indices: Sequence[int],
    *,
    batch_size: int | None,
    seed: int = 7,
    **arguments: object,
) -> list[Image.Image]:
    """All candidates, checked to come in order."""
    batches = list(
        generate(pipe, PROMPT, indices, seed=seed, batch_size=batch_size, arguments=arguments)
    )
    made = [one for batch in batches for one in batch]
    assert [one.index for one in made] == list(indices)
    return [one.image for one in made]


def alone(pipe: DiffusionPipeline, seed: int, **arguments: object) -> Image.Image:
    """The pipeline itself, called as its documentation does."""
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(seed)
    return pipe(PROMPT, generator=generator, **arguments).images[0]


def apart(a: Image.Image, b: Image.Image) -> int:
    """Largest difference in 8-bit levels."""
    return int(np.abs(np.asarray(a).astype(int) - np.asarray(b)).max())
