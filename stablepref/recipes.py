"""What a training is made of: one frozen configuration, and the named ones of the paper."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, final

from stablepref.runtime.fields import check_fields, check_range

if TYPE_CHECKING:
    from collections.abc import Mapping

Loss = Literal["stable-preference", "cross-entropy"]
Batching = Literal["groups", "pairs"]
Precision = Literal["no", "bf16", "fp16"]
Ties = Literal["drop", "soft"]
Tracker = Literal["tensorboard", "wandb"]
Weighting = Literal["softmax", "uniform", "inverse"]

_POSITIVE: Final = (
    "steps",
    "batch_size",
    "learning_rate",
    "eps",
    "max_grad_norm",
    "tau",
    "micro_batch_size",
    "validate_every",
    "checkpoint_every",
    "keep_checkpoints",
    "log_every",
)
_NOT_NEGATIVE: Final = (
    "order_steps",
    "warmup_steps",
    "weight_decay",
    "image_blocks",
    "text_blocks",
    "views",
    "b",
    "seed",
    "workers",
)
_BELOW_ONE: Final = ("beta1", "beta2")
MAX_LOGIT_SCALE: Final = 100
"""Training clamps it there (CLIP, Radford et al. 2021, section 2.5, and HPS v2 do)."""

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
    loss: Annotated[Loss, "stable-preference or cross-entropy"] = "stable-preference"
    steps: Annotated[int, "optimiser steps"] = 30_000
    order_steps: Annotated[int, "steps of step 1, correcting the order, of all steps"] = 3_000
    batch_size: Annotated[int, "pairs in the global batch, over all processes"] = 64
    batching: Annotated[
        Batching, "groups keeps the pairs of a prompt together; pairs draws each one anywhere"
    ] = "groups"
    ties: Annotated[
        Ties,
        "soft trains on tied pairs too, with probability one half (cross-entropy only)",
    ] = "drop"
    learning_rate: Annotated[float, "peak of the cosine"] = 2e-6
    warmup_steps: Annotated[int, "steps over which the learning rate first rises"] = 1_500
    weight_decay: Annotated[float, "AdamW's, on matrices"] = 0.2
    beta1: Annotated[float, "AdamW's first decay"] = 0.9
    beta2: Annotated[float, "AdamW's second decay (CLIP's value; the paper gives none)"] = 0.98
    eps: Annotated[float, "AdamW's epsilon (CLIP's value; the paper gives none)"] = 1e-6
    max_grad_norm: Annotated[float | None, "clip the gradient's norm"] = None
    image_blocks: Annotated[int | None, "last image blocks to train; all of the tower if none"] = 18
    text_blocks: Annotated[int | None, "last text blocks to train; all of the tower if none"] = 8
    train_logit_scale: Annotated[bool, "train the logit scale, clamped to [0, ln 100]"] = True
    logit_scale: Annotated[
        float | None, "logit scale to begin with, 1 to 100; the model's own if none"
    ] = None
    anti_interference: Annotated[bool, "add the anti-interference loss"] = True
    views: Annotated[int, "weak views of each image beside itself (k)"] = 3
    crop_area: Annotated[tuple[float, float], "bounds of a view's share of the area"] = (0.85, 1.0)
    crop_ratio: Annotated[
        tuple[float, float] | None, "bounds of a view's own aspect ratio; the image's if none"
    ] = None
    hflip: Annotated[bool, "mirror half of the weak views"] = True
    augment: Annotated[bool, "show a weak view in place of the image itself too"] = False
    b: Annotated[float, "margin at which step 1 weighs a pair one half, in score units"] = 0.3
    tau: Annotated[float, "width of that transition, in score units"] = 0.2
    margin_weighting: Annotated[Weighting, "step 2: softmax, uniform or inverse"] = "softmax"
    detach_weights: Annotated[bool, "let no gradient through the weights"] = True
    seed: Annotated[int, "of the order of the pairs and of the weak views"] = 0
    mixed_precision: Annotated[
        Precision | None,
        "no, bf16 or fp16; if none, as accelerate is configured, else bf16 where units multiply it",
    ] = None
    micro_batch_size: Annotated[
        int | None, "images encoded at once by each process; all of its share if none"
    ] = None
    activation_checkpointing: Annotated[
        bool, "compute activations again in the backward pass, for less memory"
    ] = False
    compile: Annotated[bool, "compile the image encoder with torch.compile"] = False
    validate_every: Annotated[
        int | None, "steps between validations; as checkpoint_every if none"
    ] = None
    checkpoint_every: Annotated[int, "steps between checkpoints"] = 500
    keep_checkpoints: Annotated[int, "checkpoints kept"] = 2
    log_every: Annotated[int, "steps between rows of metrics.jsonl"] = 10
    log_with: Annotated[Tracker | None, "also log with tensorboard or wandb"] = None
    workers: Annotated[int, "threads that decode images ahead"] = 4

    def __post_init__(self) -> None:
        """Check every value, and those that depend on each other."""
        for name in ("crop_area", "crop_ratio"):
            if isinstance(getattr(self, name), list):  # as JSON gives them
                object.__setattr__(self, name, tuple(getattr(self, name)))
        check_fields(self)
        self._check_ranges()
        too_long = [n for n in ("order_steps", "warmup_steps") if getattr(self, n) > self.steps]
        if too_long:
            listed = " and ".join(f"{name} is {getattr(self, name)}" for name in too_long)
            raise ValueError(f"{listed} of {self.steps} steps; expected no more")
        if self.ties == "soft" and (self.loss != "cross-entropy" or self.anti_interference):
            raise ValueError(
                "ties='soft' needs loss='cross-entropy' and anti_interference=False: the other "
                "losses are defined for pairs with a better image only"
            )
        if self.views and not self.anti_interference:
            raise ValueError(
                f"views is {self.views}, but without the anti-interference loss nothing would use "
                "them; expected views=0 (augment=True shows weak views in place of the images)"
            )

    def _check_ranges(self) -> None:
        check_range(self, _POSITIVE, "more than 0", lambda value: value > 0)
        check_range(self, _NOT_NEGATIVE, "0 or more", lambda value: value >= 0)
        check_range(self, _BELOW_ONE, "0 or more, and less than 1", lambda value: 0 <= value < 1)
        check_range(self, ("logit_scale",), "1 to 100", lambda value: 1 <= value <= MAX_LOGIT_SCALE)
        low, high = self.crop_area
        if not 0 < low <= high <= 1:
            raise ValueError(f"crop_area is {self.crop_area}; expected 0 < low <= high <= 1")
        if self.crop_ratio is not None and not 0 < self.crop_ratio[0] <= self.crop_ratio[1]:
            raise ValueError(f"crop_ratio is {self.crop_ratio}; expected 0 < low <= high")

    def exact_values(self) -> dict[str, Any]:
        """The fields that the trained weights depend on."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in FREE}


_CROSS_ENTROPY: Final[Mapping[str, Any]] = {
    "loss": "cross-entropy",
    "order_steps": 0,
    "anti_interference": False,
    "views": 0,
}
# A laptop's laboratory: `shapes-clip` is small, its sides carry meaning, and its world is
# learnt in minutes. The whole of both towers is trained, from a unit in which margins are as large
# as annotators are sure. Values were chosen on validation groups: docs/training.md.
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

_RECIPES: Final[Mapping[str, Mapping[str, Any]]] = {
    "sp-clip-l": {"model": "clip-vit-l-14"},
    "sp-clip-h": {"model": "clip-vit-h-14"},
    "sp-clip-h-hps": {"model": "hps-v2"},
    "ce-clip-l": {"model": "clip-vit-l-14", **_CROSS_ENTROPY},
    "ce-clip-h": {"model": "clip-vit-h-14", **_CROSS_ENTROPY},
    "ce-clip-h-hps": {"model": "hps-v2", **_CROSS_ENTROPY},
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
        ValueError: The name or a field is unknown (the message lists those there are), or a value
            is out of range.
    """
    if name not in RECIPES:
        raise ValueError(f"there is no recipe {name!r}; expected one of {', '.join(RECIPES)}")
    known = [each.name for each in fields(TrainConfig)]
    if unknown := sorted(overrides.keys() - set(known)):
        raise ValueError(f"unknown {', '.join(unknown)}; a recipe has {', '.join(known)}")
    return replace(RECIPES[name], **overrides)
