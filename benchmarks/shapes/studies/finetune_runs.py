"""Fine-tunings of the laboratory's pipeline, measured on held-out prompts at intervals."""

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffusers import StableDiffusionPipeline
from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE

from stablepref.data.groups import RankedGroup
from stablepref.integrations.diffusion.denoiser import denoiser_of
from stablepref.integrations.diffusion.described import pipeline_digests
from stablepref.integrations.diffusion.pipelines import unwrapped
from stablepref.integrations.finetune.config import FinetuneConfig
from stablepref.integrations.finetune.loop import DENOISERS, LORAS, REPORT_FILE
from stablepref.integrations.finetune.run import finetune
from stablepref.integrations.reward import DifferentiableReward
from stablepref.scorer import Scorer
from stablepref.training.pairs import fingerprint
from stablepref.weights.fingerprint import weights_digest

from ..pipeline.parts import open_pipeline
from ..pipeline.sampling import draw_samples, sample_prompts
from ..world.prompts import LabPrompt
from .resumed import Row, resumed_rows

BASE = "base"
"""The arm of the pipeline before any training."""
JUDGING_VIEWS = 8
"""Weak views that pictures are judged by."""
ROWS_FILE = "rows.jsonl"
_SHOWN = 60  # pictures of a sheet


@dataclass(frozen=True)
class Arm:
    """A reward to train with, or ranked groups.

    Attributes:
        name: of the arm.
        scorer: the reward model; with groups it only measures samples.
        views: weak views of each picture, in addition to it.
        config: of its trainings; the seed is replaced.
        groups: to train on in place of prompts, for the method "dpo".
    """

    name: str
    scorer: Scorer
    views: int
    config: FinetuneConfig
    groups: Sequence[RankedGroup] = ()

    def ends(self) -> list[int]:
        """The steps after which it is measured."""
        return [
            *range(self.config.sample_every, self.config.steps, self.config.sample_every),
            self.config.steps,
        ]


@dataclass(frozen=True)
class HeldOut:
    """What trainings are measured by, at intervals.

    Attributes:
        prompts: to draw; none of them is trained on.
        judge: scores the pictures, whatever the reward is.
        steps: denoising steps of a picture.
        guidance: scale of classifier-free guidance.
        pictures: of each prompt, of the same noises in every row.
    """

    prompts: Sequence[LabPrompt]
    judge: Scorer
    steps: int
    guidance: float
    pictures: int = 1


def study_rows(
    pipeline: Path,
    arms: Sequence[Arm],
    out: Path,
    *,
    train_prompts: Sequence[str],
    held_out: HeldOut,
    seeds: Sequence[int],
    device: str = "cpu",
    quiet: bool = False,
) -> list[Row]:
    """Train each arm with each seed, and measure it every `config.sample_every` steps.

    Args:
        pipeline: folder of a `StableDiffusionPipeline` of 64 x 64 pixels.
        arms: what to train with.
        out: folder for the trainings and `rows.jsonl`; what is in it is not made again.
        train_prompts: to train on.
        held_out: to measure by.
        seeds: of the trainings.
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
    jobs: list[Row] = [{"arm": BASE, "seed": 0, "step": 0}]
    jobs += [{"arm": a.name, "seed": s, "step": e} for a in arms for s in seeds for e in a.ends()]
    out.mkdir(parents=True, exist_ok=True)
    pipe = open_pipeline(pipeline, device)
    named = {arm.name: arm for arm in arms}

    def made(job: Row) -> Row:
        arm, folder = named.get(job["arm"]), folder_of(out, job)
        last = arm is None or job["step"] == arm.config.steps
        sheet = folder.with_name(f"{folder.name}.png") if last else None
        if arm is None:
            return _measured(pipe, held_out, sheet, quiet)
        _train(pipe, arm, job["seed"], train_prompts, folder, quiet)
        with trained(pipe, folder, job["step"], arm.config):
            return _measured(pipe, held_out, sheet, quiet)

    identity = _identity(pipe, arms, train_prompts, held_out)
    return resumed_rows(out / ROWS_FILE, identity, jobs, made)


def folder_of(out: Path, row: Mapping[str, Any]) -> Path:
    """The folder of a row's training in a study's folder."""
    return out / f"{row['arm']}-{row['seed']}"


def by_training(
    rows: Sequence[Mapping[str, Any]],
) -> tuple[Mapping[str, Any], dict[tuple[str, int], list[Mapping[str, Any]]]]:
    """The row of the pipeline before any training, and the others by arm and seed.

    Args:
        rows: as `study_rows` gives them.
    """
    base, *others = rows
    assert base["arm"] == BASE
    runs: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for row in others:
        runs.setdefault((row["arm"], row["seed"]), []).append(row)
    return base, runs


def signs_of(out: Path, rows: Sequence[Row]) -> dict[str, list[str]]:
    """What each training's monitor took for reward hacking at its end, by the name of its folder.

    Args:
        out: the study's folder.
        rows: as `study_rows` gives them.
    """
    folders = dict.fromkeys(folder_of(out, row) for row in rows if row["arm"] != BASE)
    return {
        folder.name: json.loads((folder / REPORT_FILE).read_text(encoding="utf-8"))["signs"]
        for folder in folders
    }


def _train(
    pipe: StableDiffusionPipeline,
    arm: Arm,
    seed: int,
    prompts: Sequence[str],
    folder: Path,
    quiet: bool,
) -> None:
    """Do what is missing of a training; afterwards the pipeline is as before."""
    if (folder / REPORT_FILE).exists():  # it is written last
        return
    apart = max(1, len(prompts) // arm.config.samples)
    with put_back(pipe, arm.config):
        finetune(
            pipe,
            None if arm.groups else prompts,
            DifferentiableReward(arm.scorer, vae=pipe.vae, views=arm.views),
            replace(arm.config, seed=seed),
            out=folder,
            # Prompts may come category by category: some of all.
            sample_prompts=None if arm.groups else prompts[::apart],
            groups=arm.groups or None,
            progress=False if quiet else None,
        )


@contextmanager
def trained(
    pipe: StableDiffusionPipeline, folder: Path, step: int, config: FinetuneConfig
) -> Iterator[None]:
    """Within, the pipeline draws with the weights of a training after a step.

    Args:
        pipe: the pipeline that was trained.
        folder: of the training.
        step: one at which samples were made.
        config: of the training.
    """
    name = f"step-{step:08d}"
    with put_back(pipe, config):
        if config.rank:
            pipe.load_lora_weights(folder / LORAS / name, weight_name=LORA_WEIGHT_NAME_SAFE)
        else:
            unet = type(pipe.unet).from_pretrained(folder / DENOISERS / name)
            pipe.unet.load_state_dict(unet.state_dict())
        yield


@contextmanager
def put_back(pipe: Any, config: FinetuneConfig) -> Iterator[None]:  # noqa: ANN401 (diffusers has no types)
    """Afterwards, also after an error, the pipeline draws as before, without LoRA matrices."""
    denoiser = unwrapped(denoiser_of(pipe))
    weights = {} if config.rank else denoiser.state_dict()
    before = {name: value.clone() for name, value in weights.items()}
    try:
        yield
    finally:
        if config.rank:
            pipe.unload_lora_weights()
        else:
            denoiser.load_state_dict(before)


def _measured(
    pipe: StableDiffusionPipeline, held_out: HeldOut, sheet: Path | None, quiet: bool
) -> Row:
    """Reward and correctness of held-out prompts, and a sheet of the first ones."""
    pictures = held_out.pictures
    samples = sample_prompts(
        pipe,
        held_out.prompts,
        pictures=pictures,
        steps=held_out.steps,
        guidance=held_out.guidance,
        quiet=quiet,
    )
    if sheet is not None:
        draw_samples(sheet, samples[::pictures][:_SHOWN])
    judged = held_out.judge.stream(
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
    train_prompts: Sequence[str],
    held_out: HeldOut,
) -> dict[str, object]:
    """Everything that the rows depend on."""
    return {
        "pipeline": pipeline_digests(pipe),
        "arms": {
            arm.name: {
                "reward": weights_digest(arm.scorer),
                "views": arm.views,
                "config": {k: v for k, v in arm.config.exact_values().items() if k != "seed"},
                **({"groups": fingerprint(arm.groups)} if arm.groups else {}),
            }
            for arm in arms
        },
        "train_prompts": list(train_prompts),
        "held_out": [prompt.prompt for prompt in held_out.prompts],
        "judge": weights_digest(held_out.judge),
        "drawn": [held_out.steps, held_out.guidance, held_out.pictures],
    }
