"""Training a preference model: what is trained, and one readable loop on accelerate."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

import torch

from stablepref import zoo
from stablepref.output.durable import remove_leftovers
from stablepref.output.locks import sole_writer
from stablepref.recipes import TrainConfig, recipe
from stablepref.runtime.stopping import leave, stop_signals
from stablepref.runtime.threads import threads_for
from stablepref.training.distributed import any_process, engine
from stablepref.training.freezing import summary
from stablepref.training.guards import LeftOut, Watch
from stablepref.training.loader import ShareReader
from stablepref.training.log import Speed, batch_metrics, train_log
from stablepref.training.pairs import PairBatches
from stablepref.training.resume import (
    CHECKPOINTS,
    checkpoint_of,
    described_training,
    model_to_train,
    optimizer_of,
    save_checkpoint,
)
from stablepref.training.saving import save_trained
from stablepref.training.schedule import learning_rate_at
from stablepref.training.step import ViewScores, backward, objectives_of
from stablepref.training.validation import validation_accuracy, validation_groups

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence

    from accelerate import Accelerator
    from torch import nn

    from stablepref.data.groups import RankedGroup
    from stablepref.losses import BatchLoss
    from stablepref.scorer import Scorer
    from stablepref.training.loader import Share
    from stablepref.training.log import TrainLog
    from stablepref.training.resume import Checkpoint
    from stablepref.training.step import Objectives

BEST: Final = "best"
LAST: Final = "last"
ACCURACY: Final = "validation accuracy"


def train(
    groups: Iterable[RankedGroup],
    config: TrainConfig | str = "sp-clip-h",
    *,
    out: str | os.PathLike[str],
    validation: Iterable[RankedGroup] | None = None,
    scorer: Scorer | None = None,
    objective: BatchLoss | None = None,
    resume: bool = False,
    progress: bool | None = None,
) -> Scorer:
    """Train a preference model, or continue a training that was interrupted.

    Works in one process or, started by ``torchrun`` or ``accelerate launch``, in many: the same
    global batches, losses and gradients whatever their number. Dropout is off.

    Args:
        groups: Ranked images; see `read_groups`.
        config: A recipe's name, or a configuration made by `recipe` or `TrainConfig`.
        out: Folder for checkpoints, metrics.jsonl and the models `best` and `last`.
        validation: Groups whose pair accuracy chooses `best`; without them there is only `last`.
        scorer: Model to begin from, left as it is; None loads `config.model`.
        objective: A loss of your own in place of `config.loss`: a function of the scores of a
            global batch `(images, 1 + views)`, the rows of the better and of the worse image of
            each pair (int64 `(pairs,)`) and the labels `(pairs,)`, which returns a scalar, or an
            `Objective` to log its own margins and weights; see `batch_objective`. If it trains
            differences of scores as log-odds of a preference, give it an attribute
            `preference_scale` (1.0 for -log sigmoid(ΔS)), from which `compare` computes
            probabilities; without it the trained model gives none. One with an attribute
            `uncertainty` that is true trains standard deviations too: it gets their logarithms in
            as many columns after the scores.
        resume: Continue from the newest whole checkpoint in `out`, to the same weights as without
            the interruption.
        progress: Show a progress bar; None shows one in a terminal.

    Returns:
        The trained model, in evaluation mode.

    Raises:
        TypeError: The loss cannot be called, or returns no tensor.
        ValueError: The data holds too few pairs, or images that cannot be read; `out` holds
            another training; the configuration cannot work here; or the loss is not a scalar with
            a gradient in the scores.
        FloatingPointError: The loss, its gradient or a score is not finite; names the step, the
            images and the last good checkpoint. A model that has diverged is never saved.
        ImportError: The package of `config.log_with`, or of `config.loss`, cannot be imported.
        InUseError: Another process is training in `out`.
        OSError: A checkpoint or a model cannot be written; earlier ones stay.
        KeyboardInterrupt: After SIGINT, once the step's checkpoint is written.
        SystemExit: After SIGTERM, likewise.
    """
    config = recipe(config) if isinstance(config, str) else config
    folder = Path(out)
    groups, held_out = list(groups), validation_groups(validation)
    objectives = objectives_of(config, objective)
    with (
        engine(config, folder) as accelerator,
        sole_writer(folder, folder=True, active=accelerator.is_main_process),
    ):
        described = described_training(
            config,
            groups,
            held_out,
            mixed_precision=accelerator.mixed_precision,
            scorer=scorer,
            objective=objective,
        )
        found = checkpoint_of(folder, described, resume=resume)
        if found is not None:
            _check_state(found, config)
        batches = PairBatches(
            groups,
            batch_size=config.batch_size,
            batching=config.batching,
            ties=config.ties == "soft",
            seed=config.seed,
        )
        model = model_to_train(
            scorer or zoo.load(config.model, dtype="float32"),
            config,
            preference_scale=objectives.preference_scale,
            uncertainty=objectives.uncertainty,
        )
        module, optimizer = accelerator.prepare(
            ViewScores(model, uncertainty=objectives.uncertainty), optimizer_of(model, config)
        )
        if found is not None:
            accelerator.load_state(str(found.path))
        if accelerator.is_main_process:
            for name in (CHECKPOINTS, BEST, LAST):
                remove_leftovers(folder / name)
        if config.log_with:
            values = described["config"].items()
            accelerator.init_trackers("stablepref", config={k: str(v) for k, v in values})
        start = found.step if found else 0
        with (
            train_log(accelerator, folder, steps=config.steps, start=start, show=progress) as log,
            stop_signals() as signals,
        ):
            log.say(f"{len(groups)} groups, {len(batches)} pairs, after step {start}")
            trained = (name for name, p in model.named_parameters() if p.requires_grad)
            log.say(f"training {', '.join(summary(trained))}")
            training = _Training(
                accelerator, module, optimizer, model, config, objectives, groups, held_out, folder,
                described, log, LeftOut(groups), LeftOut(held_out),
            )  # fmt: skip
            with threads_for(model):
                training.loop(batches, found, signals)
    return model


def _check_state(found: Checkpoint, config: TrainConfig) -> None:
    """Refuse a checkpoint whose numbers cannot be this training's.

    Raises:
        ValueError: The message names the checkpoint and the entry.
    """
    best, scores = found.state.get("best", -1.0), found.state.get("scores", {})
    if found.step > config.steps:
        raise ValueError(f"{found.path} is damaged: step is {found.step} of {config.steps}")
    if not isinstance(best, int | float) or not -1 <= best <= 1:
        raise ValueError(f"{found.path} is damaged: best is {best!r}; expected from -1 to 1")
    if not isinstance(scores, dict) or not all(
        isinstance(value, int | float) for value in scores.values()
    ):
        raise ValueError(f"{found.path} is damaged: scores is {scores!r}; expected numbers")


@final
@dataclass(frozen=True)
class _Training:
    """What stays the same over a training, and the images that it cannot use."""

    accelerator: Accelerator
    module: nn.Module
    optimizer: torch.optim.Optimizer
    model: Scorer
    config: TrainConfig
    objectives: Objectives
    groups: Sequence[RankedGroup]
    held_out: Sequence[RankedGroup]
    folder: Path
    described: dict[str, Any]
    log: TrainLog
    left_out: LeftOut
    held_left_out: LeftOut

    def loop(self, batches: PairBatches, found: Checkpoint | None, signals: list[int]) -> None:
        """Train to the last step, or to a signal: validate, keep the best, save on the way."""
        config, log = self.config, self.log
        done, past = (found.step, found.state) if found else (0, {})
        best, scores = past.get("best", -1.0), past.get("scores", {})
        shares = self._reader(self.groups).read(
            ((step, batches[step]) for step in range(done, config.steps)),
            views=config.views,
            augment=config.augment,
            seed=config.seed,
            area=config.crop_area,
            ratio=config.crop_ratio,
            hflip=config.hflip,
        )
        speed, stopping = Speed(), 0
        with closing(shares):
            for step, share in shares:
                metrics, encoded = self._step(step, share)
                done = step + 1
                speed.count(encoded)
                log.advance(done)
                stopping = any_process(self.accelerator, signals)
                at_end = done == config.steps or bool(stopping)
                if done % config.log_every == 0 or at_end:
                    metrics["images_per_second"] = speed.taken()
                    log.show(metrics)
                    log.write(done, metrics)
                validate_every = config.validate_every or config.checkpoint_every
                validating = self.held_out and (done % validate_every == 0 or done == config.steps)
                saving = done % config.checkpoint_every == 0 or at_end
                if validating or saving:
                    self._watch(self.groups).model(
                        self.accelerator,
                        self.module,
                        share,
                        done,
                        micro_batch_size=config.micro_batch_size,
                    )
                scores = self._validated(done) if validating else {}
                if scores and scores[ACCURACY] > best:
                    best = scores[ACCURACY]
                    self._save(BEST, done, scores)
                if saving:
                    save_checkpoint(
                        self.accelerator,
                        self.folder / CHECKPOINTS,
                        step=done,
                        state={"described": self.described, "best": best, "scores": scores},
                        keep=config.keep_checkpoints,
                    )
                if stopping:
                    break
                speed.restart()
        # A resumed training may have been killed between its last checkpoint and here.
        self._save(LAST, done, scores)
        for left_out in (self.left_out, self.held_left_out):
            if left_out.images:
                log.say(f"{len(left_out.images)} distinct images could not be used")
        if stopping:
            log.say(f"stopped after step {done}; resume to continue from there")
            leave(stopping)

    def _step(self, step: int, share: Share) -> tuple[dict[str, float], int]:
        """One optimiser step: its metrics, and how many images and views were encoded."""
        config, accelerator = self.config, self.accelerator
        rate = learning_rate_at(
            step, peak=config.learning_rate, steps=config.steps, warmup_steps=config.warmup_steps
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        result = backward(
            accelerator,
            self.module,
            share,
            self.objectives.at(step),
            micro_batch_size=config.micro_batch_size,
        )
        self.left_out.note(share, result.usable)
        self.left_out.require_pairs(share, result.pairs, step + 1)
        watch, norm = self._watch(self.groups), torch.nan
        watch.loss(result, share.batch, step + 1)
        if result.pairs:  # without pairs, weight decay alone would move the weights
            # All weights, not only the trained ones: FSDP takes the norm over its processes only
            # where it is given every weight of a module.
            norm = float(
                accelerator.clip_grad_norm_(
                    self.module.parameters(), config.max_grad_norm or torch.inf
                )
            )
            watch.gradient(accelerator, norm, result, share.batch, step + 1)
            self.optimizer.step()
            self.model.after_step()
        self.optimizer.zero_grad()
        metrics = batch_metrics(result) | {"learning_rate": rate, "grad_norm": norm}
        return metrics, len(result.scores) * share.boxes.shape[1]

    def _validated(self, done: int) -> dict[str, float]:
        """The accuracy on the validation pairs after a step, logged."""
        accuracy = validation_accuracy(
            self.accelerator,
            self.module,
            self._reader(self.held_out),
            watch=self._watch(self.held_out),
            left_out=self.held_left_out,
            step=done,
            batch_size=self.config.batch_size,
            micro_batch_size=self.config.micro_batch_size,
        )
        self.log.write(done, {"validation_accuracy": accuracy})
        self.log.say(f"step {done}: {accuracy:.1%} of the validation pairs")
        return {ACCURACY: accuracy}

    def _save(self, name: str, done: int, scores: dict[str, float]) -> None:
        """Write the model as it is now."""
        save_trained(
            self.accelerator,
            self.module,
            self.folder / name,
            described=self.described,
            step=done,
            scores=scores,
        )

    def _reader(self, groups: Sequence[RankedGroup]) -> ShareReader:
        """Reads this process's shares of some groups' batches."""
        return ShareReader(
            groups,
            process=self.accelerator.process_index,
            processes=self.accelerator.num_processes,
            workers=self.config.workers,
        )

    def _watch(self, groups: Sequence[RankedGroup]) -> Watch:
        """Stops the training when scores of some groups are not finite."""
        return Watch(groups, self.folder / CHECKPOINTS)
