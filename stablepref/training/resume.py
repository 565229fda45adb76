"""What a training is set up with and continued from: its model, its identity, its checkpoints.

Checkpoints are whole or not there: written beside their place, hashed, then renamed.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import secrets
import shutil
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError

from stablepref.output.durable import WRITING, sync
from stablepref.output.names import stays_inside
from stablepref.output.text import shorten
from stablepref.scorer import Scorer
from stablepref.training.freezing import freeze
from stablepref.training.optimizer import begin_with_logit_scale, build_optimizer
from stablepref.training.pairs import fingerprint

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import torch
    from accelerate import Accelerator

    from stablepref.data.groups import RankedGroup
    from stablepref.losses import BatchLoss
    from stablepref.recipes import TrainConfig

logger = logging.getLogger(__name__)

PREDICTS_NONE: Final = Scorer.predict
CHECKPOINTS: Final = "checkpoints"
"""The folder of checkpoints in a training's folder."""
STATE_FILE: Final = "state.json"
_PREFIX: Final = "step-"


def model_to_train(
    scorer: Scorer,
    config: TrainConfig,
    *,
    preference_scale: float | None = 1.0,
    uncertainty: bool = False,
) -> Scorer:
    """A float32 copy of a scorer, of which only what the configuration says will be trained.

    Args:
        scorer: The model to begin from, left as it is.
        config: Says what is trained, and what the trained model calls itself.
        preference_scale: The factor that turns a difference of trained scores into the log-odds of
            a preference: 1 for the built-in losses, None if the loss does not train log-odds.
        uncertainty: Whether the loss trains standard deviations of scores.

    Raises:
        ValueError: The configuration gives a logit scale, or its loss trains standard deviations,
            and the model has none; or the model cannot be trained in this way.
    """
    if uncertainty and type(scorer).predict is PREDICTS_NONE:
        msg = (
            f"the loss trains standard deviations of scores, and {scorer.name} predicts none; "
            "expected a model such as hps-v3, or another loss"
        )
        raise ValueError(msg)
    model = copy.deepcopy(scorer).float().eval()
    model.name, model.preference_scale = config.name, preference_scale
    if model.predicts_uncertainty or uncertainty:  # other losses leave the deviations behind
        model.predicts_uncertainty = uncertainty
    if config.logit_scale is not None:
        begin_with_logit_scale(model, config.logit_scale)
    if config.lora_rank is not None:
        model.add_lora(rank=config.lora_rank, seed=config.seed)
    else:
        freeze(
            model,
            image_blocks=config.image_blocks,
            text_blocks=config.text_blocks,
            train_logit_scale=config.train_logit_scale,
        )
    if config.activation_checkpointing:
        model.checkpoint_activations()
    if config.compile:
        model.compile_images()
    return model


def optimizer_of(model: Scorer, config: TrainConfig) -> torch.optim.AdamW:
    """The optimiser of the trained parameters."""
    return build_optimizer(
        model,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
    )


def described_training(
    config: TrainConfig,
    groups: Sequence[RankedGroup],
    held_out: Sequence[RankedGroup],
    *,
    mixed_precision: str,
    scorer: Scorer | None = None,
    objective: BatchLoss | None = None,
) -> dict[str, Any]:
    """The identity of a training, as it is read back from JSON: what its weights depend on.

    Args:
        config: The configuration.
        groups: The data.
        held_out: The data to validate on.
        mixed_precision: That of the engine, which the configuration may leave to it.
        scorer: The model to begin from, in place of `config.model`.
        objective: The loss, in place of the one that `config.loss` names.
    """
    values = config.exact_values() | {"mixed_precision": mixed_precision}
    if scorer is not None:
        values["model"] = scorer.name
    if objective is not None:
        values["loss"] = qualified_name(objective)
    described = {
        "config": values,
        "data": fingerprint(groups),
        "validation": fingerprint(held_out),
    }
    read_back: dict[str, Any] = json.loads(json.dumps(described))
    return read_back


def qualified_name(function: object) -> str:
    """What identifies a function: its module and name, and the arguments that a partial binds.

    Of an object that can be called, a module say, it is the name of its class; of a bound argument
    that is neither text nor a number, likewise.
    """
    if isinstance(function, partial):
        bound = [*map(_value_name, function.args)]
        bound += [f"{name}={_value_name(value)}" for name, value in function.keywords.items()]
        return f"{qualified_name(function.func)}({', '.join(bound)})"
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def _value_name(value: object) -> str:
    plain = value is None or isinstance(value, str | bool | int | float)
    return repr(value) if plain else qualified_name(value)


class Checkpoint(NamedTuple):
    """A whole checkpoint.

    Attributes:
        path: Its folder.
        step: Optimiser steps done.
        state: What the trainer keeps beside weights, optimiser and random states.
    """

    path: Path
    step: int
    state: dict[str, Any]


def checkpoint_of(folder: Path, described: dict[str, Any], *, resume: bool) -> Checkpoint | None:
    """The checkpoint from which a training continues, or None in an empty folder.

    Args:
        folder: The training's folder.
        described: Its identity; see `described_training`.
        resume: Whether a training that the folder holds may be continued.

    Raises:
        ValueError: The folder holds a training that is not to be resumed, that is another one (the
            message names what differs), or of which no checkpoint is whole.
    """
    found, problems = newest_checkpoint(folder / CHECKPOINTS)
    if (found or problems) and not resume:
        raise ValueError(f"{folder} holds a training already; resume it, or choose another folder")
    for problem in problems:
        logger.error("%s; going back to the one before", problem)
    if found is None and problems:
        raise ValueError(f"no checkpoint in {folder} is whole: {'; '.join(problems)}")
    if found is None or found.state["described"] == described:
        return found
    then = found.state["described"]
    was, now = then["config"], described["config"]
    changed = [
        f"{name} was {_shown(was, name)}, is {_shown(now, name)}"
        for name in dict.fromkeys([*now, *was])
        if _shown(was, name) != _shown(now, name)
    ]
    changed += [f"the {part} differs" for part in described
                if part != "config" and then.get(part) != described[part]]  # fmt: skip
    raise ValueError(
        f"{folder} holds another training: {'; '.join(changed)}; choose another folder"
    )


def _shown(values: Mapping[str, Any], name: str) -> str:
    return repr(values[name]) if name in values else "absent"


def save_checkpoint(
    accelerator: Accelerator, folder: Path, *, step: int, state: dict[str, Any], keep: int
) -> Path:
    """Write model, optimiser, random states and `state`; then delete all but the newest `keep`.

    Every process must call it. A kill at any moment leaves the checkpoints from before. Checkpoints
    of later steps are deleted too: the training came back from them because they are damaged.

    Raises:
        OSError: It cannot be written, on a full disk for instance; nothing half-written stays.
    """
    final = folder / f"{_PREFIX}{step:08d}"
    # A name of which nobody can put a link in a shared folder beforehand; one for all processes.
    (secret,) = broadcast_object_list([secrets.token_hex(8)])
    staging = folder / f".{final.name}.{secret}{WRITING}"
    if accelerator.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
    accelerator.wait_for_everyone()
    try:
        accelerator.save_state(str(staging))
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            _seal(staging, step, state)
            shutil.rmtree(final, ignore_errors=True)
            staging.replace(final)
            sync(folder)
            for old in _superseded(folder, final, keep):
                shutil.rmtree(old)
    # safetensors and torch report a full disk in exceptions of their own.
    except (OSError, RuntimeError, SafetensorError) as error:
        raise OSError(f"cannot write the checkpoint of step {step} to {final}: {error}") from error
    finally:
        # In its place by now, unless something failed; then the disk may need the room.
        if accelerator.is_main_process:
            shutil.rmtree(staging, ignore_errors=True)
    accelerator.wait_for_everyone()
    return final


def newest_checkpoint(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest whole checkpoint, if there is one, and what is wrong with newer ones."""
    problems: list[str] = []
    for path in reversed(_folders(folder)):
        try:
            return _opened(path), problems
        except (OSError, ValueError, RecursionError) as error:
            problems.append(f"{path} is damaged: {error}")
    return None, problems


def _opened(path: Path) -> Checkpoint:
    """A checkpoint, whose list of files, step and state are believed only as far as they fit.

    Raises:
        ValueError: Something of it does not; the message names the entry of the state file.
        OSError: A file cannot be read.
    """
    sealed = json.loads((path / STATE_FILE).read_bytes())
    for name, kind in (("step", int), ("state", dict), ("files", dict)):
        value = sealed.get(name) if isinstance(sealed, dict) else None
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{STATE_FILE}: {name} is {shorten(repr(value))}")
    step, state, files = sealed["step"], sealed["state"], sealed["files"]
    if path.name != f"{_PREFIX}{step:08d}":
        raise ValueError(f"{STATE_FILE}: step is {step}, which is not that of the folder")
    described = state.get("described")
    if not isinstance(described, dict) or not isinstance(described.get("config"), dict):
        raise ValueError(f"{STATE_FILE}: state.described is {shorten(repr(described))}")
    there = {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()} - {STATE_FILE}
    unlisted = sorted(name for name in there if name not in files and name[0] != ".")
    if unlisted or not files:
        what = ", ".join(unlisted) or "any file"
        raise ValueError(f"{STATE_FILE}: files does not list {what}")
    if outside := [name for name in files if not stays_inside(name)]:
        raise ValueError(f"{STATE_FILE}: files lists {outside[0]!r}, which is elsewhere")
    if changed := [name for name, digest in files.items() if _digest(path / name) != digest]:
        raise ValueError(f"{', '.join(changed)} changed since it was written")
    return Checkpoint(path, step, state)


def _folders(folder: Path) -> list[Path]:
    """Checkpoints from the oldest to the newest."""
    return sorted(folder.glob(f"{_PREFIX}[0-9]*")) if folder.is_dir() else []


def _superseded(folder: Path, newest: Path, keep: int) -> list[Path]:
    """All checkpoints but `newest` and the `keep` - 1 before it."""
    older = [path for path in _folders(folder) if path < newest]
    newer = [path for path in _folders(folder) if path > newest]
    return older[: max(0, len(older) + 1 - keep)] + newer


def _seal(staging: Path, step: int, state: dict[str, Any]) -> None:
    """Flush every file to the disk and write down their hashes."""
    files = sorted(path for path in staging.rglob("*") if path.is_file())
    for path in files:
        sync(path)
    names = {path.relative_to(staging).as_posix(): _digest(path) for path in files}
    sealed = staging / STATE_FILE
    sealed.write_text(json.dumps({"step": step, "state": state, "files": names}, indent=1))
    sync(sealed)
    sync(staging)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
