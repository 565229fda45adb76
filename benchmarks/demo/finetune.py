"""A short fine-tuning for the demonstration: the same seeds before and after it."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

from stablepref.integrations.best_of_n.choose import best_of_n
from stablepref.integrations.diffusion.sampling import SamplingLoop
from stablepref.integrations.finetune.config import FinetuneConfig
from stablepref.integrations.finetune.lora import remove_lora
from stablepref.integrations.finetune.run import check_trainable, finetune
from stablepref.integrations.reward import DifferentiableReward

from .truth import Truth, judged

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from stablepref.integrations.best_of_n.folder import Candidate
    from stablepref.integrations.best_of_n.selection import Selection
    from stablepref.scorer import Scorer

    from ..bench.judges import OracleJudge

TRAINING: Final = "finetune"
"""The folder of the training in a demonstration's folder."""
AFTER: Final = "finetuned"
"""The folder of the pictures after it."""
PAIRS: Final = 16
"""Most pictures that are made again after it."""
VIEWS: Final = 2
"""Weak views of the robust reward."""
STEPS: Final = 24


@final
@dataclass(frozen=True)
class Tuned:
    """A fine-tuning, and pictures of the same noise before and after it.

    Attributes:
        steps: Training steps.
        lora: Folder for `pipe.load_lora_weights(lora)`.
        pairs: The demonstration's first candidates, each with what its noise became after it,
            where both have a score; at least one.
        after: All that was made after it.
        truth: Of those.
        correct: How many of the pairs are correct before and after; None where it is not known.
        signs: What in the training's samples looks like reward hacking, in words.
    """

    steps: int
    lora: Path
    pairs: Sequence[tuple[Candidate, Candidate]]
    after: Selection
    truth: Truth
    correct: tuple[int, int] | None
    signs: Sequence[str]

    @property
    def rewards(self) -> tuple[float, float]:
        """Mean scores of the pairs, before and after."""
        first, last = zip(*((b.score, a.score) for b, a in self.pairs), strict=True)
        return statistics.fmean(first), statistics.fmean(last)


def short_config(*, steps: int, guidance: float, seed: int) -> FinetuneConfig:
    """The demonstration's fine-tuning: DRaFT-1 (Clark et al. 2023) on a robust reward.

    Its length and rate are a choice for minutes, not for the best result.

    Args:
        steps: Denoising steps of a picture.
        guidance: Scale of classifier-free guidance.
        seed: Of first weights and noise.

    Raises:
        ValueError: A value is out of range.
    """
    return FinetuneConfig(
        method="draft",
        steps=STEPS,
        batch_size=8,
        learning_rate=1e-3,
        sampling_steps=steps,
        guidance=guidance,
        seed=seed,
        samples=1,
        pictures_per_sample=4,
        sample_every=STEPS,
        checkpoint_every=6,
    )


def check_finetuning(pipe: Any, config: FinetuneConfig) -> None:  # noqa: ANN401 (diffusers has no types)
    """Refuse a pipeline that cannot be fine-tuned, before candidates are made.

    Raises:
        TypeError: It is another kind of pipeline.
        ValueError: It, or its scheduler, is not supported.
    """
    SamplingLoop(pipe, steps=config.sampling_steps, guidance=config.guidance_scale)
    check_trainable(pipe, config)


def tune(
    pipe: Any,  # noqa: ANN401 (as above)
    selection: Selection,
    truth: Truth,
    scorer: Scorer,
    config: FinetuneConfig,
    oracle: OracleJudge,
    *,
    out: Path,
    progress: bool | None = None,
) -> Tuned:
    """Fine-tune a pipeline on a selection's prompt, and make its first candidates again.

    After an interruption the same call resumes. The pipeline draws as before when it ends.

    Args:
        pipe: The pipeline that made the candidates.
        selection: Of all candidates, in order of their seeds.
        truth: Of them.
        scorer: The reward.
        config: Of `short_config`.
        oracle: Judges the pictures.
        out: The demonstration's folder.
        progress: As in `finetune`.

    Raises:
        ImportError: peft is not installed.
        ValueError: As `finetune` and `best_of_n`, or no noise has a score before and after.
    """
    prompt, before = selection.prompt, selection.candidates[:PAIRS]
    reward = DifferentiableReward(scorer, vae=pipe.vae, views=VIEWS)
    result = finetune(pipe, [prompt], reward, config, out=out / TRAINING, progress=progress)
    try:
        after = best_of_n(
            pipe,
            prompt,
            scorer,
            len(before),
            seed=before[0].seed,
            out=out / AFTER,
            progress=progress,
            num_inference_steps=config.sampling_steps,
            guidance_scale=config.guidance_scale,
        )
    finally:
        remove_lora(pipe)
    pictures = ((c.index, after.picture(c)) for c in after.candidates if c.score is not None)
    later = judged(oracle, prompt, pictures)
    pairs = [
        (first, last)
        for first, last in zip(before, after.candidates, strict=True)
        if first.score is not None and last.score is not None
    ]
    if not pairs:
        msg = f"of {len(before)} seeds none has a score before and after fine-tuning"
        raise ValueError(msg)
    paired = [first.index for first, _ in pairs]
    was, now = truth.count(paired), later.count(paired)
    correct = None if was is None or now is None else (was, now)
    assert result.lora is not None, "the demonstration trains LoRA matrices"
    return Tuned(config.steps, result.lora, pairs, after, later, correct, result.signs)
