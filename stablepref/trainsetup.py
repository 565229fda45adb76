"""What comes before the first training step: refusals, the folder's past, and the model."""

from __future__ import annotations

import copy
import json
import logging
from typing import TYPE_CHECKING, Any, Final

from accelerate.utils import DistributedType

from stablepref.batches import fingerprint
from stablepref.checkpoints import newest_checkpoint
from stablepref.freezing import checkpoint_activations, freeze
from stablepref.optimizer import build_optimizer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch
    from accelerate import Accelerator

    from stablepref.checkpoints import Checkpoint
    from stablepref.data import RankedGroup
    from stablepref.recipes import TrainConfig
    from stablepref.scorer import Scorer

logger = logging.getLogger(__name__)

CHECKPOINTS: Final = "checkpoints"
"""The folder of checkpoints in a training's folder."""


def refuse_what_cannot_work(accelerator: Accelerator) -> None:
    """Combinations that an engine accepts and then ignores, or that fail late."""
    if accelerator.device.type != "cpu":
        return
    if accelerator.mixed_precision == "fp16":
        msg = "fp16 needs a GPU: a CPU would train in float32 without a word; use bf16 or no"
        raise ValueError(msg)
    if accelerator.distributed_type == DistributedType.FSDP:
        msg = "FSDP needs GPUs; on CPUs start several processes with torchrun alone (DDP)"
        raise ValueError(msg)


def described_training(
    config: TrainConfig,
    groups: Sequence[RankedGroup],
    held_out: Sequence[RankedGroup],
    mixed_precision: str,
) -> dict[str, Any]:
    """What the weights depend on, as it is read back from JSON."""
    values = config.exact_values() | {"mixed_precision": mixed_precision}
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
    changed = [
        f"{name} was {then['config'].get(name)!r}, is {value!r}"
        for name, value in described["config"].items()
        if then["config"].get(name) != value
    ]
    changed += [f"the {part} differs" for part in ("data", "validation")
                if then[part] != described[part]]  # fmt: skip
    msg = f"{folder} holds another training: {'; '.join(changed)}; choose another folder"
    raise ValueError(msg)


def model_to_train(scorer: Scorer, config: TrainConfig) -> Scorer:
    """A float32 copy of which only the last blocks will move."""
    model = copy.deepcopy(scorer).float().eval()
    model.name, model.preference_scale = config.name, 1.0
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
