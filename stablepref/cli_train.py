"""`stablepref train`: a preference model from ranked or paired images."""

import inspect
from collections.abc import Callable
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Annotated, get_args, get_type_hints

import typer

from stablepref.cli_ends import reported
from stablepref.cli_options import Format, ImageFolder
from stablepref.recipes import RECIPES, TrainConfig

_PANEL = "Settings, by default the recipe's (none leaves a setting out)"


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for every field of `TrainConfig`, with its annotation as help."""
    own = [
        parameter
        for parameter in inspect.signature(command).parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    hints = get_type_hints(TrainConfig, include_extras=True)
    settings = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                str | None,
                typer.Option(
                    help=get_args(hints[field.name])[1],
                    rich_help_panel=_PANEL,
                    show_default=False,
                    metavar="VALUE",
                ),
            ],
        )
        for field in fields(TrainConfig)
    ]
    command.__signature__ = inspect.Signature([*own, *settings])  # type: ignore[attr-defined] # what inspect looks for
    return command


@with_settings
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
    import_module("stablepref.commands_train").train(
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
