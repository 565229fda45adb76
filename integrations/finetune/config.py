"""Everything that decides a fine-tuning: one frozen configuration."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any, Final, Literal, final

from pydantic import Field

from stablepref.runtime.fields import NOT_NEGATIVE, POSITIVE, check_fields

Method = Literal["draft", "refl", "ddpo"]
Tracker = Literal["tensorboard", "wandb"]

FREE: Final = frozenset(
    (
        "steps",
        "micro_batch_size",
        "gradient_checkpointing",
        "sample_every",
        "checkpoint_every",
        "keep_checkpoints",
        "log_every",
        "log_with",
    )
)
"""Fields that do not decide the weights after a given step, up to rounding."""


@final
@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Everything that decides a fine-tuning but the pipeline, the prompts and the reward.

    Each field's annotation says what it means. A training that is run again may change those of
    `FREE`; more `steps` make it longer. Defaults are this package's choice; where a paper or its
    code gives a value that is kept, the annotation names it.

    Raises:
        ValueError: A value is of a wrong type or out of range, or two do not go together.
    """

    method: Annotated[
        Method,
        "draft back-propagates through the last sampling steps (Clark et al. 2023), refl through "
        "one of them (Xu et al. 2023), ddpo is a policy gradient (Black et al. 2023)",
    ] = "draft"
    steps: Annotated[int, "training steps; of ddpo each has several updates", POSITIVE] = 200
    batch_size: Annotated[int, "pictures of a step, over all processes", POSITIVE] = 16
    pictures_per_prompt: Annotated[
        int | None, "pictures of each prompt in a step; if none 1, and 4 for ddpo", POSITIVE
    ] = None
    last_steps: Annotated[
        int,
        "draft: sampling steps with a gradient, counted from the end (K); refl: one of "
        "that many last steps, at random",
        POSITIVE,
    ] = 1
    margin: Annotated[
        float | None, "draft and refl: no gradient from rewards above this, as in ReFL"
    ] = None
    eta: Annotated[float, "ddpo: noise of DDIM's steps, above 0, to 1", Field(gt=0, le=1)] = 1.0
    clip_range: Annotated[
        float,
        "ddpo: bound of the importance ratio (ddpo-pytorch's)",
        POSITIVE,
    ] = 1e-4
    updates: Annotated[int, "ddpo: optimiser steps on each step's pictures", POSITIVE] = 2
    rank: Annotated[int, "rank of the LoRA matrices, on all attention layers", POSITIVE] = 4
    learning_rate: Annotated[
        float, "AdamW's, constant after the warm-up (ddpo-pytorch's)", POSITIVE
    ] = 3e-4
    warmup_steps: Annotated[int, "steps over which the learning rate first rises", NOT_NEGATIVE] = 0
    weight_decay: Annotated[float, "AdamW's (ddpo-pytorch's)", NOT_NEGATIVE] = 1e-4
    max_grad_norm: Annotated[float, "clip the gradient's norm (ddpo-pytorch's)", POSITIVE] = 1.0
    sampling_steps: Annotated[int, "denoising steps of a picture", POSITIVE] = 50
    guidance: Annotated[
        float, "scale of classifier-free guidance; 1 or less for none", NOT_NEGATIVE
    ] = 7.5
    negative_prompt: Annotated[str | None, "what the pictures should not show"] = None
    height: Annotated[
        int | None,
        "of the pictures, in pixels; the pipeline's if none",
        POSITIVE,
    ] = None
    width: Annotated[int | None, "of the pictures, in pixels; the pipeline's if none", POSITIVE] = (
        None
    )
    micro_batch_size: Annotated[
        int | None, "pictures made at once by each process; all of its share if none", POSITIVE
    ] = None
    gradient_checkpointing: Annotated[
        bool, "compute the denoiser again in the backward pass, for less memory"
    ] = True
    seed: Annotated[int, "of the first weights, the prompts' order and all noise", NOT_NEGATIVE] = 0
    samples: Annotated[int, "prompts whose pictures are monitored, from the first", POSITIVE] = 8
    pictures_per_sample: Annotated[int, "pictures of each monitored prompt", POSITIVE] = 2
    monitor_views: Annotated[
        int, "weak views of each monitored picture, to measure the gap", POSITIVE
    ] = 8
    sample_every: Annotated[
        int,
        "steps between sheets of samples, each with its LoRA",
        POSITIVE,
    ] = 20
    checkpoint_every: Annotated[int, "steps between checkpoints", POSITIVE] = 10
    keep_checkpoints: Annotated[int, "checkpoints kept", POSITIVE] = 2
    log_every: Annotated[int, "steps between rows of metrics.jsonl", POSITIVE] = 1
    log_with: Annotated[Tracker | None, "also log with tensorboard or wandb"] = None

    def __post_init__(self) -> None:
        """Check every value, and those that depend on each other."""
        check_fields(self)
        if self.last_steps > self.sampling_steps:
            raise ValueError(
                f"last_steps is {self.last_steps} of {self.sampling_steps} sampling_steps; "
                "expected no more"
            )
        if self.batch_size % self.group:
            raise ValueError(
                f"batch_size is {self.batch_size}; expected a multiple of the {self.group} "
                "pictures_per_prompt"
            )
        if self.method == "ddpo" and self.group < 2:
            raise ValueError(
                f"pictures_per_prompt is {self.group}; ddpo compares the pictures of a prompt and "
                f"needs 2 or more"
            )

    @property
    def group(self) -> int:
        """Pictures of each prompt in a step."""
        if self.pictures_per_prompt is not None:
            return self.pictures_per_prompt
        return 4 if self.method == "ddpo" else 1

    @property
    def mixed_precision(self) -> Literal["no"]:
        """No autocast: the pipeline computes in its own number type, the LoRA in float32."""
        return "no"

    def exact_values(self) -> dict[str, Any]:
        """The fields that the weights after a step depend on."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in FREE}
