"""The loop of a fine-tuning: steps, checkpoints, a look at the samples, and what it came to."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final, final

from stablepref.output.durable import remove_leftovers, replacing
from stablepref.runtime.stopping import leave, stop_signals
from stablepref.training.distributed import any_process
from stablepref.training.log import METRICS_FILE, train_log
from stablepref.training.resume import CHECKPOINTS, save_checkpoint

from ..monitor import Report
from .methods import METHODS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from stablepref.training.log import TrainLog
    from stablepref.training.resume import Checkpoint

    from .samples import SampleWatch
    from .state import FinetuneRun

LORA: Final = "lora"
"""The folder of the trained weights in a training's folder."""
LORAS: Final = "loras"
"""The folder of those at each sheet of samples."""
DENOISER: Final = "denoiser"
"""The folder of the trained denoiser, where all of its weights are trained."""
DENOISERS: Final = "denoisers"
"""The folder of those at each sheet of samples."""
REPORT_FILE: Final = "finetune.json"


@final
@dataclass(frozen=True)
class Finetuned:
    """What a fine-tuning came to.

    Attributes:
        lora: Folder for `pipe.load_lora_weights(lora)`; None where all weights are trained.
        first: What was measured of the samples before it.
        last: And after it.
        signs: What in `last` looks like reward hacking, in words; empty if nothing.
        denoiser: Folder for `from_pretrained` of the denoiser's class, where all of its weights
            are trained; else None.
    """

    lora: Path | None
    first: Report
    last: Report
    signs: Sequence[str]
    denoiser: Path | None = None


def train(
    run: FinetuneRun, watch: SampleWatch, found: Checkpoint | None, *, progress: bool | None
) -> Finetuned:
    """Train from the start, or from a checkpoint, to the end.

    Args:
        run: The fine-tuning.
        watch: Looks at the samples.
        found: Where it continues; None from the start.
        progress: Show a progress bar; None shows one in a terminal.

    Raises:
        ValueError: The checkpoint is damaged, or something is not finite; names the step.
        FloatingPointError: The loss or its gradient is not finite; names the step.
        OSError: A file cannot be written.
        KeyboardInterrupt: After SIGINT, once the step's checkpoint is written.
        SystemExit: After SIGTERM, once the step's checkpoint is written.
    """
    accelerator, config, folder = run.accelerator, run.config, run.folder
    start: int = 0
    reports: dict[str, Report] = {}
    if found is not None:
        accelerator.load_state(str(found.path))
        start = found.step
        reports = _reports(found)
        watch.monitor.baseline = reports["first"]
    if accelerator.is_main_process:
        for place in (CHECKPOINTS, LORAS, DENOISERS):
            remove_leftovers(folder / place)
        if found is None:  # rows of a training that was killed before its first checkpoint
            (folder / METRICS_FILE).unlink(missing_ok=True)
    if config.log_with:
        values = run.described["config"].items()
        accelerator.init_trackers("stablepref", config={k: str(v) for k, v in values})
    with (
        train_log(accelerator, folder, steps=config.steps, start=start, show=progress) as log,
        stop_signals() as signals,
    ):
        log.say(f"{config.method} on {len(run.prompts)} prompts, after step {start}")
        if found is None:
            first = _visit(run, watch, 0, log)
            reports = {"first": first, "last": first}
        stopping = _loop(run, watch, start, reports, log, signals)
        if stopping:
            leave(stopping)
        signs = watch.monitor.signs(reports["last"])
        lora = run.policies.lora
        result = Finetuned(
            folder / LORA if lora else None,
            reports["first"],
            reports["last"],
            signs,
            None if lora else folder / DENOISER,
        )
        run.policies.finish()
        if accelerator.is_main_process:
            _save(run, result)
        accelerator.wait_for_everyone()
    return result


def _reports(found: Checkpoint) -> dict[str, Report]:
    """The reports in a checkpoint.

    Raises:
        ValueError: They are not there, or are not reports; the message names the checkpoint.
    """
    try:
        values = found.state["reports"]
        return {name: Report(**values[name]) for name in ("first", "last")}
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{found.path} is damaged: its reports cannot be read ({error})"
        ) from error


def _loop(
    run: FinetuneRun,
    watch: SampleWatch,
    start: int,
    reports: dict[str, Report],
    log: TrainLog,
    signals: list[int],
) -> int:
    """Train to the end, or to a signal, whose number is returned; `reports` follows."""
    config, accelerator = run.config, run.accelerator
    one_step = METHODS[config.method].step
    for step in range(start, config.steps):
        since = time.monotonic()
        rate = config.learning_rate_at(step)
        for group in run.optimizer.param_groups:
            group["lr"] = rate
        metrics = one_step(run, step) | {"learning_rate": rate}
        if run.policies.average is not None:
            run.policies.average.follow(config.ema_decay)
        done = step + 1
        log.advance(done)
        stopping = any_process(accelerator, signals)
        at_end = done == config.steps
        if done % config.log_every == 0 or at_end:
            metrics["images_per_second"] = config.batch_size / (time.monotonic() - since)
            log.show(metrics)
            log.write(done, metrics)
        if done % config.sample_every == 0 or at_end:
            reports["last"] = _visit(run, watch, done, log)
        if done % config.checkpoint_every == 0 or at_end or stopping:
            save_checkpoint(
                accelerator,
                run.folder / CHECKPOINTS,
                step=done,
                state={
                    "described": run.described,
                    "reports": {name: asdict(report) for name, report in reports.items()},
                },
                keep=config.keep_checkpoints,
            )
        if stopping and not at_end:
            log.say(f"stopped after step {done}; the same command resumes there")
            return stopping
    return 0


def _visit(run: FinetuneRun, watch: SampleWatch, step: int, log: TrainLog) -> Report:
    """Look at the samples, and keep the weights that made them; all processes see the same."""
    main = run.accelerator.is_main_process
    kept = run.folder / (LORAS if run.policies.lora else DENOISERS)
    with run.policies.shown():
        if main and step:
            run.policies.save(kept / f"step-{step:08d}")
        report = watch.visit(step, write=main)
    log.write(step, {f"sample_{name}": value for name, value in report.scalars().items()})
    log.say(f"step {step}: mean reward of the samples {report.reward:.3f}")
    for sign in watch.monitor.signs(report):
        log.say(f"step {step}: {sign}")
    return report


def _save(run: FinetuneRun, result: Finetuned) -> None:
    """The weights in their place, and beside them what they came from and what was measured."""
    run.policies.save(run.folder / (LORA if run.policies.lora else DENOISER))
    report = {
        **run.described,
        "steps": run.config.steps,
        "first": asdict(result.first),
        "last": asdict(result.last),
        "signs": list(result.signs),
    }
    with replacing(run.folder / REPORT_FILE) as staging:
        staging.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
