"""What a training is set up with: its data, the folder's past, the model and the objective."""

from __future__ import annotations

import copy
import json
import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

from stablepref.objective import batch_objective
from stablepref.training.checkpoints import newest_checkpoint
from stablepref.training.freezing import checkpoint_activations, freeze
from stablepref.training.optimizer import begin_with_logit_scale, build_optimizer
from stablepref.training.pairs import fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    import torch
    from torch import Tensor

    from stablepref.data.groups import RankedGroup
    from stablepref.objective import Objective
    from stablepref.recipes import TrainConfig
    from stablepref.scorer import Scorer
    from stablepref.training.checkpoints import Checkpoint

logger = logging.getLogger(__name__)

CHECKPOINTS: Final = "checkpoints"
"""The folder of checkpoints in a training's folder."""


def validation_groups(validation: Iterable[RankedGroup] | None) -> list[RankedGroup]:
    """The groups to validate on, none without a validation.

    Raises:
        ValueError: There is a validation without a single pair of different ranks.
    """
    if validation is None:
        return []
    groups = list(validation)
    if not any(group.pairs() for group in groups):
        msg = (
            f"the validation has {len(groups)} groups and no pair of images of different rank in "
            "them; give groups with ranks that differ, or no validation"
        )
        raise ValueError(msg)
    return groups


def described_training(
    config: TrainConfig,
    groups: Sequence[RankedGroup],
    held_out: Sequence[RankedGroup],
    *,
    mixed_precision: str,
    scorer: Scorer | None = None,
) -> dict[str, Any]:
    """What the weights depend on, as it is read back from JSON.

    Args:
        config: The configuration.
        groups: The data.
        held_out: The data to validate on.
        mixed_precision: That of the engine, which the configuration may leave to it.
        scorer: What the training begins from in place of `config.model`.
    """
    values = config.exact_values() | {"mixed_precision": mixed_precision}
    if scorer is not None:
        values["model"] = scorer.name
    described = {
        "config": values,
        "data": fingerprint(groups),
        "validation": fingerprint(held_out),
    }
    read_back: dict[str, Any] = json.loads(json.dumps(described))
    return read_back


def checkpoint_of(folder: Path, described: dict[str, Any], *, resume: bool) -> Checkpoint | None:
    """The checkpoint to go on from, or None in an empty folder."""
    found, problems = newest_checkpoint(folder / CHECKPOINTS)
    if (found or problems) and not resume:
        msg = f"{folder} holds a training already; resume it, or choose another folder"
        raise ValueError(msg)
    for problem in problems:
        logger.error("%s; going back to the one before", problem)
    if found is None and problems:
        msg = f"no checkpoint in {folder} is whole: {'; '.join(problems)}"
        raise ValueError(msg)
    if found is None or found.state["described"] == described:
        return found
    then = found.state["described"]
    was, now = then["config"], described["config"]
    changed = [
        f"{name} was {_told(was, name)}, is {_told(now, name)}"
        for name in dict.fromkeys([*now, *was])
        if _told(was, name) != _told(now, name)
    ]
    changed += [f"the {part} differs" for part in described
                if part != "config" and then[part] != described[part]]  # fmt: skip
    msg = f"{folder} holds another training: {'; '.join(changed)}; choose another folder"
    raise ValueError(msg)


def _told(values: Mapping[str, Any], name: str) -> str:
    return repr(values[name]) if name in values else "absent"


def model_to_train(scorer: Scorer, config: TrainConfig) -> Scorer:
    """A float32 copy of which only the last blocks will move.

    Raises:
        ValueError: A logit scale is asked for, and the model has none.
    """
    model = copy.deepcopy(scorer).float().eval()
    model.name, model.preference_scale = config.name, 1.0
    if config.logit_scale is not None:
        begin_with_logit_scale(model, config.logit_scale)
    freeze(
        model,
        image_blocks=config.image_blocks,
        text_blocks=config.text_blocks,
        train_logit_scale=config.train_logit_scale,
    )
    if config.activation_checkpointing:
        checkpoint_activations(model)
    if config.compile:
        model.compile_images()
    return model


def trained_names(model: Scorer) -> list[str]:
    """The parameters that move."""
    return [name for name, weight in model.named_parameters() if weight.requires_grad]


def optimizer_of(model: Scorer, config: TrainConfig) -> torch.optim.AdamW:
    """The optimiser of the parameters that move."""
    return build_optimizer(
        model,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
    )


def objective_of(
    config: TrainConfig, step: int
) -> Callable[[Tensor, Tensor, Tensor, Tensor], Objective]:
    """What a step, from 0, minimises: the paper's step 1 or step 2, or cross-entropy.

    A function of scores, better, worse and label, as in `batch_objective`.
    """
    weighting: Literal["order", "margin", "none"] = "none"
    if config.loss == "stable-preference":
        weighting = "order" if step < config.order_steps else "margin"
    return partial(
        batch_objective,
        weighting=weighting,
        anti_interference=config.anti_interference,
        b=config.b,
        tau=config.tau,
        margin_weighting=config.margin_weighting,
        detach_weights=config.detach_weights,
    )
