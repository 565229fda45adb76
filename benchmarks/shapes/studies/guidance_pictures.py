"""Pictures of the laboratory's pipeline under guidance, scored and graded."""

import itertools
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from stablepref.integrations.diffusion.described import pipeline_digests
from stablepref.integrations.guidance import RewardGuidance
from stablepref.output.progress import progress_bar
from stablepref.scorer import Scorer
from stablepref.weights.fingerprint import weights_digest

from ..oracle.grading import grade
from ..pipeline.parts import GUIDANCE, STEPS
from ..world.prompts import LabPrompt
from .resumed import Row, resumed_batches

JUDGING_VIEWS = 8
"""Weak views that a picture is judged by; guidance sees others."""
PICTURES_FILE = "pictures.jsonl"


@dataclass(frozen=True)
class Setting:
    """How pictures are guided.

    Attributes:
        views: weak views in the reward that guides.
        scale: of the guidance; 0 is the pipeline alone.
    """

    views: int
    scale: float


def settings_of(scales: Sequence[float], views: int) -> list[Setting]:
    """The pipeline alone, then each scale without and with views.

    Raises:
        ValueError: a scale is negative, or `views` below 1.
    """
    if views < 1 or min(scales, default=0) < 0:
        raise ValueError(f"expected views from 1 and scales from 0, got {views} and {scales}")
    guided = sorted({scale for scale in scales if scale > 0})
    return [Setting(0, 0.0), *(Setting(k, scale) for scale in guided for k in (0, views))]


def guided_rows(
    pipe: StableDiffusionPipeline,
    scorer: Scorer,
    prompts: Sequence[LabPrompt],
    settings: Sequence[Setting],
    out: Path,
    *,
    pictures: int = 1,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    where: tuple[float, float] = (0.0, 1.0),
    seed: int = 0,
    batch_size: int = 10,
    progress: bool | None = None,
) -> list[Row]:
    """Draw, score and grade pictures, each written to a folder at once.

    Args:
        pipe: the pipeline, on the device where it runs.
        scorer: the reward model, on the same device.
        prompts: what to draw.
        settings: how to guide.
        out: folder for `pictures.jsonl` and the pictures; what is in it is not made again.
        pictures: of each prompt.
        steps: denoising steps.
        guidance: scale of classifier-free guidance.
        where: shares of the steps to guide, see `RewardGuidance`.
        seed: of the first noise; every setting begins with the same noises.
        batch_size: pictures drawn together; changes nothing but rounding.
        progress: show a bar; None shows one in a terminal.

    Returns:
        Rows with `views`, `scale`, `prompt`, `picture`, `reward`, `robust` and `correct`, setting
        by setting, prompt by prompt.

    Raises:
        ResumeError: the folder holds pictures of other settings.
    """
    jobs = [
        {"views": how.views, "scale": how.scale, "prompt": prompt, "picture": picture}
        for how in settings
        for prompt in range(len(prompts))
        for picture in range(pictures)
    ]
    out.mkdir(parents=True, exist_ok=True)
    identity = {
        "prompts": [one.prompt for one in prompts],
        "pipeline": pipeline_digests(pipe),
        "scheduler": type(pipe.scheduler).__name__,
        "model": scorer.name,
        "scorer": weights_digest(scorer),
        "steps": steps,
        "guidance": guidance,
        "where": list(where),
        "seed": seed,
    }

    def made(batch: Sequence[Row]) -> Iterator[Row]:
        """The rows of jobs of one setting."""
        asked = [prompts[job["prompt"]] for job in batch]
        guided = RewardGuidance(
            pipe,
            [one.prompt for one in asked],
            scorer,
            scale=batch[0]["scale"],
            views=batch[0]["views"],
            steps=where,
        )
        numbers = [seed + job["prompt"] * pictures + job["picture"] for job in batch]
        drawn = pipe(
            **guided.arguments,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=[torch.Generator().manual_seed(number) for number in numbers],
        ).images
        judged = scorer.stream(
            drawn, guided.prompts, views=JUDGING_VIEWS, on_error="raise", progress=False
        )
        for job, one, image, scored in zip(batch, asked, drawn, judged, strict=True):
            _write_picture(out, job, image)
            yield {
                "reward": scored.view_scores[0],
                "robust": statistics.fmean(scored.view_scores),
                "correct": grade(np.asarray(image), one.scene).correct,
            }

    pipe.set_progress_bar_config(disable=True)
    with progress_bar("guiding", total=len(jobs), show=progress) as advance:
        return resumed_batches(
            out / PICTURES_FILE,
            identity,
            jobs,
            made,
            batches=lambda left: _batches(left, batch_size),
            advance=advance,
        )


def _batches(jobs: Sequence[Row], size: int) -> Iterator[list[Row]]:
    """Jobs of one setting together."""
    for _, group in itertools.groupby(jobs, key=lambda job: (job["views"], job["scale"])):
        listed = list(group)
        yield from (listed[start : start + size] for start in range(0, len(listed), size))


def _write_picture(out: Path, job: Row, image: Image.Image) -> None:
    folder = out / "pictures" / f"views-{job['views']}-scale-{job['scale']:g}"
    folder.mkdir(parents=True, exist_ok=True)
    image.save(folder / f"{job['prompt']:03d}-{job['picture']}.png")
