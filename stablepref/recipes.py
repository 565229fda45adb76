"""Everything that decides a training: one frozen configuration, and the paper's by name."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, final

from pydantic import Field

from stablepref.models.entry import MAX_LOGIT_SCALE
from stablepref.runtime.fields import NOT_NEGATIVE, POSITIVE, check_fields
from stablepref.runtime.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stablepref.losses import BatchLoss

STABLE_PREFERENCE: Final = "stable-preference"
CROSS_ENTROPY: Final = "cross-entropy"
UNCERTAINTY: Final = "uncertainty"
LOSSES: Final[Registry[BatchLoss | None]] = Registry(
    "loss",
    "stablepref.losses",
    {STABLE_PREFERENCE: None, CROSS_ENTROPY: None, UNCERTAINTY: None},
)
"""Losses that a configuration may name. None stands for those of `stablepref.losses`, which needs
torch; a loss from outside is a function like `batch_objective`."""

Batching = Literal["groups", "pairs"]
Precision = Literal["no", "bf16", "fp16"]
Ties = Literal["drop", "soft"]
Tracker = Literal["tensorboard", "wandb"]
Weighting = Literal["softmax", "uniform", "inverse"]


FREE: Final = frozenset(
    (
        "name",
        "micro_batch_size",
        "activation_checkpointing",
        "compile",
        "validate_every",
        "checkpoint_every",
        "keep_checkpoints",
        "log_every",
        "log_with",
        "workers",
    )
)
"""Fields that do not decide the trained weights."""


@final
@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that decides a training, with the values of *Stable Preference* (section 4.1).

    Each field's annotation says what it means. A resumed training may change those of `FREE`, on
    which the trained weights do not depend, up to rounding.

    Raises:
        ValueError: A value is of a wrong type or out of range, or two do not go together.
    """

    name: Annotated[str, "what the trained model calls itself"] = "stable-preference"
    model: Annotated[str, "model to begin from: a zoo name or a path"] = "clip-vit-h-14"
    loss: Annotated[
        str,
        "stable-preference, cross-entropy, uncertainty (of models that predict it), or the name of "
        "a loss that a package adds",
    ] = STABLE_PREFERENCE
    steps: Annotated[int, "optimiser steps", POSITIVE] = 30_000
    order_steps: Annotated[
        int,
        "steps of step 1, correcting the order, of all steps",
        NOT_NEGATIVE,
    ] = 3_000
    batch_size: Annotated[int, "pairs in the global batch, over all processes", POSITIVE] = 64
    batching: Annotated[
        Batching, "groups keeps the pairs of a prompt together; pairs draws each one anywhere"
    ] = "groups"
    ties: Annotated[
        Ties,
        "soft trains on tied pairs too, with probability one half; not for stable-preference",
    ] = "drop"
    learning_rate: Annotated[float, "peak of the cosine", POSITIVE] = 2e-6
    warmup_steps: Annotated[int, "steps over which the learning rate first rises", NOT_NEGATIVE] = (
        1_500
    )
    weight_decay: Annotated[float, "AdamW's weight decay, on matrices", NOT_NEGATIVE] = 0.2
    beta1: Annotated[float, "AdamW's first decay", Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[
        float, "AdamW's second decay (CLIP's value; the paper gives none)", Field(ge=0, lt=1)
    ] = 0.98
    eps: Annotated[float, "AdamW's epsilon (CLIP's value; the paper gives none)", POSITIVE] = 1e-6
    max_grad_norm: Annotated[float | None, "clip the gradient's norm", POSITIVE] = None
    image_blocks: Annotated[
        int | None, "last image blocks to train; all of the tower if none", NOT_NEGATIVE
    ] = 18
    text_blocks: Annotated[
        int | None, "last text blocks to train; all of the tower if none", NOT_NEGATIVE
    ] = 8
    lora_rank: Annotated[
        int | None,
        "rank of matrices beside the text tower's layers, trained in place of blocks; for "
        "vision-language models",
        POSITIVE,
    ] = None
    train_logit_scale: Annotated[bool, "train the logit scale, clamped to [0, ln 100]"] = True
    logit_scale: Annotated[
        float | None,
        "logit scale to begin with, 1 to 100; the model's own if none",
        Field(ge=1, le=MAX_LOGIT_SCALE),
    ] = None
    anti_interference: Annotated[bool, "add the anti-interference loss"] = True
    views: Annotated[int, "weak views of each image (k), beside the image itself", NOT_NEGATIVE] = 3
    crop_area: Annotated[
        tuple[float, float], "bounds of the part of the area that a view shows"
    ] = (0.85, 1.0)
    crop_ratio: Annotated[
        tuple[float, float] | None, "bounds of a view's aspect ratio; the image's own if none"
    ] = None
    hflip: Annotated[bool, "mirror half of the weak views"] = True
    augment: Annotated[bool, "show a weak view in place of the image itself as well"] = False
    b: Annotated[
        float,
        "margin at which step 1 weights a pair by one half, in score units",
        NOT_NEGATIVE,
    ] = 0.3
    tau: Annotated[float, "width of that transition, in score units", POSITIVE] = 0.2
    margin_weighting: Annotated[Weighting, "step 2: softmax, uniform or inverse"] = "softmax"
    detach_weights: Annotated[bool, "let no gradient through the weights"] = True
    seed: Annotated[int, "decides the order of the pairs and the weak views", NOT_NEGATIVE] = 0
    mixed_precision: Annotated[
        Precision | None,
        "no, bf16 or fp16; none leaves it to accelerate, or else to the device",
    ] = None
    micro_batch_size: Annotated[
        int | None, "images encoded at once by each process; all of its share if none", POSITIVE
    ] = None
    activation_checkpointing: Annotated[
        bool, "compute activations again in the backward pass, for less memory"
    ] = False
    compile: Annotated[bool, "compile the image encoder with torch.compile"] = False
    validate_every: Annotated[
        int | None, "steps between validations; as checkpoint_every if none", POSITIVE
    ] = None
    checkpoint_every: Annotated[int, "steps between checkpoints", POSITIVE] = 500
    keep_checkpoints: Annotated[int, "checkpoints kept", POSITIVE] = 2
    log_every: Annotated[int, "steps between rows of metrics.jsonl", POSITIVE] = 10
    log_with: Annotated[Tracker | None, "also log with tensorboard or wandb"] = None
    workers: Annotated[int, "threads that decode images ahead", NOT_NEGATIVE] = 4

    def __post_init__(self) -> None:
        """Check every value, and those that depend on each other."""
        for name in ("crop_area", "crop_ratio"):
            if isinstance(getattr(self, name), list):  # as JSON gives them
                object.__setattr__(self, name, tuple(getattr(self, name)))
        check_fields(self)
        low, high = self.crop_area
        if not 0 < low <= high <= 1:
            raise ValueError(f"crop_area is {self.crop_area}; expected 0 < low <= high <= 1")
        if self.crop_ratio is not None and not 0 < self.crop_ratio[0] <= self.crop_ratio[1]:
            raise ValueError(f"crop_ratio is {self.crop_ratio}; expected 0 < low <= high")
        too_long = [n for n in ("order_steps", "warmup_steps") if getattr(self, n) > self.steps]
        if too_long:
            listed = " and ".join(f"{name} is {getattr(self, name)}" for name in too_long)
            raise ValueError(f"{listed} of {self.steps} steps; expected no more")
        if self.lora_rank is not None and (self.image_blocks, self.text_blocks) != (0, 0):
            raise ValueError(
                f"lora_rank is {self.lora_rank}, which trains no blocks, and image_blocks is "
                f"{self.image_blocks}, text_blocks {self.text_blocks}; expected 0 for both"
            )
        self._check_loss()

    def _check_loss(self) -> None:
        if self.loss not in LOSSES:
            *names, last = map(repr, LOSSES)
            raise ValueError(f"loss is {self.loss!r}; expected {', '.join(names)} or {last}")
        if self.loss not in LOSSES.builtin:
            return  # what it makes of ties and views is its own affair
        if self.loss == UNCERTAINTY and self.anti_interference:
            raise ValueError(
                "loss='uncertainty' reads the images themselves and has no anti-interference "
                "part; expected anti_interference=False and views=0"
            )
        soft = self.loss in (CROSS_ENTROPY, UNCERTAINTY) and not self.anti_interference
        if self.ties == "soft" and not soft:
            raise ValueError(
                "ties='soft' needs loss='cross-entropy' and anti_interference=False, or "
                "loss='uncertainty': the other built-in losses are defined for pairs with a better "
                "image only"
            )
        if self.views and not self.anti_interference:
            raise ValueError(
                f"views is {self.views}, but without the anti-interference loss nothing would use "
                "them; expected views=0 (augment=True shows weak views in place of the images)"
            )

    def weighting(self, step: int) -> Literal["order", "margin", "none"]:
        """How a built-in loss weights the pairs of a step, from 0.

        Returns:
            "order" in step 1 of *Stable Preference* (equation 7), "margin" in its step 2
            (equation 8), "none" for cross-entropy.
        """
        if self.loss != STABLE_PREFERENCE:
            return "none"
        return "order" if step < self.order_steps else "margin"

    def exact_values(self) -> dict[str, Any]:
        """The fields that the trained weights depend on."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in FREE}


_CROSS_ENTROPY: Final[Mapping[str, Any]] = {
    "loss": CROSS_ENTROPY,
    "order_steps": 0,
    "anti_interference": False,
    "views": 0,
}
SIGLIP2: Final = "open_clip:ViT-SO400M-14-SigLIP2/webli"
# The same parts of 27 and 27 blocks as the paper's 18 of 32 and 8 of 24.
_SIGLIP2_BLOCKS: Final[Mapping[str, Any]] = {"image_blocks": 15, "text_blocks": 9}
# A laptop's laboratory: `shapes-clip` is small, its sides carry meaning, and its world is
# learnt in minutes. The whole of both towers is trained, from a logit scale at which margins are
# about the annotators' log-odds. Values were chosen on validation groups: docs/training.md.
_SHAPES: Final[Mapping[str, Any]] = {
    "model": "shapes-clip",
    "steps": 300,
    "warmup_steps": 20,
    "batch_size": 128,
    "learning_rate": 1e-4,
    "logit_scale": 5.0,
    "image_blocks": None,
    "text_blocks": None,
    "hflip": False,
    "checkpoint_every": 50,
}

# HPS v3 with low-rank matrices: rank and rate are customary for them and were not tuned at full
# size; a picture and its views are encoded a few at once.
_HPS_V3: Final[Mapping[str, Any]] = {
    "model": "hps-v3",
    "image_blocks": 0,
    "text_blocks": 0,
    "lora_rank": 32,
    "learning_rate": 2e-5,
    "micro_batch_size": 4,
    "activation_checkpointing": True,
}

_RECIPES: Final[Mapping[str, Mapping[str, Any]]] = {
    "sp-clip-l": {"model": "clip-vit-l-14"},
    "sp-clip-h": {"model": "clip-vit-h-14"},
    "sp-clip-h-hps": {"model": "hps-v2"},
    "ce-clip-l": {"model": "clip-vit-l-14", **_CROSS_ENTROPY},
    "ce-clip-h": {"model": "clip-vit-h-14", **_CROSS_ENTROPY},
    "ce-clip-h-hps": {"model": "hps-v2", **_CROSS_ENTROPY},
    "sp-siglip2": {"model": SIGLIP2, **_SIGLIP2_BLOCKS},
    "ce-siglip2": {"model": SIGLIP2, **_SIGLIP2_BLOCKS, **_CROSS_ENTROPY},
    "sp-hps-v3": _HPS_V3,
    "ce-hps-v3": {**_HPS_V3, **_CROSS_ENTROPY},
    "sp-shapes": {**_SHAPES, "order_steps": 270, "b": 2.0, "tau": 1.0, "views": 1},
    "ce-shapes": {**_SHAPES, **_CROSS_ENTROPY},
}

RECIPES: Final[Mapping[str, TrainConfig]] = {
    name: TrainConfig(name=name, **values) for name, values in _RECIPES.items()
}
"""The paper's trainings by name, and the same two paradigms on `shapes-clip`."""


def recipe(name: str, /, **overrides: Any) -> TrainConfig:  # noqa: ANN401 (fields have many types)
    """A named training, with any of its values replaced.

    Args:
        name: A key of `RECIPES`: ``sp-`` is Stable Preference, ``ce-`` the cross-entropy baseline.
        **overrides: Fields of `TrainConfig`.

    Raises:
        ValueError: The name or a field is unknown (the message lists the known ones), or a value
            is out of range.
    """
    if name not in RECIPES:
        raise ValueError(f"there is no recipe {name!r}; expected one of {', '.join(RECIPES)}")
    known = [each.name for each in fields(TrainConfig)]
    if unknown := sorted(overrides.keys() - set(known)):
        raise ValueError(f"unknown {', '.join(unknown)}; a recipe has {', '.join(known)}")
    return replace(RECIPES[name], **overrides)
