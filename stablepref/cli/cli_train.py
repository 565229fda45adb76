"""`stablepref train`: a preference model from ranked or paired images."""

from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from stablepref.cli.cli_options import Format, ImageFolder
from stablepref.cli.ends import reported
from stablepref.cli.options import with_settings
from stablepref.recipes import RECIPES, TrainConfig

_PANEL = "Settings, by default the recipe's (none leaves a setting out)"


@with_settings(TrainConfig, panel=_PANEL)
@reported
def train(
    *,
    data: Annotated[
        str,
        typer.Option(
            help="Ranked groups: a .jsonl, .json, .parquet or .tar file, a folder of such files or "
            "of PROMPT/RANK.png, or hf:user/repository."
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="Folder for checkpoints, metrics and the models best and last.")
    ],
    recipe: Annotated[str, typer.Option(help=f"One of {', '.join(RECIPES)}.")] = "sp-clip-h",
    validation: Annotated[
        str | None, typer.Option(help="Groups that choose the best model; as --data.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="The split to train on, where --data has several.")
    ] = None,
    validation_split: Annotated[
        str | None, typer.Option(help="The split to validate on, where --validation has several.")
    ] = None,
    data_format: Format = "auto",
    images: ImageFolder = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the training that --out holds.")
    ] = False,
    **settings: str | None,
) -> None:
    """Train a preference model; in many processes when started by torchrun or accelerate."""
    import_module("stablepref.cli.train").train(
        recipe,
        {name: value for name, value in settings.items() if value is not None},
        data=data,
        validation=validation,
        split=split,
        validation_split=validation_split,
        data_format=data_format,
        images=images,
        out=out,
        resume=resume,
    )
