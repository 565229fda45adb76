"""`stablepref finetune`: LoRA weights that raise a diffusers pipeline's reward."""

from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from stablepref.cli.cli_options import AsJson, Device, Dtype
from stablepref.cli.ends import reported
from stablepref.cli.options import with_settings

from ..finetune.config import FinetuneConfig

_PANEL = "Settings (none leaves a setting out)"


@with_settings(FinetuneConfig, panel=_PANEL)
@reported
def finetune(  # noqa: PLR0913 (the arguments of a command are its options)
    pipeline: Annotated[
        str,
        typer.Argument(
            help="A diffusers pipeline: shapes, which is bundled, its folder, or the name of a hub "
            "repository."
        ),
    ],
    *,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="Folder for checkpoints, metrics, sheets of samples and the LoRA weights; after "
            "a kill the same command goes on.",
        ),
    ],
    prompt: Annotated[
        list[str] | None,
        typer.Option("--prompt", "-p", help="A prompt to train on; may be given several times."),
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="A text file with a prompt to train on in each line.")
    ] = None,
    sample_prompts: Annotated[
        Path | None,
        typer.Option(
            help="A text file with the prompts to watch; by default the first to train on."
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", "-m", help="The scorer, as for `score`; several are averaged by log-odds."
        ),
    ] = None,
    views: Annotated[
        int, typer.Option(min=0, help="Robust reward: with so many weak views of each picture.")
    ] = 0,
    worst: Annotated[
        bool, typer.Option("--worst", help="Their worst reward in place of their mean.")
    ] = False,
    held_out: Annotated[
        str | None, typer.Option(help="A second scorer, not optimised, to watch the samples by.")
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    pipeline_dtype: Annotated[
        str | None, typer.Option(help="Number type of the pipeline: bfloat16, ...")
    ] = None,
    as_json: AsJson = False,
    **settings: str | None,
) -> None:
    """Fine-tune a pipeline on a reward; in many processes when started by torchrun."""
    work = import_module("stablepref.integrations.cli.finetune")
    work.finetune_command(
        pipeline,
        {name: value for name, value in settings.items() if value is not None},
        work.RewardOptions(model or [], views, "min" if worst else "mean", held_out, device, dtype),
        prompts=prompt or [],
        prompt_file=prompts,
        sample_file=sample_prompts,
        pipeline_dtype=pipeline_dtype,
        out=out,
        as_json=as_json,
    )
