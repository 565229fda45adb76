"""A trained model on its way to a folder that `stablepref.load` opens, with its model card."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from accelerate.utils import DistributedType

from stablepref.output.durable import replacing, sync
from stablepref.output.tables import Table
from stablepref.weights.folder import save_folder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from accelerate import Accelerator
    from torch import nn

    from stablepref.scorer import Scorer

CARD_FILE: Final = "README.md"


def save_trained(
    accelerator: Accelerator,
    module: nn.Module,
    folder: Path,
    *,
    described: Mapping[str, Any],
    step: int,
    scores: Mapping[str, float],
) -> None:
    """Write the scorer inside a prepared `ViewScores`; every process must call it.

    Args:
        accelerator: The distributed engine, which may hold the weights in pieces.
        module: The prepared module.
        folder: The model's folder; files there are replaced, each in one move.
        described: Configuration and fingerprints, for the card.
        step: Optimiser steps done, for the card.
        scores: What was measured of these weights, for the card.

    Raises:
        OSError: A file cannot be written, on a full disk for instance.
    """
    scorer: Scorer = accelerator.unwrap_model(module).scorer
    state = None
    if accelerator.distributed_type == DistributedType.FSDP:
        whole = accelerator.get_state_dict(module)
        state = {key.removeprefix("scorer."): value for key, value in whole.items()}
    if accelerator.is_main_process:
        save_folder(scorer, folder, state=state)
        section = training_card(scorer.name, described, step, scores)
        with replacing(folder / CARD_FILE) as staging:
            scorer.generate_model_card(training=section).save(staging)
        sync(folder)
    accelerator.wait_for_everyone()


def training_card(
    name: str, described: Mapping[str, Any], step: int, scores: Mapping[str, float]
) -> str:
    """The model card's section on the training, in Markdown."""
    rows = [(name, f"{value:.4f}") for name, value in scores.items()]
    measured = Table(columns=("measured", "value"), rows=rows).markdown()
    table = measured if rows else "Nothing was measured.\n"
    return (
        "## Training\n\n"
        f"`{name}`, trained with stablepref from `{described['config']['model']}`, "
        f"{step} of {described['config']['steps']} steps.\n\n"
        f"{table}\n"
        f"Fingerprint of the training data: `{described['data']}`, "
        f"of the validation data: `{described['validation']}`.\n\n"
        f"```json\n{json.dumps(described['config'], indent=1)}\n```\n"
    )
