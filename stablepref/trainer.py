"""Training a preference model: one readable loop on accelerate."""

from __future__ import annotations

import logging
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from accelerate import Accelerator

from stablepref import zoo
from stablepref.batches import PairBatches, name_of
from stablepref.checkpoints import newest_checkpoint, save_checkpoint
from stablepref.freezing import summary
from stablepref.globalstep import backward
from stablepref.objective import batch_objective
from stablepref.optimizer import clamp_logit_scale, learning_rate_at
from stablepref.recipes import TrainConfig, recipe
from stablepref.shares import ShareReader
from stablepref.stopping import leave, stop_signals
from stablepref.trained import save_trained
from stablepref.trainlog import train_log
from stablepref.trainsetup import (
    CHECKPOINTS,
    checkpoint_of,
    described_training,
    model_to_train,
    optimizer_of,
    refuse_what_cannot_work,
    trained_names,
)
from stablepref.validation import validation_accuracy
from stablepref.viewscores import ViewScores

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence

    from torch import Tensor, nn

    from stablepref.batches import Batch
    from stablepref.data import RankedGroup
    from stablepref.globalstep import StepResult
    from stablepref.objective import Objective
    from stablepref.scorer import Scorer
    from stablepref.shares import Share
    from stablepref.trainlog import TrainLog

logger = logging.getLogger(__name__)
NAMED_IMAGES = 10


def train(
    groups: Iterable[RankedGroup],
    config: TrainConfig | str = "sp-clip-h",
    *,
    out: str | os.PathLike[str],
    validation: Iterable[RankedGroup] | None = None,
    scorer: Scorer | None = None,
    resume: bool = False,
    progress: bool | None = None,
) -> Scorer:
    """Train a preference model, or go on with a training that was interrupted.

    Works in one process or, started by ``torchrun`` or ``accelerate launch``, in many: the same
    global batches, losses and gradients whatever their number. Dropout is off.

    Args:
        groups: Ranked images; see `read_groups`.
        config: A recipe's name, or one made by `recipe` or `TrainConfig`.
        out: Folder for checkpoints, metrics.jsonl and the models `best` and `last`.
        validation: Groups whose pair accuracy chooses `best`; without them there is none.
        scorer: Model to begin from, left as it is; None loads `config.model`.
        resume: Go on from the newest whole checkpoint in `out`, to the same weights as without
            the interruption.
        progress: Show a progress bar; None shows one in a terminal.

    Returns:
        The trained model, in evaluation mode.

    Raises:
        ValueError: The data holds too few pairs, `out` holds another training, or the
            configuration cannot work here.
        FloatingPointError: The loss is not finite; names the step, the images and the checkpoint.
        OSError: A checkpoint cannot be written; the one before it stays.
        KeyboardInterrupt: After SIGINT, once the step's checkpoint is written.
        SystemExit: After SIGTERM, likewise.
    """
    config = recipe(config) if isinstance(config, str) else config
    folder = Path(out)
    groups, held_out = list(groups), list(validation or ())
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision, log_with=config.log_with, project_dir=folder
    )
    refuse_what_cannot_work(accelerator)
    described = described_training(config, groups, held_out, accelerator.mixed_precision)
    found = checkpoint_of(folder, described, resume=resume)
    batches = PairBatches(
        groups,
        batch_size=config.batch_size,
        batching=config.batching,
        ties=config.ties == "soft",
        seed=config.seed,
    )
    model = model_to_train(scorer or zoo.load(config.model, dtype="float32"), config)
    module, optimizer = accelerator.prepare(ViewScores(model), optimizer_of(model, config))
    if found is not None:
        accelerator.load_state(str(found.path))
    if config.log_with:
        values = described["config"].items()
        accelerator.init_trackers("stablepref", config={k: str(v) for k, v in values})
    start = found.step if found else 0
    run = _Run(accelerator, module, optimizer, model, config, groups, held_out, folder, described)
    with (
        train_log(accelerator, folder, steps=config.steps, start=start, show=progress) as log,
        stop_signals() as signals,
    ):
        log.say(f"{len(groups)} groups, {len(batches)} pairs, after step {start}")
        log.say(f"training {', '.join(summary(trained_names(model)))}")
        _loop(run, batches, start, found.state["best"] if found else -1.0, log, signals)
    accelerator.end_training()
    return model


class _Run(NamedTuple):
    """What stays the same over a training."""

    accelerator: Accelerator
    module: nn.Module
    optimizer: torch.optim.Optimizer
    model: Scorer
    config: TrainConfig
    groups: Sequence[RankedGroup]
    held_out: Sequence[RankedGroup]
    folder: Path
    described: dict[str, Any]

    def reader(self, groups: Sequence[RankedGroup]) -> ShareReader:
        """This process's shares of some groups' batches."""
        return ShareReader(
            groups,
            process=self.accelerator.process_index,
            processes=self.accelerator.num_processes,
            workers=self.config.workers,
        )

    def save(self, name: str, step: int, scores: dict[str, float]) -> None:
        """Write the model as it is now."""
        save_trained(
            self.accelerator,
            self.module,
            self.folder / name,
            described=self.described,
            step=step,
            scores=scores,
        )


def _loop(
    run: _Run, batches: PairBatches, start: int, best: float, log: TrainLog, signals: list[int]
) -> None:
    config, accelerator = run.config, run.accelerator
    validate_every = config.validate_every or config.checkpoint_every
    steps = run.reader(run.groups).read(
        ((step, batches[step]) for step in range(start, config.steps)),
        views=config.views,
        augment=config.augment,
        seed=config.seed,
        area=config.crop_area,
        ratio=config.crop_ratio,
        hflip=config.hflip,
    )
    since, images = time.monotonic(), 0
    with closing(steps):
        for step, share in steps:
            metrics, encoded = _step(run, step, share)
            done, images = step + 1, images + encoded
            stopping = _any_process(accelerator, signals)
            at_end = done == config.steps or bool(stopping)
            if done % config.log_every == 0 or at_end:
                metrics["images_per_second"] = images / (time.monotonic() - since)
                log.show(done, metrics)
                log.write(done, metrics)
                since, images = time.monotonic(), 0
            if run.held_out and (done % validate_every == 0 or done == config.steps):
                accuracy = validation_accuracy(
                    accelerator,
                    run.module,
                    run.reader(run.held_out),
                    batch_size=config.batch_size,
                    micro_batch_size=config.micro_batch_size,
                )
                log.write(done, {"validation_accuracy": accuracy})
                log.say(f"step {done}: {accuracy:.1%} of the validation pairs")
                if accuracy > best:
                    best = accuracy
                    run.save("best", done, {"validation accuracy": best})
            if done % config.checkpoint_every == 0 or at_end:
                save_checkpoint(
                    accelerator,
                    run.folder / CHECKPOINTS,
                    step=done,
                    state={"described": run.described, "best": best},
                    keep=config.keep_checkpoints,
                )
            if at_end:
                run.save("last", done, {"best validation accuracy": best} if best >= 0 else {})
            if stopping:
                log.say(f"stopped after step {done}; resuming goes on there")
                leave(stopping)


def _step(run: _Run, step: int, share: Share) -> tuple[dict[str, float], int]:
    """One optimiser step: its metrics, and how many images and views were encoded."""
    config, accelerator = run.config, run.accelerator
    for error in share.errors:
        logger.warning("step %d: %s; its pairs are left out", step + 1, error)
    rate = learning_rate_at(
        step, peak=config.learning_rate, steps=config.steps, warmup_steps=config.warmup_steps
    )
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    result = backward(
        accelerator,
        run.module,
        share,
        partial(_objective, config, step),
        micro_batch_size=config.micro_batch_size,
    )
    _require_finite(result, share.batch, run.groups, step, run.folder)
    trained = [weight for weight in run.module.parameters() if weight.requires_grad]
    norm = accelerator.clip_grad_norm_(trained, config.max_grad_norm or torch.inf)
    run.optimizer.step()
    run.optimizer.zero_grad()
    clamp_logit_scale(run.model)
    metrics = _metrics(result) | {"learning_rate": rate, "grad_norm": float(norm)}
    return metrics, result.scores.numel()


def _objective(
    config: TrainConfig, step: int, scores: Tensor, better: Tensor, worse: Tensor, label: Tensor
) -> Objective:
    """The paper's step 1 or step 2, or cross-entropy."""
    weighting: Literal["order", "margin", "none"] = "none"
    if config.loss == "stable-preference":
        weighting = "order" if step < config.order_steps else "margin"
    return batch_objective(
        scores,
        better,
        worse,
        label,
        weighting=weighting,
        anti_interference=config.anti_interference,
        b=config.b,
        tau=config.tau,
        margin_weighting=config.margin_weighting,
        detach_weights=config.detach_weights,
    )


def _require_finite(
    result: StepResult, batch: Batch, groups: Sequence[RankedGroup], step: int, folder: Path
) -> None:
    if result.objective.loss.isfinite():
        return
    odd = ~result.scores.isfinite().all(dim=1)
    suspects = [image for image, bad in zip(batch.images, odd.tolist(), strict=True) if bad]
    names = [name_of(groups, image) for image in (suspects or batch.images)]
    more = f" and {len(names) - NAMED_IMAGES} more" if len(names) > NAMED_IMAGES else ""
    found, _ = newest_checkpoint(folder / CHECKPOINTS)
    last = f"the last good checkpoint is {found.path}" if found else "there is no checkpoint yet"
    msg = (
        f"the loss of step {step + 1} is {float(result.objective.loss)}; its images: "
        f"{'; '.join(names[:NAMED_IMAGES])}{more}; {last}. A lower learning rate or "
        "max_grad_norm may help"
    )
    raise FloatingPointError(msg)


def _metrics(result: StepResult) -> dict[str, float]:
    """A batch's loss, share of pairs in the right order, mean ΔS and mean weight."""
    loss, margin, weight = result.objective
    return {
        "loss": float(loss),
        "accuracy": float((margin > 0).float().mean()),
        "margin": float(margin.mean()),
        "weight": float(weight.mean()),
        "pairs": float(result.pairs),
    }


def _any_process(accelerator: Accelerator, signals: list[int]) -> int:
    """The signal that any process has received, or 0; all processes get the same answer."""
    if accelerator.num_processes == 1:
        return signals[0] if signals else 0
    mine = torch.tensor([signals[0] if signals else 0], device=accelerator.device)
    return int(accelerator.gather(mine).max())
