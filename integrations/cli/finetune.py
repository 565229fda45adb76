"""`stablepref finetune`: weights, LoRA's or all, that raise a diffusers pipeline's reward."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stablepref.cli.groups import usable_groups
from stablepref.cli.options import (
    FORMER_SCORER,
    GROUPS,
    AsJson,
    Device,
    Dtype,
    Format,
    ImageFolder,
    PipelineDtype,
    PipelineName,
    PipelineScheduler,
    SafetyChecker,
    ScorerOptions,
    Threads,
    check_folder,
    renamed_scorer,
)
from stablepref.cli.settings import read_setting, with_settings
from stablepref.data.prompts import read_prompt_file

from ..diffusion.named import check_pipeline
from ..diffusion.schedulers import check_scheduler_name
from ..finetune.config import FinetuneConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stablepref.scorer import Scorer

    from ..finetune.loop import Finetuned


@with_settings(FinetuneConfig, panel="Settings")
def finetune(
    pipeline: PipelineName,
    *,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="Folder for checkpoints, metrics, sheets of samples and the weights; if "
            "interrupted, run the same command again to resume.",
        ),
    ],
    prompt: Annotated[
        list[str] | None,
        typer.Option("--prompt", "-p", help="A prompt to train on; may be given several times."),
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="File or folder of prompts to train on, as for `bench`.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help=f"For --method dpo, which then needs no prompt. {GROUPS}"),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="The split to train on, if --data has several.")
    ] = None,
    data_format: Format = "auto",
    images: ImageFolder = None,
    sample_prompts: Annotated[
        Path | None,
        typer.Option(
            help="File or folder of prompts to draw samples of; by default the first trained on."
        ),
    ] = None,
    scorer: Annotated[
        list[str] | None,
        typer.Option(
            "--scorer",
            "-s",
            help="The scorer, as for `score`; several are averaged by their log-odds, or with "
            "--weight added.",
            show_default="$STABLEPREF_MODEL, else hps-v2.1",
        ),
    ] = None,
    weight: Annotated[
        list[float] | None,
        typer.Option(
            "--weight",
            "-w",
            help="What each --scorer's scores are multiplied by, in their order, to be added; the "
            "metrics then show each of them.",
            show_default=False,
        ),
    ] = None,
    views: Annotated[
        int,
        typer.Option(min=0, help="Robust reward: over this many weak views of each image too."),
    ] = 0,
    worst: Annotated[
        bool,
        typer.Option("--worst", help="With --views: the lowest of their rewards, not the mean."),
    ] = False,
    held_out: Annotated[
        str | None,
        typer.Option(help="A second scorer, which is not optimised, to check the samples with."),
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    pipeline_dtype: PipelineDtype = None,
    scheduler: PipelineScheduler = None,
    safety_checker: SafetyChecker = True,
    threads: Threads = None,
    as_json: AsJson = False,
    model: Annotated[list[str] | None, FORMER_SCORER] = None,
    **settings: str | None,
) -> None:
    """Fine-tune a diffusers pipeline on a reward, on one process or under torchrun."""
    check_pipeline(pipeline, pipeline_dtype)
    check_scheduler_name(scheduler)
    check_folder("--out", out)
    config = FinetuneConfig(
        **{
            name: read_setting(FinetuneConfig, name, text)
            for name, text in settings.items()
            if text is not None
        }  # type: ignore[arg-type] # checked there
    )
    trained_on = [*(prompt or ()), *(read_prompts(prompts) if prompts else ())]
    if data is not None and config.method != "dpo":
        msg = f"--data is for --method dpo, and the method is {config.method}; leave it out"
        raise ValueError(msg)
    if data is None and config.method == "dpo":
        msg = "--method dpo trains on ranked pictures; expected --data with a file of them"
        raise ValueError(msg)
    groups = None if data is None else usable_groups(data, split, data_format, images)
    if not trained_on and groups is None:
        msg = (
            "there is no prompt to train on; expected --prompt, or --prompts with a file of prompts"
        )
        raise ValueError(msg)
    sampled = read_prompts(sample_prompts) if sample_prompts else None
    models: list[str | None] = [*(renamed_scorer(scorer, model) or [])] or [None]
    weights = _weights(weight, models, config)
    scorers = [ScorerOptions(name, None, device, dtype) for name in models]
    second = None if held_out is None else ScorerOptions(held_out, None, device, dtype)

    from accelerate import PartialState

    from stablepref.runtime.threads import use_threads

    from ..diffusion.load import load_pipeline
    from ..finetune.latent_reward import WeightedReward
    from ..finetune.run import finetune as run
    from ..reward import DifferentiableReward

    use_threads(threads)
    loaded = [_on_own_device(options).load() for options in scorers]
    judges = [_together(loaded)] if weights is None else loaded
    judge = None if second is None else _on_own_device(second).load()
    pipe: Any = load_pipeline(
        pipeline,
        dtype=pipeline_dtype,
        device=loaded[0].device,
        scheduler=scheduler,
        safety_checker=safety_checker,
    )
    rewards = [
        DifferentiableReward(
            one,
            views=views,
            reduce="min" if worst else "mean",
            checkpointing=config.gradient_checkpointing,
            vae=pipe.components.get("vae"),
        )
        for one in judges
    ]
    reward: Any = rewards[0]
    if weights is not None:
        reward = [WeightedReward(r, w) for r, w in zip(rewards, weights, strict=True)]
    result = run(
        pipe, trained_on or None, reward, config,
        out=out, sample_prompts=sampled, held_out=judge, groups=groups,
    )  # fmt: skip
    if PartialState().is_main_process:
        _print(result, as_json=as_json)


def read_prompts(path: Path) -> list[str]:
    """The prompts of a file or folder in any form that `read_prompt_file` knows.

    Raises:
        OSError: It cannot be read.
        ValueError: It holds no prompt, or one that is damaged.
    """
    return [one.prompt.strip() for one in read_prompt_file(path)]


def _weights(
    given: "Sequence[float] | None", models: "Sequence[object]", config: FinetuneConfig
) -> "Sequence[float] | None":
    """The weights of several rewards; None for one reward.

    Raises:
        ValueError: There are more or fewer than scorers, or none where advantages are added.
    """
    if given and len(given) != len(models):
        msg = (
            f"--weight is given {len(given)} times; expected one for each of {len(models)} scorers"
        )
        raise ValueError(msg)
    if config.combine == "advantages" and not given:
        msg = "--combine advantages adds those of several rewards; give each --scorer a --weight"
        raise ValueError(msg)
    return given or None


def _together(loaded: "Sequence[Scorer]") -> "Scorer":
    """The one scorer, or the mean of several by their log-odds."""
    from ..ensemble import Ensemble

    return loaded[0] if len(loaded) == 1 else Ensemble(loaded, normalise="log-odds")


def _on_own_device(options: ScorerOptions) -> ScorerOptions:
    """Where a launcher has started several processes, each has an accelerator of its own."""
    import torch

    rank, found = os.environ.get("LOCAL_RANK"), torch.accelerator.current_accelerator()
    if options.device is not None or rank is None or found is None:
        return options
    return ScorerOptions(options.name, None, f"{found.type}:{rank}", options.dtype)


def _print(result: "Finetuned", *, as_json: bool) -> None:
    if as_json:
        shown = {
            "lora": None if result.lora is None else str(result.lora),
            "denoiser": None if result.denoiser is None else str(result.denoiser),
            "first": asdict(result.first),
            "last": asdict(result.last),
            "signs": list(result.signs),
        }
        print(json.dumps(shown, indent=1))
        return
    for name, before in result.first.scalars().items():
        print(f"{name:14} {before:10.4f} -> {result.last.scalars()[name]:10.4f}")
    for sign in result.signs:
        print(f"look at the samples: {sign}")
    if result.lora is not None:
        print(f"pipe.load_lora_weights({str(result.lora)!r})")
    else:
        print(f"the trained denoiser: {result.denoiser}")
