"""Pictures of a pipeline, graded, and a sheet that shows them."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from matplotlib.figure import Figure
from rich.progress import track

from stablepref.output.figures import save_figure

from ..oracle.grading import ATTRIBUTES, Grade, grade
from ..world.drawing import Pixels, render
from ..world.prompts import LabPrompt
from .autoencoder import to_input
from .parts import GUIDANCE, STEPS

_LINE = 22


@dataclass(frozen=True)
class Sample:
    """One picture.

    Attributes:
        prompt: what the pipeline was given.
        picture: `(64, 64, 3)` uint8.
        grade: what the oracle finds right in it.
    """

    prompt: LabPrompt
    picture: Pixels
    grade: Grade


def sample_prompts(
    pipe: StableDiffusionPipeline,
    prompts: Sequence[LabPrompt],
    *,
    pictures: int = 1,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    seed: int = 0,
    batch_size: int = 20,
    quiet: bool = False,
) -> list[Sample]:
    """Draw and grade pictures of prompts.

    Args:
        pipe: the pipeline, on the device where it runs.
        prompts: what to draw.
        pictures: of each prompt.
        steps: denoising steps.
        guidance: scale of classifier-free guidance.
        seed: picture i of prompt p begins with noise of its own, which depends on seed, p and i.
        batch_size: pictures drawn together; changes nothing but rounding.
        quiet: no progress bar.

    Returns:
        `pictures` samples of the first prompt, then of the second, and so on.
    """
    pipe.set_progress_bar_config(disable=True)
    jobs = [(p, i) for p in range(len(prompts)) for i in range(pictures)]
    samples = []
    for start in track(range(0, len(jobs), batch_size), description="sampling", disable=quiet):
        batch = jobs[start : start + batch_size]
        noise = [torch.Generator().manual_seed(_noise_seed(seed, p, i)) for p, i in batch]
        drawn = pipe(
            [prompts[p].prompt for p, _ in batch],
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=noise,
            output_type="np",
        ).images
        for (p, _), values in zip(batch, drawn, strict=True):
            picture = (values * 255).round().astype(np.uint8)
            samples.append(Sample(prompts[p], picture, grade(picture, prompts[p].scene)))
    return samples


@torch.no_grad()
def reconstruct_prompts(autoencoder: AutoencoderKL, prompts: Sequence[LabPrompt]) -> list[Sample]:
    """Correct pictures of prompts after the autoencoder, graded: no pipeline draws better ones.

    Args:
        autoencoder: on its own device.
        prompts: one picture is drawn of each.
    """
    samples = []
    for number, prompt in enumerate(prompts):
        picture = to_input([render(prompt.scene, seed=number)]).to(autoencoder.device)
        decoded = autoencoder.decode(autoencoder.encode(picture).latent_dist.mean).sample
        values = (decoded[0].clamp(-1, 1) + 1) * 127.5
        pixels = values.round().byte().permute(1, 2, 0).cpu().numpy()
        samples.append(Sample(prompt, pixels, grade(pixels, prompt.scene)))
    return samples


def _noise_seed(seed: int, prompt: int, picture: int) -> int:
    return int(np.random.SeedSequence([seed, prompt, picture]).generate_state(1, np.uint64)[0] >> 1)


def draw_samples(path: Path, samples: Sequence[Sample], *, columns: int = 10) -> None:
    """Write a sheet of pictures with prompts, and in red what the oracle finds wrong.

    Args:
        path: file to write.
        samples: the pictures.
        columns: pictures in a row.
    """
    rows = -(-len(samples) // columns)
    figure = Figure(figsize=(1.45 * columns, 2.2 * rows))
    # A share of one row's height is left above the first row and below the last one.
    figure.subplots_adjust(0.01, 0.3 / rows, 0.99, 1 - 0.15 / rows, wspace=0.06, hspace=0.65)
    for axes in (places := figure.subplots(rows, columns, squeeze=False).ravel()):
        axes.axis("off")
    for axes, sample in zip(places, samples, strict=False):
        axes.imshow(sample.picture)
        wrong = [name for name in ATTRIBUTES if getattr(sample.grade, name) is False]
        caption = textwrap.fill(", ".join(wrong) or "correct", _LINE)
        axes.set_title(caption, fontsize=6.5, color="red" if wrong else "green")
        axes.text(
            0.5,
            -0.04,
            textwrap.fill(sample.prompt.prompt, _LINE),
            transform=axes.transAxes,
            ha="center",
            va="top",
            fontsize=6,
        )
    save_figure(figure, path, dpi=110)
