"""A short fine-tuning for the demonstration: prompts that it never saw, before and after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

import numpy as np
from PIL import Image

from stablepref.integrations.diffusion.sampling import SamplingLoop
from stablepref.integrations.finetune.config import FinetuneConfig
from stablepref.integrations.finetune.run import check_trainable, finetune, guidance_of
from stablepref.integrations.reward import DifferentiableReward

from ..shapes.pipeline.sampling import Sample, sample_prompts
from ..shapes.studies.finetune_runs import put_back
from ..shapes.world.accuracy import Accuracy, with_interval
from ..shapes.world.drawing import IMAGE_SIZE
from ..shapes.world.prompts import lab_prompts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from stablepref.scorer import Scorer

    from ..shapes.world.prompts import LabPrompt

TRAINING: Final = "finetune"
"""The folder of the training in a demonstration's folder."""
DENOISING: Final = 3
"""Denoising steps, before the training, in it and after it; guidance is off."""
STEPS: Final = 24
TRAIN_PER_CATEGORY: Final = 60
"""Prompts of each category that are trained on."""
PER_CATEGORY: Final = 20
"""Test prompts of each category that it is measured on."""
PICTURES: Final = 2
"""Of each test prompt."""


@final
@dataclass(frozen=True)
class Tuned:
    """A fine-tuning, and pictures of the same prompts and noise before and after it.

    Attributes:
        config: Of the training.
        prompts: How many were trained on.
        weights: Folder of the trained denoiser.
        before: Pictures of the test prompts, none of which was trained on; those of a prompt in a
            row.
        after: The same prompts and noise, drawn by the trained pipeline.
        scores: Mean score of either.
        correct: Share that is fully correct by the oracle, of either.
        gain: The difference of the shares.
        signs: What in the training's samples looks like reward hacking, in words.
    """

    config: FinetuneConfig
    prompts: int
    weights: Path
    before: Sequence[Sample]
    after: Sequence[Sample]
    scores: tuple[float, float]
    correct: tuple[Accuracy, Accuracy]
    gain: Accuracy
    signs: Sequence[str]

    @property
    def pictures(self) -> int:
        """How many were drawn to train on."""
        return self.config.steps * self.config.batch_size

    @property
    def shown(self) -> list[tuple[Sample, Sample]]:
        """The first picture of every fifth test prompt, before and after: chosen by no result."""
        return list(zip(self.before, self.after, strict=True))[:: 5 * PICTURES]

    def row(self) -> dict[str, object]:
        """All numbers, plain JSON values."""
        return {
            "steps": self.config.steps,
            "pictures": self.pictures,
            "train_prompts": self.prompts,
            "denoising_steps": self.config.sampling_steps,
            "weights": str(self.weights),
            "scores": self.scores,
            "correct": [vars(one) for one in self.correct],
            "gain": vars(self.gain),
            "prompts": [sample.prompt.prompt for sample in self.before[::PICTURES]],
            "before": [sample.grade.correct for sample in self.before],
            "after": [sample.grade.correct for sample in self.after],
            "signs": list(self.signs),
        }


def short_config(*, seed: int) -> FinetuneConfig:
    """The demonstration's fine-tuning: DRaFT (Clark et al. 2023) through all of a few steps.

    What few steps leave blurred or wrong is what a reward's gradient mends soonest; its length and
    rate are a choice for minutes.

    Args:
        seed: Of the prompts' order and all noise.

    Raises:
        ValueError: The seed is negative.
    """
    return FinetuneConfig(
        method="draft",
        steps=STEPS,
        batch_size=32,
        rank=0,
        learning_rate=2e-4,
        sampling_steps=DENOISING,
        last_steps=DENOISING,
        guidance=1.0,
        gradient_checkpointing=False,
        seed=seed,
        samples=4,
        pictures_per_sample=2,
        sample_every=STEPS,
        checkpoint_every=6,
    )


def check_finetuning(pipe: Any, scorer: Scorer, config: FinetuneConfig) -> None:  # noqa: ANN401 (diffusers has no types)
    """Refuse what cannot be fine-tuned, or not with this reward, before candidates are made.

    Raises:
        TypeError: The pipeline is of another kind.
        ValueError: It, or its scheduler, is not supported, or it draws pictures of another size
            than the laboratory's; or the scorer has no gradient.
    """
    if scorer.joint:
        msg = (
            f"{scorer.name} has no gradient, which the demonstration's fine-tuning needs; give "
            "another scorer, such as 'shapes'"
        )
        raise ValueError(msg)
    loop = SamplingLoop(pipe, steps=config.sampling_steps, guidance=guidance_of(pipe, config))
    check_trainable(pipe, config)
    height, width = loop.size
    if (height, width) != (IMAGE_SIZE, IMAGE_SIZE):
        msg = (
            "the demonstration fine-tunes pipelines that draw the laboratory's pictures of "
            f"{IMAGE_SIZE} x {IMAGE_SIZE} pixels; this {type(pipe).__name__} draws {width} x "
            f"{height}: fine-tune it with `stablepref finetune`, on prompts of your own"
        )
        raise ValueError(msg)


def tune(
    pipe: Any,  # noqa: ANN401 (as above)
    scorer: Scorer,
    config: FinetuneConfig,
    *,
    out: Path,
    progress: bool | None = None,
) -> Tuned:
    """Fine-tune a pipeline on prompts of the laboratory, and measure it on others.

    After an interruption the same call resumes. The pipeline draws as before when it ends.

    Args:
        pipe: Draws the laboratory's pictures.
        scorer: The reward.
        config: Of `short_config`.
        out: The demonstration's folder.
        progress: As in `finetune`.

    Raises:
        ValueError: As `finetune`.
    """
    prompts = [one.prompt for one in lab_prompts("train", per_category=TRAIN_PER_CATEGORY)]
    tests = lab_prompts("test", per_category=PER_CATEGORY)
    before = _drawn(pipe, tests, config)
    with put_back(pipe, config):
        reward = DifferentiableReward(scorer, vae=pipe.vae)
        result = finetune(pipe, prompts, reward, config, out=out / TRAINING, progress=progress)
        after = _drawn(pipe, tests, config)
    assert result.denoiser is not None, "the demonstration trains all weights"
    first, last = ([float(sample.grade.correct) for sample in one] for one in (before, after))
    differences = [late - early for early, late in zip(first, last, strict=True)]
    return Tuned(
        config,
        len(prompts),
        result.denoiser,
        before,
        after,
        (_mean_score(scorer, before), _mean_score(scorer, after)),
        (with_interval(_by_prompt(first)), with_interval(_by_prompt(last))),
        with_interval(_by_prompt(differences)),
        result.signs,
    )


def _drawn(pipe: Any, prompts: Sequence[LabPrompt], config: FinetuneConfig) -> list[Sample]:  # noqa: ANN401 (as above)
    return sample_prompts(
        pipe,
        prompts,
        pictures=PICTURES,
        steps=config.sampling_steps,
        guidance=guidance_of(pipe, config),
        seed=config.seed,
        quiet=True,
    )


def _by_prompt(values: Sequence[float]) -> list[Sequence[float]]:
    return [values[start : start + PICTURES] for start in range(0, len(values), PICTURES)]


def _mean_score(scorer: Scorer, samples: Sequence[Sample]) -> float:
    pictures = [Image.fromarray(sample.picture) for sample in samples]
    prompts = [sample.prompt.prompt for sample in samples]
    return float(np.mean(scorer.score(pictures, prompts, progress=False).tolist()))
