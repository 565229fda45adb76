"""`stablepref eval`: how well models agree with people, and how stable their choices are."""

from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from stablepref.cli.cli_options import (
    AsJson,
    BatchSize,
    Device,
    Dtype,
    Format,
    ImageFolder,
    Like,
)
from stablepref.cli.ends import finish, reported


class TieRule(StrEnum):
    """The rules of `stablepref.evaluation.agreement.pairwise_accuracy`."""

    HALF = "half"
    HPSV2 = "hpsv2"
    IMAGEREWARD = "imagereward"
    PICKSCORE = "pickscore"


@reported
def evaluate(  # noqa: PLR0913, PLR0917 (the arguments of a command are its options)
    data: Annotated[
        str,
        typer.Argument(
            help="Ranked groups: a .jsonl, .json, .parquet or .tar file, a folder of such files or "
            "of PROMPT/RANK.png, or hf:user/repository."
        ),
    ],
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help="As for `score`; given several times, each is set beside the first.",
        ),
    ] = None,
    like: Like = None,
    device: Device = None,
    dtype: Dtype = None,
    batch_size: BatchSize = None,
    data_format: Format = "auto",
    images: ImageFolder = None,
    split: Annotated[
        str | None, typer.Option(help="The split, where the data has several in one place.")
    ] = None,
    perturbations: Annotated[
        str,
        typer.Option(
            help="Perturbations to measure under, separated by commas: table1 (mirror and crop, as "
            "in the paper), unseen (JPEG, blur, ...), all, none, or names of single ones, also of "
            "those that installed packages add."
        ),
    ] = "table1",
    tie_rule: Annotated[
        TieRule, typer.Option(help="What ties do; the last three are official codes' rules.")
    ] = TieRule.HALF,
    tie_margin: Annotated[
        float, typer.Option(min=0, help="Scores that differ by at most this are tied.")
    ] = 0.0,
    mirror_sided: Annotated[
        bool,
        typer.Option(
            "--mirror-sided",
            help="Mirror images whose prompt names left or right too, as the paper does.",
        ),
    ] = False,
    as_json: AsJson = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Also write everything, with every score, to a .json file; after a kill the same "
            "command goes on."
        ),
    ] = None,
    plots: Annotated[Path | None, typer.Option(help="Also draw plots into this folder.")] = None,
) -> None:
    """Measure how well models agree with people, and how stable their choices are."""
    names: list[str | None] = list(model) if model else [None]
    options = [  # checked before the next import, which brings torch
        import_module("stablepref.cli.score").Options(name, like, device, dtype, 0, batch_size)
        for name in names
    ]
    commands = import_module("stablepref.cli.eval")
    tally = commands.evaluate(
        commands.Data(data, data_format, images, split),
        options,
        perturbations=perturbations,
        tie_rule=tie_rule.value,
        tie_margin=tie_margin,
        mirror_sided=mirror_sided,
        as_json=as_json,
        out=out,
        plots=plots,
    )
    finish(tally)
