"""Many candidates of each prompt: predictions and pictures scored, pictures graded."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path

import numpy as np
from diffusers import StableDiffusionPipeline
from PIL import Image

from stablepref.integrations.best_of_n.candidates import generate
from stablepref.integrations.best_of_n.making import Generated
from stablepref.integrations.best_of_n.pruning import step_of
from stablepref.integrations.diffusion.described import pipeline_digests
from stablepref.output.progress import progress_bar
from stablepref.scorer import Scorer
from stablepref.weights.fingerprint import weights_digest

from ..oracle.grading import grade
from ..pipeline.parts import GUIDANCE, STEPS
from ..world.prompts import LabPrompt
from .resumed import Row, resumed_batches

CANDIDATES_FILE = "candidates.jsonl"
LOOKS = (0.12, 0.2, 0.28, 0.4)
"""Shares of the steps after which x0 predictions are scored."""


def candidate_rows(
    pipe: StableDiffusionPipeline,
    scorers: Mapping[str, Scorer],
    prompts: Sequence[LabPrompt],
    out: Path,
    *,
    candidates: int = 100,
    looks: Sequence[float] = LOOKS,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    seed: int = 0,
    batch_size: int = 20,
    progress: bool | None = None,
) -> list[Row]:
    """Draw, score and grade candidates as `best_of_n` makes them; each is written at once.

    Nothing is pruned: the predictions are only looked at, so that every way of pruning can be
    tried on the same candidates.

    Args:
        pipe: the pipeline, on the device where it runs.
        scorers: by name, on the same device; the first one scores the predictions.
        prompts: what to draw.
        out: folder for `candidates.jsonl`; what is in it is not made again.
        candidates: of each prompt.
        looks: shares of the steps after which predictions are scored; none takes less time.
        steps: denoising steps.
        guidance: scale of classifier-free guidance.
        seed: of the first candidate; every one has noise of its own.
        batch_size: candidates drawn together; changes nothing but rounding.
        progress: show a bar; None shows one in a terminal.

    Returns:
        Rows with `prompt`, `candidate`, `early` (scores at the looks), `scores` by scorer and
        `correct`, prompt by prompt.

    Raises:
        ResumeError: the folder holds candidates of other settings.
        ValueError: two looks fall on one step.
    """
    if len({step_of(at, steps) for at in looks}) < len(looks):
        looked = ", ".join(map(str, looks))
        raise ValueError(
            f"of {steps} steps, two of the looks at {looked} fall on one: raise the number of steps"
        )
    jobs = [
        {"prompt": prompt, "candidate": candidate}
        for prompt in range(len(prompts))
        for candidate in range(candidates)
    ]
    out.mkdir(parents=True, exist_ok=True)
    identity = {
        "prompts": [one.prompt for one in prompts],
        "pipeline": pipeline_digests(pipe),
        "scheduler": type(pipe.scheduler).__name__,
        "scorers": {name: weights_digest(scorer) for name, scorer in scorers.items()},
        "looks": list(looks),
        "candidates": candidates,
        "steps": steps,
        "guidance": guidance,
        "seed": seed,
    }

    def made(left: Sequence[Row]) -> Iterator[Row]:
        """What the rows of a prompt have besides."""
        place, one = left[0]["prompt"], prompts[left[0]["prompt"]]
        for batch, early in _drawn(
            pipe,
            one.prompt,
            [job["candidate"] for job in left],
            next(iter(scorers.values())),
            looks,
            seed=seed + place * candidates,
            batch_size=batch_size,
            arguments={"num_inference_steps": steps, "guidance_scale": guidance},
        ):
            images = [drawn.image for drawn in batch]
            scores = {
                name: scorer.score(images, one.prompt, progress=False).tolist()
                for name, scorer in scorers.items()
            }
            for i, image in enumerate(images):
                yield {
                    "early": early[i],
                    "scores": {name: values[i] for name, values in scores.items()},
                    "correct": grade(np.asarray(image), one.scene).correct,
                }

    with progress_bar("candidates", total=len(jobs), show=progress) as advance:
        return resumed_batches(
            out / CANDIDATES_FILE,
            identity,
            jobs,
            made,
            batches=lambda left: (
                list(group) for _, group in itertools.groupby(left, key=itemgetter("prompt"))
            ),
            advance=advance,
        )


def _drawn(
    pipe: StableDiffusionPipeline,
    prompt: str,
    indices: Sequence[int],
    scorer: Scorer,
    looks: Sequence[float],
    *,
    seed: int,
    batch_size: int,
    arguments: Mapping[str, object],
) -> Iterator[tuple[list[Generated], list[list[float]]]]:
    """Batches of candidates, and for each one the scores of its predictions."""
    seen: list[list[float]] = []

    def look(predictions: Sequence[Image.Image]) -> list[float]:
        found: list[float] = scorer.score(list(predictions), prompt, progress=False).tolist()
        seen.append(found)
        return found

    batches = generate(
        pipe,
        prompt,
        indices,
        seed=seed,
        batch_size=batch_size,
        arguments=arguments,
        prune=dict.fromkeys(looks, 1.0) or None,  # all are kept
        score=look if looks else None,
    )
    for batch in batches:
        # A batch that was halved looked twice.
        early = np.array(seen[len(seen) - len(looks) :])
        yield batch, early.T.tolist() if looks else [[] for _ in batch]
