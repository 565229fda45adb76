"""`stablepref train`: a preference model from ranked or paired images."""

from pathlib import Path
from typing import Annotated

import typer

from stablepref.cli.ends import say
from stablepref.cli.groups import usable_groups
from stablepref.cli.options import (
    GROUPS,
    Format,
    ImageFolder,
    Threads,
    check_folder,
)
from stablepref.cli.settings import read_setting, with_settings
from stablepref.recipes import RECIPES, TrainConfig
from stablepref.recipes import recipe as named


@with_settings(TrainConfig, panel="Settings, by default those of the recipe", defaults=False)
def train(
    *,
    data: Annotated[str, typer.Option(help=GROUPS)],
    out: Annotated[
        Path,
        typer.Option(help="Folder for checkpoints, metrics, and the models `best` and `last`."),
    ],
    recipe: Annotated[str, typer.Option(help=f"One of {', '.join(RECIPES)}.")] = "sp-clip-h",
    validation: Annotated[
        str | None,
        typer.Option(help="Ranked groups, as for --data, by which the best model is chosen."),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="The split to train on, if --data has several.")
    ] = None,
    validation_split: Annotated[
        str | None, typer.Option(help="The split to validate on, if --validation has several.")
    ] = None,
    data_format: Format = "auto",
    images: ImageFolder = None,
    threads: Threads = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume the training in --out.")] = False,
    **settings: str | None,
) -> None:
    """Train a preference model, on one process or under torchrun or accelerate launch."""
    given = {
        name: read_setting(TrainConfig, name, text)
        for name, text in settings.items()
        if text is not None
    }
    config = named(recipe, **given)
    check_folder("--out", out)
    groups = usable_groups(data, split, data_format, images)
    held_out = (
        usable_groups(validation, validation_split, data_format, images) if validation else None
    )

    from accelerate import PartialState

    from stablepref.runtime.threads import use_threads
    from stablepref.trainer import train as run

    use_threads(threads)
    run(groups, config, out=out, validation=held_out, resume=resume)
    if PartialState().is_main_process:
        names = ["last", "best"] if held_out else ["last"]
        say(f"trained: {', '.join(str(out / name) for name in names)}")
