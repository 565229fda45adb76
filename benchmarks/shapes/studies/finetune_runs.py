"""Fine-tunings of the laboratory's pipeline, measured on held-out prompts at intervals."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffusers import StableDiffusionPipeline

from stablepref.integrations.finetune.config import FinetuneConfig
from stablepref.integrations.finetune.loop import LORA, LORAS
from stablepref.integrations.finetune.run import finetune
from stablepref.integrations.reward import DifferentiableReward
from stablepref.output.locks import sole_writer
from stablepref.output.partial import PartialFile
from stablepref.scorer import Scorer
from stablepref.weights.fingerprint import part_digests, weights_digest

from ..pipeline.sampling import draw_samples, sample_prompts
from ..world.prompts import LabPrompt

BASE = "base"
"""The arm of the pipeline before any training."""
JUDGING_VIEWS = 8
"""Weak views that pictures are judged by."""
ROWS_FILE = "rows.jsonl"
_SHOWN = 60  # pictures of a sheet

Row = dict[str, Any]


@dataclass(frozen=True)
class Arm:
    """A reward to train with.

    Attributes:
        name: of the arm.
        scorer: the reward model.
        views: weak views of each picture, in addition to it.
    """

    name: str
    scorer: Scorer
    views: int


def study_rows(
    pipeline: Path,
    arms: Sequence[Arm],
    config: FinetuneConfig,
    out: Path,
    *,
    train_prompts: Sequence[str],
    held_out: Sequence[LabPrompt],
    seeds: Sequence[int],
    pictures: int = 1,
    device: str = "cpu",
    quiet: bool = False,
) -> list[Row]:
    """Train each arm with each seed, and measure it every `config.sample_every` steps.

    Args:
        pipeline: folder of a `StableDiffusionPipeline` of 64 x 64 pixels.
        arms: what to train with; the scorer of the first one judges all of them.
        config: of the trainings; its seed is replaced.
        out: folder for the trainings and `rows.jsonl`; what is in it is not made again.
        train_prompts: to train on.
        held_out: to measure by.
        seeds: of the trainings.
        pictures: of each held-out prompt, of the same noises in every row.
        device: where to run.
        quiet: no progress bars.

    Returns:
        First a row of the pipeline as it is, with arm "base" and step 0; then rows of each arm and
        seed, step by step. Each holds `arm`, `seed`, `step`; the means `reward`, `robust` (over a
        picture and its judging views) and `correct`; and `rewards`, `corrects`, one number for each
        prompt.

    Raises:
        ResumeError: the folder holds rows of other settings.
        ValueError: it holds another training, or one cannot be done.
    """
    ends = [*range(config.sample_every, config.steps, config.sample_every), config.steps]
    jobs: list[Row] = [{"arm": BASE, "seed": 0, "step": 0}]
    jobs += [{"arm": a.name, "seed": s, "step": e} for a in arms for s in seeds for e in ends]
    judge = arms[0].scorer
    out.mkdir(parents=True, exist_ok=True)
    file = PartialFile(out / ROWS_FILE)
    pipe = StableDiffusionPipeline.from_pretrained(pipeline).to(device)
    identity = _identity(pipe, arms, config, train_prompts, held_out, pictures)
    with sole_writer(out, folder=True):
        rows = list(file.resume(identity, iter(jobs)))
        named = {arm.name: arm for arm in arms}
        with file.writing() as write:
            for job in jobs[len(rows) :]:
                name = f"{job['arm']}-{job['seed']}"
                if job["step"]:
                    arm, folder = named[job["arm"]], out / name
                    if not (folder / LORA).exists():
                        finetune(
                            pipe,
                            train_prompts,
                            DifferentiableReward(arm.scorer, vae=pipe.vae, views=arm.views),
                            replace(config, seed=job["seed"]),
                            out=folder,
                            progress=False if quiet else None,
                        )
                        pipe.unload_lora_weights()
                    pipe.load_lora_weights(folder / LORAS / f"step-{job['step']:08d}")
                sheet = out / f"{name}.png" if job["step"] in (0, config.steps) else None
                row = {**job, **_measured(pipe, judge, held_out, config, pictures, sheet, quiet)}
                pipe.unload_lora_weights()
                write(row)
                rows.append(row)
        return rows


def _measured(
    pipe: StableDiffusionPipeline,
    judge: Scorer,
    prompts: Sequence[LabPrompt],
    config: FinetuneConfig,
    pictures: int,
    sheet: Path | None,
    quiet: bool,
) -> Row:
    """Reward and correctness of held-out prompts, and a sheet of the first ones."""
    samples = sample_prompts(
        pipe,
        prompts,
        pictures=pictures,
        steps=config.sampling_steps,
        guidance=config.guidance_scale,
        quiet=quiet,
    )
    if sheet is not None:
        draw_samples(sheet, samples[::pictures][:_SHOWN])
    judged = judge.stream(
        [sample.picture for sample in samples],
        [sample.prompt.prompt for sample in samples],
        views=JUDGING_VIEWS,
        on_error="raise",
        progress=False,
    )
    scores = [scored.view_scores for scored in judged]
    rewards = _by_prompt([views[0] for views in scores], pictures)
    corrects = _by_prompt([float(sample.grade.correct) for sample in samples], pictures)
    return {
        "reward": statistics.fmean(rewards),
        "robust": statistics.fmean(statistics.fmean(views) for views in scores),
        "correct": statistics.fmean(corrects),
        "rewards": rewards,
        "corrects": corrects,
    }


def _by_prompt(values: Sequence[float], pictures: int) -> list[float]:
    """Means over the pictures of each prompt, which follow each other."""
    starts = range(0, len(values), pictures)
    return [statistics.fmean(values[start : start + pictures]) for start in starts]


def _identity(
    pipe: StableDiffusionPipeline,
    arms: Sequence[Arm],
    config: FinetuneConfig,
    train_prompts: Sequence[str],
    held_out: Sequence[LabPrompt],
    pictures: int,
) -> dict[str, object]:
    """Everything that the rows depend on."""
    values = {k: v for k, v in config.exact_values().items() if k != "seed"}
    return {
        "pipeline": part_digests(pipe.components),
        "arms": {arm.name: [weights_digest(arm.scorer), arm.views] for arm in arms},
        "config": values,
        "train_prompts": list(train_prompts),
        "held_out": [prompt.prompt for prompt in held_out],
        "pictures": pictures,
    }
