"""Everything that decides a fine-tuning: one frozen configuration, flat for its users."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any, Final, Literal, final

from pydantic import Field

from stablepref.runtime.fields import NOT_NEGATIVE, POSITIVE, check_fields
from stablepref.training.schedule import LRScheduler, learning_rate_at

from .method_settings import (
    AdvantageSettings,
    BackpropSettings,
    DdpoSettings,
    DpoSettings,
    GrpoSettings,
    NftSettings,
)

Method = Literal["draft", "refl", "ddpo", "nft", "grpo", "dpo"]
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

GROUPS: Final = {"ddpo": 4, "nft": 8, "grpo": 8}
"""Pictures of each prompt in a step, for methods that compare them."""
UPDATES: Final = {"ddpo": 2}
EMA: Final = {"nft": 0.9, "grpo": 0.9}


@dataclass(frozen=True, kw_only=True)
class _RunSettings:
    """What every method has."""

    method: Annotated[
        Method,
        "draft back-propagates through the last sampling steps (Clark et al. 2023), refl through "
        "one of them (Xu et al. 2023), ddpo is a policy gradient (Black et al. 2023), nft "
        "contrasts what it drew well and badly (DiffusionNFT, Zheng et al. 2025), grpo is a policy "
        "gradient within groups, also for flow matching (Flow-GRPO, Liu et al. 2025), dpo trains "
        "on ranked pictures (Diffusion-DPO, Wallace et al. 2023)",
    ] = "draft"
    steps: Annotated[int, "training steps; of ddpo each has several updates", POSITIVE] = 200
    batch_size: Annotated[int, "pictures of a step (of dpo: pairs), in all processes", POSITIVE] = (
        16
    )
    pictures_per_prompt: Annotated[
        int | None,
        "pictures of each prompt in a step; if none 1, 4 for ddpo, 8 for nft and grpo",
        POSITIVE,
    ] = None
    rank: Annotated[
        int, "rank of the LoRA matrices, on all attention layers; 0 trains all weights",
        NOT_NEGATIVE,
    ] = 4  # fmt: skip
    lora_alpha: Annotated[
        int | None, "LoRA's alpha: the matrices' product counts alpha / rank times; rank if none",
        POSITIVE,
    ] = None  # fmt: skip
    learning_rate: Annotated[float, "AdamW's, after the warm-up (ddpo-pytorch's)", POSITIVE] = 3e-4
    lr_scheduler: Annotated[
        LRScheduler,
        "how the learning rate goes on after the warm-up: constant, or down to 0 over all steps, "
        "in a line or a cosine (the names are diffusers')",
    ] = "constant"
    warmup_steps: Annotated[int, "steps over which the learning rate first rises", NOT_NEGATIVE] = 0
    weight_decay: Annotated[float, "AdamW's (ddpo-pytorch's)", NOT_NEGATIVE] = 1e-4
    max_grad_norm: Annotated[float, "clip the gradient's norm (ddpo-pytorch's)", POSITIVE] = 1.0
    ema: Annotated[
        float | None,
        "decay, at each step, of the averaged weights that samples are drawn with and that are "
        "saved; 0 for none; if none 0, and 0.9 for nft and grpo (their codes')",
        Field(ge=0, lt=1),
    ] = None
    sampling_steps: Annotated[int, "denoising steps of a picture to train on", POSITIVE] = 50
    guidance: Annotated[
        float | None,
        "scale of guidance, as the pipeline's call takes it; if none the default of that call, "
        "but where guidance is not embedded in the model none for nft, and for grpo 4.5, counted "
        "from 1 for none (their papers')",
        NOT_NEGATIVE,
    ] = None
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
    sample_steps: Annotated[
        int | None, "denoising steps of monitored pictures; sampling_steps if none", POSITIVE
    ] = None
    sample_guidance: Annotated[
        float | None, "guidance of monitored pictures; that of the training if none", NOT_NEGATIVE
    ] = None
    monitor_views: Annotated[
        int, "weak views of each monitored picture, to measure the gap", POSITIVE
    ] = 8
    sample_every: Annotated[
        int,
        "steps between sheets of samples, each with its weights",
        POSITIVE,
    ] = 20
    checkpoint_every: Annotated[int, "steps between checkpoints", POSITIVE] = 10
    keep_checkpoints: Annotated[int, "checkpoints kept", POSITIVE] = 2
    log_every: Annotated[int, "steps between rows of metrics.jsonl", POSITIVE] = 1
    log_with: Annotated[Tracker | None, "also log with tensorboard or wandb"] = None


@final
@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(
    DpoSettings,
    GrpoSettings,
    NftSettings,
    DdpoSettings,
    AdvantageSettings,
    BackpropSettings,
    _RunSettings,
):
    """Everything that decides a fine-tuning but the pipeline, the prompts and the reward.

    Each field's annotation says what it means; those of one method stand in
    `method_settings`. A training that is run again may change those of `FREE`; more `steps` make
    it longer, unless the learning rate falls over them. Defaults are this package's choice; where
    a paper or its code gives a value that is kept, the annotation names it.

    Raises:
        ValueError: A value is of a wrong type or out of range, or two do not go together.
    """

    def __post_init__(self) -> None:
        """Check every value, and those that depend on each other."""
        check_fields(self)
        self.check_last_steps(self.sampling_steps)
        self.check_timesteps(self.sampling_steps)
        self.check_guard()
        if self.batch_size % self.group:
            raise ValueError(
                f"batch_size is {self.batch_size}; expected a multiple of the {self.group} "
                "pictures_per_prompt"
            )
        if self.method in GROUPS and self.group < 2:
            raise ValueError(
                f"pictures_per_prompt is {self.group}; {self.method} compares the pictures of a "
                f"prompt and needs 2 or more"
            )
        if self.rank == 0 and self.lora_alpha is not None:
            raise ValueError(
                f"lora_alpha is {self.lora_alpha} and rank is 0, which trains all weights without "
                "LoRA; leave it out"
            )

    @property
    def group(self) -> int:
        """Pictures of each prompt in a step."""
        return self.pictures_per_prompt or GROUPS.get(self.method, 1)

    @property
    def update_count(self) -> int:
        """Optimiser steps on the pictures of a step."""
        return self.updates or UPDATES.get(self.method, 1)

    @property
    def ema_decay(self) -> float:
        """Of the averaged weights; 0 without them."""
        return EMA.get(self.method, 0.0) if self.ema is None else self.ema

    @property
    def mixed_precision(self) -> Literal["no"]:
        """No autocast: the pipeline computes in its own number type, the LoRA in float32."""
        return "no"

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        return learning_rate_at(
            step,
            peak=self.learning_rate,
            steps=self.steps,
            warmup_steps=self.warmup_steps,
            scheduler=self.lr_scheduler,
        )

    def exact_values(self) -> dict[str, Any]:
        """The fields that the weights after a step depend on.

        The number of steps is one of them where the learning rate falls over all of them.
        """
        free = FREE | {"lr_scheduler"} if self.lr_scheduler == "constant" else FREE - {"steps"}
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in free}
