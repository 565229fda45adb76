"""Training a preference model: one readable loop on accelerate."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from stablepref import zoo
from stablepref.output.durable import remove_leftovers
from stablepref.recipes import TrainConfig, recipe
from stablepref.runtime.stopping import leave, stop_signals
from stablepref.training.checkpoints import save_checkpoint
from stablepref.training.distributed import any_process, engine
from stablepref.training.freezing import summary
from stablepref.training.guards import Watch
from stablepref.training.leftout import LeftOut
from stablepref.training.loader import ShareReader
from stablepref.training.log import batch_metrics, train_log
from stablepref.training.optimizer import clamp_logit_scale, learning_rate_at
from stablepref.training.pairs import PairBatches
from stablepref.training.resume import (
    CHECKPOINTS,
    checkpoint_of,
    described_training,
    model_to_train,
    objective_of,
    optimizer_of,
    trained_names,
    validation_groups,
)
from stablepref.training.saving import save_trained
from stablepref.training.step import backward
from stablepref.training.validation import validation_accuracy
from stablepref.training.viewscores import ViewScores

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence

    from accelerate import Accelerator
    from torch import nn

    from stablepref.data.groups import RankedGroup
    from stablepref.scorer import Scorer
    from stablepref.training.checkpoints import Checkpoint
    from stablepref.training.loader import Share
    from stablepref.training.log import TrainLog

BEST, LAST = "best", "last"
ACCURACY = "validation accuracy"


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
        validation: Groups whose pair accuracy chooses `best`; None for none.
        scorer: Model to begin from, left as it is; None loads `config.model`.
        resume: Go on from the newest whole checkpoint in `out`, to the same weights as without
            the interruption.
        progress: Show a progress bar; None shows one in a terminal.

    Returns:
        The trained model, in evaluation mode.

    Raises:
        ValueError: The data holds too few pairs, or images that cannot be read; `out` holds
            another training, or the configuration cannot work here.
        FloatingPointError: The loss, its gradient or a score is not finite; names the step, the
            images and the last good checkpoint. What has diverged is never saved.
        ImportError: The package of `config.log_with` is not installed.
        OSError: A checkpoint or a model cannot be written; those from before stay.
        KeyboardInterrupt: After SIGINT, once the step's checkpoint is written.
        SystemExit: After SIGTERM, likewise.
    """
    config = recipe(config) if isinstance(config, str) else config
    folder = Path(out)
    groups, held_out = list(groups), validation_groups(validation)
    with engine(config, folder) as accelerator:
        described = described_training(
            config, groups, held_out, mixed_precision=accelerator.mixed_precision, scorer=scorer
        )
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
        if accelerator.is_main_process:
            for name in (CHECKPOINTS, BEST, LAST):
                remove_leftovers(folder / name)
        if config.log_with:
            values = described["config"].items()
            accelerator.init_trackers("stablepref", config={k: str(v) for k, v in values})
        start = found.step if found else 0
        run = _Run(
            accelerator, module, optimizer, model, config, groups, held_out, folder, described,
            LeftOut(groups), LeftOut(held_out),
        )  # fmt: skip
        with (
            train_log(accelerator, folder, steps=config.steps, start=start, show=progress) as log,
            stop_signals() as signals,
        ):
            log.say(f"{len(groups)} groups, {len(batches)} pairs, after step {start}")
            log.say(f"training {', '.join(summary(trained_names(model)))}")
            _loop(run, batches, found, log, signals)
    return model


class _Run(NamedTuple):
    """What stays the same over a training, and the images that it cannot use."""

    accelerator: Accelerator
    module: nn.Module
    optimizer: torch.optim.Optimizer
    model: Scorer
    config: TrainConfig
    groups: Sequence[RankedGroup]
    held_out: Sequence[RankedGroup]
    folder: Path
    described: dict[str, Any]
    left_out: LeftOut
    held_left_out: LeftOut

    def reader(self, groups: Sequence[RankedGroup]) -> ShareReader:
        """This process's shares of some groups' batches."""
        return ShareReader(
            groups,
            process=self.accelerator.process_index,
            processes=self.accelerator.num_processes,
            workers=self.config.workers,
        )

    def watch(self, groups: Sequence[RankedGroup]) -> Watch:
        """What stops the training when scores of some groups are not finite."""
        return Watch(groups, self.folder / CHECKPOINTS)

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
    run: _Run, batches: PairBatches, found: Checkpoint | None, log: TrainLog, signals: list[int]
) -> None:
    config, accelerator = run.config, run.accelerator
    done, past = (found.step, found.state) if found else (0, {})
    best, scores = past.get("best", -1.0), past.get("scores", {})
    steps = run.reader(run.groups).read(
        ((step, batches[step]) for step in range(done, config.steps)),
        views=config.views,
        augment=config.augment,
        seed=config.seed,
        area=config.crop_area,
        ratio=config.crop_ratio,
        hflip=config.hflip,
    )
    stopping, images, seconds, since = 0, 0, 0.0, time.monotonic()
    with closing(steps):
        for step, share in steps:
            metrics, encoded = _step(run, step, share)
            done, images, seconds = step + 1, images + encoded, seconds + time.monotonic() - since
            log.advance(done)
            stopping = any_process(accelerator, signals)
            at_end = done == config.steps or bool(stopping)
            if done % config.log_every == 0 or at_end:
                metrics["images_per_second"] = images / seconds
                log.show(metrics)
                log.write(done, metrics)
                images, seconds = 0, 0.0
            validate_every = config.validate_every or config.checkpoint_every
            validating = run.held_out and (done % validate_every == 0 or done == config.steps)
            saving = done % config.checkpoint_every == 0 or at_end
            if validating or saving:
                run.watch(run.groups).model(
                    accelerator, run.module, share, done, micro_batch_size=config.micro_batch_size
                )
            scores = _validated(run, done, log) if validating else {}
            if scores and scores[ACCURACY] > best:
                best = scores[ACCURACY]
                run.save(BEST, done, scores)
            if saving:
                save_checkpoint(
                    accelerator,
                    run.folder / CHECKPOINTS,
                    step=done,
                    state={"described": run.described, "best": best, "scores": scores},
                    keep=config.keep_checkpoints,
                )
            if stopping:
                break
            since = time.monotonic()
    # Also where a resumed training had been killed between its last checkpoint and here.
    run.save(LAST, done, scores)
    for left_out in (run.left_out, run.held_left_out):
        if left_out.images:
            log.say(f"{len(left_out.images)} distinct images could not be used")
    if stopping:
        log.say(f"stopped after step {done}; resuming goes on there")
        leave(stopping)


def _step(run: _Run, step: int, share: Share) -> tuple[dict[str, float], int]:
    """One optimiser step: its metrics, and how many images and views were encoded."""
    config, accelerator = run.config, run.accelerator
    rate = learning_rate_at(
        step, peak=config.learning_rate, steps=config.steps, warmup_steps=config.warmup_steps
    )
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    result = backward(
        accelerator,
        run.module,
        share,
        objective_of(config, step),
        micro_batch_size=config.micro_batch_size,
    )
    run.left_out.note(share, result.usable)
    run.left_out.require_pairs(share, result.pairs, step + 1)
    watch, norm = run.watch(run.groups), torch.nan
    watch.loss(result, share.batch, step + 1)
    if result.pairs:  # without, weight decay alone would move the weights
        # All weights, not the trained ones alone: FSDP takes the norm over its processes only
        # where it is given every weight of a module.
        norm = float(
            accelerator.clip_grad_norm_(run.module.parameters(), config.max_grad_norm or torch.inf)
        )
        watch.gradient(accelerator, norm, result, share.batch, step + 1)
        run.optimizer.step()
        clamp_logit_scale(run.model)
    run.optimizer.zero_grad()
    metrics = batch_metrics(result) | {"learning_rate": rate, "grad_norm": norm}
    return metrics, result.scores.numel()


def _validated(run: _Run, step: int, log: TrainLog) -> dict[str, float]:
    """The validation pairs' accuracy, written down and told."""
    accuracy = validation_accuracy(
        run.accelerator,
        run.module,
        run.reader(run.held_out),
        watch=run.watch(run.held_out),
        left_out=run.held_left_out,
        step=step,
        batch_size=run.config.batch_size,
        micro_batch_size=run.config.micro_batch_size,
    )
    log.write(step, {"validation_accuracy": accuracy})
    log.say(f"step {step}: {accuracy:.1%} of the validation pairs")
    return {ACCURACY: accuracy}
