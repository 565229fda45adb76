"""Fine-tuning of a text-to-image pipeline on a reward, by back-propagation or policy gradient."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

import torch

from stablepref.output.durable import remove_leftovers, replacing
from stablepref.output.locks import sole_writer
from stablepref.runtime.stopping import leave, stop_signals
from stablepref.runtime.threads import threads_for
from stablepref.scoring.prompts import check_prompts
from stablepref.training.distributed import any_process, engine
from stablepref.training.log import METRICS_FILE, train_log
from stablepref.training.optimizer import build_optimizer
from stablepref.training.resume import CHECKPOINTS, checkpoint_of, save_checkpoint

from ..diffusion.pipelines import modules_of, refuse_safety_checker
from ..diffusion.sampling import SamplingLoop
from ..monitor import Report, RewardMonitor
from ..sampled_rewards import as_scorer
from .backprop import draft_step
from .batches import sample_pictures
from .config import FinetuneConfig
from .ddpo import check_policy, ddpo_step
from .latent_reward import LatentReward
from .lora import add_lora, check_no_adapters, remove_lora, save_lora
from .samples import SampleWatch
from .state import FinetuneRun, described_finetuning

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from stablepref.scorer import Scorer
    from stablepref.training.log import TrainLog
    from stablepref.training.resume import Checkpoint

    from ..reward import DifferentiableReward

LORA: Final = "lora"
"""The folder of the trained weights in a training's folder."""
LORAS: Final = "loras"
"""The folder of those at each sheet of samples."""
REPORT_FILE: Final = "finetune.json"
LEAST_WATCHED: Final = 2
"""Pictures of which a report can be made."""


@final
@dataclass(frozen=True)
class Finetuned:
    """What a fine-tuning came to.

    Attributes:
        lora: Folder for `pipe.load_lora_weights(lora)`.
        first: What was measured of the samples before it.
        last: And after it.
        signs: What in `last` looks like reward hacking, in words; empty if nothing.
    """

    lora: Path
    first: Report
    last: Report
    signs: Sequence[str]


def finetune(
    pipe: Any,  # noqa: ANN401 (diffusers has no types)
    prompts: Sequence[str],
    reward: DifferentiableReward | Scorer | str | os.PathLike[str],
    config: FinetuneConfig | None = None,
    *,
    out: str | os.PathLike[str],
    sample_prompts: Sequence[str] | None = None,
    held_out: Scorer | str | os.PathLike[str] | None = None,
    progress: bool | None = None,
) -> Finetuned:
    """Train LoRA matrices on a pipeline's denoiser for a higher reward, or resume.

    The same call after a kill resumes from the last checkpoint, to the same weights. Works in one
    process or, started by ``torchrun`` or ``accelerate launch``, in many. At the end the matrices
    are on `pipe` itself, which draws with them; all of its other weights are frozen. Whatever ends
    the training early takes them off again.

    Args:
        pipe: `StableDiffusionPipeline`, `StableDiffusionXLPipeline` or `StableDiffusion3Pipeline`
            in float32 or bfloat16, on its device, without a safety checker.
        prompts: To train on.
        reward: A robust or plain reward, on the pipeline's device; a scorer or what
            `stablepref.load` takes is its plain reward.
        config: Everything else; None for the defaults.
        out: Folder for checkpoints, metrics.jsonl, sheets of samples and the weights in `lora`.
        sample_prompts: Prompts of the samples; None for the first of `prompts`.
        held_out: A second scorer that nothing optimises, to measure the samples by.
        progress: Show a progress bar; None shows one in a terminal.

    Returns:
        Where the weights are, and what the samples show before and after.

    Raises:
        TypeError: A pipeline, reward or prompt is of a wrong kind.
        ValueError: The pipeline, its scheduler or a setting cannot be used, `out` holds another
            training, or a picture or reward is not finite, which names the step.
        FloatingPointError: The loss or its gradient is not finite; names the step.
        ImportError: peft, or the package of `config.log_with`, is not installed.
        InUseError: Another process is training in `out`.
        OSError: A file cannot be written; checkpoints from before stay.
        KeyboardInterrupt: After SIGINT, once the step's checkpoint is written.
        SystemExit: After SIGTERM, once the step's checkpoint is written.
    """
    config, folder = config or FinetuneConfig(), Path(out)
    prompts = check_prompts(prompts)
    shown = check_prompts(sample_prompts) if sample_prompts is not None else prompts
    loop = SamplingLoop(
        pipe,
        steps=config.sampling_steps,
        guidance=config.guidance,
        negative_prompt=config.negative_prompt,
        height=config.height,
        width=config.width,
        checkpointing=config.gradient_checkpointing,
    )
    check_trainable(pipe, config)
    judge = LatentReward(pipe, reward, decode=loop.decode if loop.packed else None)
    if config.method != "ddpo" and judge.scorer.joint:
        msg = (
            f"{judge.scorer.name} has no gradient, which method={config.method!r} needs; use the "
            'method "ddpo"'
        )
        raise ValueError(msg)
    monitor = RewardMonitor(
        judge.scorer,
        held_out=None if held_out is None else as_scorer(held_out, pipe.device),
        views=config.monitor_views,
    )
    watched = sample_pictures(
        shown[: config.samples], each=config.pictures_per_sample, seed=config.seed
    )
    if len(watched) < LEAST_WATCHED:
        msg = (
            f"there is {len(watched)} sample, and a report needs {LEAST_WATCHED}: give "
            "more sample_prompts or pictures_per_sample"
        )
        raise ValueError(msg)
    with (
        engine(config, folder) as accelerator,
        sole_writer(folder, folder=True, active=accelerator.is_main_process),
        torch.enable_grad(),
    ):
        if config.batch_size % accelerator.num_processes:
            msg = (
                f"batch_size is {config.batch_size}; expected a multiple of the "
                f"{accelerator.num_processes} processes"
            )
            raise ValueError(msg)
        described = described_finetuning(
            config, pipe, judge, prompts, shown[: config.samples], held_out=monitor.held_out
        )
        found = checkpoint_of(folder, described, resume=True)
        if found is not None and found.step > config.steps:
            msg = f"{folder} holds a training of {found.step} steps, steps is {config.steps}"
            raise ValueError(msg)
        at_once = config.micro_batch_size or config.batch_size
        watch = SampleWatch(loop, monitor, watched, at_once, folder)
        weights = add_lora(pipe, rank=config.rank, seed=config.seed)
        try:
            optimizer = build_optimizer(
                weights,
                learning_rate=config.learning_rate,
                weight_decay=config.weight_decay,
                betas=(0.9, 0.999),
                eps=1e-8,
            )
            # Not wrapped for DDP: sampling calls the denoiser many times before it goes back once.
            accelerator.prepare_model(weights, device_placement=False, evaluation_mode=True)
            run = FinetuneRun(
                accelerator, loop, judge, weights,
                accelerator.prepare_optimizer(optimizer, device_placement=False),
                config, prompts, folder, described,
            )  # fmt: skip
            with threads_for(*modules_of(pipe), judge.scorer):
                return _train(run, watch, found, progress=progress)
        except BaseException:
            remove_lora(pipe)
            raise


def check_trainable(pipe: Any, config: FinetuneConfig) -> None:  # noqa: ANN401 (diffusers has no types)
    """Refuse what would train on other pictures than the pipeline is to make.

    Raises:
        ValueError: It has a safety checker or adapters, or a scheduler without policy for ddpo.
    """
    check_no_adapters(pipe)
    refuse_safety_checker(pipe)
    if config.method == "ddpo":
        check_policy(pipe.scheduler)


def _train(
    run: FinetuneRun, watch: SampleWatch, found: Checkpoint | None, *, progress: bool | None
) -> Finetuned:
    accelerator, config, folder = run.accelerator, run.config, run.folder
    start: int = 0
    reports: dict[str, Report] = {}
    if found is not None:
        accelerator.load_state(str(found.path))
        start = found.step
        reports = _reports(found)
        watch.monitor.baseline = reports["first"]
    if accelerator.is_main_process:
        for place in (folder / CHECKPOINTS, folder / LORAS):
            remove_leftovers(place)
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
        result = Finetuned(folder / LORA, reports["first"], reports["last"], signs)
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
    one_step = ddpo_step if config.method == "ddpo" else draft_step
    for step in range(start, config.steps):
        since = time.monotonic()
        rate = config.learning_rate * min(1.0, (step + 1) / max(1, config.warmup_steps))
        for group in run.optimizer.param_groups:
            group["lr"] = rate
        metrics = one_step(run, step) | {"learning_rate": rate}
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
    if main and step:
        save_lora(run.loop.pipe, run.folder / LORAS / f"step-{step:08d}")
    report = watch.visit(step, write=main)
    log.write(step, {f"sample_{name}": value for name, value in report.scalars().items()})
    log.say(f"step {step}: mean reward of the samples {report.reward:.3f}")
    for sign in watch.monitor.signs(report):
        log.say(f"step {step}: {sign}")
    return report


def _save(run: FinetuneRun, result: Finetuned) -> None:
    """The weights in their place, and beside them what they came from and what was measured."""
    save_lora(run.loop.pipe, result.lora)
    report = {
        **run.described,
        "steps": run.config.steps,
        "first": asdict(result.first),
        "last": asdict(result.last),
        "signs": list(result.signs),
    }
    with replacing(run.folder / REPORT_FILE) as staging:
        staging.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
