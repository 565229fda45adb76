"""Writes preference data: `python -m stablepref.benchmarks.shapes.dataset --out DIR --groups N`."""

from pathlib import Path
from typing import Annotated

import typer

from .people.dataset import write_dataset
from .people.settings import SETTINGS, SettingName
from .world.drawing import IMAGE_SIZE
from .world.scenes import SPLITS


def main(
    out: Annotated[Path, typer.Option(help="folder for the data")],
    groups: Annotated[int, typer.Option(min=1, help="training groups")] = 1000,
    held_out: Annotated[
        int, typer.Option(min=1, help="validation groups, and as many test groups")
    ] = 200,
    setting: Annotated[SettingName, typer.Option(help="kind of preference data")] = "hpdv2",
    seed: Annotated[int, typer.Option(help="random seed")] = 0,
    size: Annotated[int, typer.Option(min=16, help="side of the pictures in pixels")] = IMAGE_SIZE,
    annotators: Annotated[
        int | None,
        typer.Option(help="people who rank each group; the setting's number if left out"),
    ] = None,
) -> None:
    """Write preference data of the laboratory: DIR/{train,validation,test}.jsonl and images."""
    try:
        write_dataset(
            out,
            SETTINGS[setting],
            {"train": groups, "validation": held_out, "test": held_out},
            seed=seed,
            size=size,
            annotators=annotators,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    for split in SPLITS:
        typer.echo(out / f"{split}.jsonl")


if __name__ == "__main__":
    typer.run(main)
