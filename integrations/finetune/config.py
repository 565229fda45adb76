"""What a fine-tuning is made of: one frozen configuration."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any, Final, Literal, final

from stablepref.runtime.fields import check_fields, check_range

Method = Literal["draft", "refl", "ddpo"]
Tracker = Literal["tensorboard", "wandb"]

_POSITIVE: Final = (
    "steps",
    "batch_size",
    "pictures_per_prompt",
    "last_steps",
    "clip_range",
    "updates",
    "rank",
    "learning_rate",
    "max_grad_norm",
    "sampling_steps",
    "height",
    "width",
    "micro_batch_size",
    "samples",
    "pictures_per_sample",
    "monitor_views",
    "sample_every",
    "checkpoint_every",
    "keep_checkpoints",
    "log_every",
)
_NOT_NEGATIVE: Final = ("warmup_steps", "weight_decay", "guidance", "seed")
_PAIR: Final = 2

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
    steps: Annotated[int, "training steps; of ddpo each has several updates"] = 200
    batch_size: Annotated[int, "pictures of a step, over all processes"] = 16
    pictures_per_prompt: Annotated[
        int | None, "pictures of each prompt in a step; if none 1, and 4 for ddpo"
    ] = None
    last_steps: Annotated[
        int,
        "draft: sampling steps with a gradient, counted from the end (K); refl: one of so many "
        "last steps, at random",
    ] = 1
    margin: Annotated[
        float | None, "draft and refl: no gradient from rewards above this, as in ReFL"
    ] = None
    eta: Annotated[float, "ddpo: noise of DDIM's steps, above 0, to 1"] = 1.0
    clip_range: Annotated[float, "ddpo: bound of the importance ratio (ddpo-pytorch's)"] = 1e-4
    updates: Annotated[int, "ddpo: optimiser steps on each step's pictures"] = 2
    rank: Annotated[int, "rank of the LoRA matrices, on all attention layers"] = 4
    learning_rate: Annotated[float, "AdamW's, constant after the warm-up (ddpo-pytorch's)"] = 3e-4
    warmup_steps: Annotated[int, "steps over which the learning rate first rises"] = 0
    weight_decay: Annotated[float, "AdamW's (ddpo-pytorch's)"] = 1e-4
    max_grad_norm: Annotated[float, "clip the gradient's norm (ddpo-pytorch's)"] = 1.0
    sampling_steps: Annotated[int, "denoising steps of a picture"] = 50
    guidance: Annotated[float, "scale of classifier-free guidance; 1 or less for none"] = 7.5
    negative_prompt: Annotated[str | None, "what not to make"] = None
    height: Annotated[int | None, "of the pictures, in pixels; the pipeline's if none"] = None
    width: Annotated[int | None, "of the pictures, in pixels; the pipeline's if none"] = None
    micro_batch_size: Annotated[
        int | None, "pictures made at once by each process; all of its share if none"
    ] = None
    gradient_checkpointing: Annotated[
        bool, "compute the denoiser again in the backward pass, for less memory"
    ] = True
    seed: Annotated[int, "of the first weights, the prompts' order and all noise"] = 0
    samples: Annotated[int, "prompts that are watched, the first ones"] = 8
    pictures_per_sample: Annotated[int, "pictures of each prompt that is watched"] = 2
    monitor_views: Annotated[int, "weak views of each, to see the gap"] = 8
    sample_every: Annotated[int, "steps between sheets of samples with the LoRA of then"] = 20
    checkpoint_every: Annotated[int, "steps between checkpoints"] = 10
    keep_checkpoints: Annotated[int, "checkpoints kept"] = 2
    log_every: Annotated[int, "steps between rows of metrics.jsonl"] = 1
    log_with: Annotated[Tracker | None, "also log with tensorboard or wandb"] = None

    def __post_init__(self) -> None:
        """Check every value, and those that depend on each other."""
        check_fields(self)
        check_range(self, _POSITIVE, "more than 0", lambda value: value > 0)
        check_range(self, _NOT_NEGATIVE, "0 or more", lambda value: value >= 0)
        if self.last_steps > self.sampling_steps:
            raise ValueError(
                f"last_steps is {self.last_steps} of {self.sampling_steps} sampling_steps; "
                "expected no more"
            )
        if not 0 < self.eta <= 1:
            raise ValueError(f"eta is {self.eta}; expected more than 0, and 1 or less")
        if self.batch_size % self.group:
            raise ValueError(
                f"batch_size is {self.batch_size}; expected a multiple of the {self.group} "
                "pictures_per_prompt"
            )
        if self.method == "ddpo" and self.group < _PAIR:
            raise ValueError(
                f"pictures_per_prompt is {self.group}; ddpo compares the pictures of a prompt and "
                f"needs {_PAIR} or more"
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
