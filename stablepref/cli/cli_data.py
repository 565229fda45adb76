"""`stablepref data`: preference data before it is trained on or evaluated with."""

from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from stablepref.cli.cli_options import AsJson, Format, ImageFolder
from stablepref.cli.ends import NOTHING_DONE, SOME_FAILED, reported

app = typer.Typer(no_args_is_help=True, help="Look at preference data.")


@app.callback()
def _root() -> None:
    """Make `check` a command of its own although it is the only one."""


@app.command()
@reported
def check(
    paths: Annotated[
        list[str],
        typer.Argument(
            help="Ranked groups: a .jsonl, .json, .parquet or .tar file, a folder of such files or "
            "of PROMPT/RANK.png, or hf:user/repository. Several are taken as splits of one set."
        ),
    ],
    split: Annotated[
        list[str] | None,
        typer.Option(help="A split of the one source that holds several; may be repeated."),
    ] = None,
    data_format: Format = "auto",
    images: ImageFolder = None,
    examples: Annotated[int, typer.Option(min=0, help="Groups of each split that are shown.")] = 3,
    workers: Annotated[int, typer.Option(min=1, help="Threads that decode.")] = 8,
    as_json: AsJson = False,
    html: Annotated[
        Path | None, typer.Option(help="Write a page with the examples' pictures too.")
    ] = None,
) -> None:
    """Decode every image, count groups, pairs and ties, and find what is broken or leaks."""
    commands = import_module("stablepref.cli.data")
    clean, usable = commands.check(
        paths,
        split or [],
        data_format=data_format,
        images=images,
        examples=examples,
        workers=workers,
        as_json=as_json,
        html=html,
    )
    if not clean:
        raise typer.Exit(SOME_FAILED if usable else NOTHING_DONE)
