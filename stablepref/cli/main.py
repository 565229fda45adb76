"""The command line: it parses, calls and tells the end. Needs no torch until a command runs."""

import io
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from stablepref.benchmarks.cli import bench as cli_bench
from stablepref.benchmarks.cli import cli_demo
from stablepref.cli import cli_data, cli_eval, cli_train
from stablepref.cli.cli_options import AsJson, BatchSize, Device, Dtype, Like
from stablepref.cli.ends import finish, reported
from stablepref.integrations.cli import cli_finetune, cli_select
from stablepref.output.text import ANY_TEXT

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Score text-to-image generations the way people would.",
    epilog="Exit codes: 0 all went well, 1 something could not be scored or is wrong in the data, "
    "2 wrong use or nothing done.",
)

Images = Annotated[
    list[str],
    typer.Argument(
        help="Files, folders, globs, URLs, or one manifest (.jsonl, .csv, .parquet) with an image "
        "and its prompt in each row.",
    ),
]
Prompt = Annotated[str | None, typer.Option("--prompt", "-p", help="The prompt of all images.")]
PairPrompt = Annotated[str, typer.Option("--prompt", "-p", help="The prompt of both.")]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="A name of `stablepref models`, a folder, an official file, or hf-hub:user/repo. "
        "Default: $STABLEPREF_MODEL or hps-v2.1.",
    ),
]
Views = Annotated[
    int, typer.Option(min=0, help="Average over so many weak views, and tell their spread.")
]
AsCsv = Annotated[bool, typer.Option("--csv", help="Print CSV.")]
Out = Annotated[
    Path | None,
    typer.Option(help="Write a .jsonl, .json or .csv file; after a kill the same command goes on."),
]


def main() -> None:
    """Run the command line."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=ANY_TEXT)
    app(prog_name="stablepref")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"stablepref {version('stablepref')}")
        raise typer.Exit


@app.callback()
def _root(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del show_version  # its callback has done all


@app.command()
@reported
def score(
    images: Images,
    prompt: Prompt = None,
    model: Model = None,
    like: Like = None,
    device: Device = None,
    dtype: Dtype = None,
    batch_size: BatchSize = None,
    views: Views = 0,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    out: Out = None,
) -> None:
    """Score images against a prompt, or each row of a manifest against its own."""
    if out is not None and (as_json or as_csv):
        msg = "--out takes the format from the file's name: leave --json and --csv out"
        raise ValueError(msg)
    style = _style(as_json=as_json, as_csv=as_csv)
    commands = import_module("stablepref.cli.score")
    options = commands.Options(model, like, device, dtype, views, batch_size)
    finish(commands.score(images, prompt, options, style=style, out=out))


@app.command()
@reported
def rank(
    images: Images,
    prompt: Prompt = None,
    model: Model = None,
    like: Like = None,
    device: Device = None,
    dtype: Dtype = None,
    batch_size: BatchSize = None,
    views: Views = 0,
    top: Annotated[
        int | None, typer.Option(min=1, help="Show only so many of the best for each prompt.")
    ] = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    html: Annotated[
        Path | None, typer.Option(help="Write a page with the pictures in order too.")
    ] = None,
) -> None:
    """Order images from best to worst for a prompt, or for each prompt of a manifest."""
    style = _style(as_json=as_json, as_csv=as_csv)
    commands = import_module("stablepref.cli.score")
    options = commands.Options(model, like, device, dtype, views, batch_size)
    finish(commands.rank(images, prompt, options, style=style, top=top, html=html))


@app.command()
@reported
def compare(
    a: Annotated[str, typer.Argument(help="One image.")],
    b: Annotated[str, typer.Argument(help="The other.")],
    prompt: PairPrompt,
    model: Model = None,
    like: Like = None,
    device: Device = None,
    dtype: Dtype = None,
    views: Views = 0,
    as_json: AsJson = False,
) -> None:
    """Say which of two images people would prefer, or that it is a tie."""
    commands = import_module("stablepref.cli.score")
    options = commands.Options(model, like, device, dtype, views)
    commands.compare(a, b, prompt, options, as_json=as_json)


@app.command()
@reported
def models(as_json: AsJson = False) -> None:
    """List the models that can be loaded by name."""
    import_module("stablepref.cli.score").models(as_json=as_json)


def _style(*, as_json: bool, as_csv: bool) -> str:
    if as_json and as_csv:
        msg = "--json or --csv, not both"
        raise ValueError(msg)
    return ".json" if as_json else ".csv" if as_csv else "table"


# Commands in modules of their own, which import as little as this one.
app.command("demo")(cli_demo.demo)
app.command("eval")(cli_eval.evaluate)
app.command("finetune")(cli_finetune.finetune)
app.command("select")(cli_select.select)
app.command("train")(cli_train.train)
app.add_typer(cli_bench.app, name="bench")
app.add_typer(cli_data.app, name="data")
