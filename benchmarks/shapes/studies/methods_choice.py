"""What choosing gains: as many pictures as a training draws, of the prompts that are wanted."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stablepref.integrations.diffusion.described import pipeline_digests
from stablepref.integrations.diffusion.pipelines import modules_of
from stablepref.output.progress import progress_bar
from stablepref.runtime.threads import threads_for
from stablepref.scorer import Scorer
from stablepref.weights.fingerprint import weights_digest

from ..pipeline.parts import open_pipeline
from ..pipeline.sampling import sample_prompts
from ..world.accuracy import Accuracy
from ..world.prompts import LabPrompt
from .resumed import Row, resumed_rows
from .selection_numbers import best_curve

CHOICE_FILE = "choice.jsonl"


@dataclass(frozen=True)
class Choice:
    """The best of n pictures of each prompt, by the reward.

    Attributes:
        n: pictures of each prompt.
        pictures: of all prompts.
        seconds: that drawing, grading and scoring them took.
        correct: share of prompts whose chosen picture is fully correct, over all ways to draw n of
            those that there are; with a 95 % interval over prompts.
    """

    n: int
    pictures: int
    seconds: float
    correct: Accuracy


def choices(
    pipeline: Path,
    scorer: Scorer,
    out: Path,
    prompts: Sequence[LabPrompt],
    *,
    pictures: int,
    steps: int,
    guidance: float,
    device: str = "cpu",
    quiet: bool = False,
) -> list[Choice]:
    """Draw the pipeline's pictures of some prompts, and choose among 1, 2, 4 ... of each.

    Args:
        pipeline: folder of the pipeline, which is not trained.
        scorer: the reward to choose by.
        out: the study's folder; prompts that were drawn there are not drawn again.
        prompts: what to draw.
        pictures: in all, at most, but one of each prompt at least.
        steps: denoising steps.
        guidance: scale of classifier-free guidance.
        device: where to run.
        quiet: no progress bars.

    Returns:
        One for each power of 2 up to the number of pictures of each prompt, and for that itself.

    Raises:
        ResumeError: the folder holds choices of other settings.
        ValueError: a picture cannot be scored.
    """
    each = max(1, pictures // len(prompts))
    pipe = open_pipeline(pipeline, device)

    def made(job: Row) -> Row:
        place, since = job["prompt"], time.monotonic()
        samples = sample_prompts(
            pipe,
            [prompts[place]],
            pictures=each,
            steps=steps,
            guidance=guidance,
            seed=place,
            quiet=True,
        )
        scored = scorer.stream(
            [one.picture for one in samples],
            [one.prompt.prompt for one in samples],
            on_error="raise",
            progress=False,
        )
        return {
            "scores": [one.score for one in scored],
            "corrects": [float(one.grade.correct) for one in samples],
            "seconds": time.monotonic() - since,
        }

    identity = {
        "pipeline": pipeline_digests(pipe),
        "reward": weights_digest(scorer),
        "prompts": [one.prompt for one in prompts],
        "drawn": [each, steps, guidance],
    }
    jobs: list[Row] = [{"prompt": place} for place in range(len(prompts))]
    with (
        progress_bar("choosing", total=len(jobs), show=False if quiet else None) as advance,
        threads_for(*modules_of(pipe), scorer),  # as in a training
    ):
        rows = resumed_rows(out / CHOICE_FILE, identity, jobs, made, advance=advance)
    sizes = [*(2**power for power in range(each.bit_length()) if 2**power < each), each]
    curve = best_curve(
        np.array([row["scores"] for row in rows]),
        np.array([row["corrects"] for row in rows]),
        sizes,
    )
    taken = sum(row["seconds"] for row in rows)
    return [
        Choice(n, n * len(prompts), taken * n / each, correct)
        for n, correct in zip(sizes, curve, strict=True)
    ]
