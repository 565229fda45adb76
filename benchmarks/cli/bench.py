"""`stablepref bench`: text-to-image models on sets of prompts, and what the scores conclude."""

from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from stablepref.cli.cli_options import (
    AsJson,
    Device,
    Dtype,
    Guidance,
    Height,
    NegativePrompt,
    Steps,
    Width,
    pipeline_call,
)
from stablepref.cli.ends import finish, reported

from .cli_paper import paper


class RunByDefault(TyperGroup):
    """A group in which anything but a command's name is what `run` takes."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 (typer's own)
        """Put `run` before what is no command."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=RunByDefault,
    no_args_is_help=True,
    help="Benchmark text-to-image models: `stablepref bench drawbench --model A --model B`. "
    "`stablepref bench run --help` lists the options.",
)

ORACLE = "oracle"  # as in stablepref.benchmarks.bench.judges, which brings torch
AsMarkdown = Annotated[bool, typer.Option("--markdown", help="Print Markdown.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="Print the leaderboard as CSV.")]


@app.command()
@reported
def run(  # noqa: PLR0913, PLR0917 (the arguments of a command are its options)
    prompts: Annotated[
        str,
        typer.Argument(
            help="drawbench, hpdv2, parti, geneval, imagereward, lab, or a file of prompts: .csv, "
            ".tsv, .json, .jsonl, .txt."
        ),
    ],
    model: Annotated[
        list[str],
        typer.Option(
            "--model",
            "-m",
            help="[NAME=]SOURCE[,KEY=VALUE...], several times: a diffusers pipeline (shapes, which "
            "is bundled, a folder or a hub repository) with lora=PATH@WEIGHT, steps=, guidance= "
            "and other arguments of its call; or a folder or manifest of finished images.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="Folder of the run; after a kill the same command goes on there."
        ),
    ],
    scorer: Annotated[
        list[str] | None,
        typer.Option(
            "--scorer",
            "-s",
            help="As --model of `score`, several times; also oracle, which grades the prompts of "
            "lab. Default: $STABLEPREF_MODEL or hps-v2.1.",
        ),
    ] = None,
    prompt_file: Annotated[
        Path | None,
        typer.Option("--prompts", help="Where the named set's file is; by default it is fetched."),
    ] = None,
    people: Annotated[
        Path | None,
        typer.Option(
            help="Ranked groups of the finished images, as `stablepref data check` reads them: how "
            "people rank the models, beside the scorers.",
        ),
    ] = None,
    images: Annotated[int, typer.Option("--images", "-n", min=1, help="Of each prompt.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the first image; each has its own.")] = 0,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images of one prompt generated at once.")
    ] = None,
    steps: Steps = None,
    guidance: Guidance = None,
    negative_prompt: NegativePrompt = None,
    height: Height = None,
    width: Width = None,
    pipeline_dtype: Annotated[
        str | None, typer.Option(help="Number type of the pipelines: bfloat16, ...")
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    retry: Annotated[
        bool, typer.Option("--retry", help="Make and score those again that failed before.")
    ] = False,
    page: Annotated[
        bool, typer.Option("--report", help="Also write the page of `bench report`.")
    ] = False,
    as_json: AsJson = False,
    as_markdown: AsMarkdown = False,
    as_csv: AsCsv = False,
) -> None:
    """Make every model's images of every prompt, score them, and compare the models."""
    style = _style(as_json=as_json, as_markdown=as_markdown, as_csv=as_csv)
    call = pipeline_call(
        steps=steps,
        guidance=guidance,
        negative_prompt=negative_prompt,
        height=height,
        width=width,
    )
    # Checked before the next import, which brings torch.
    contestants = import_module("stablepref.benchmarks.bench.contestants").parse_contestants(model)
    scorers: list[str | None] = list(scorer) if scorer else [None]
    for name in scorers:
        if name != ORACLE:
            import_module("stablepref.cli.score").Options(name, None, device, dtype, 0)
    commands = import_module("stablepref.benchmarks.cli.commands")
    # Now, so that a missing matplotlib is told before hours of work.
    reports = import_module("stablepref.benchmarks.bench.report.page") if page else None
    making = commands.Making(
        images=images,
        seed=seed,
        call=call,
        batch_size=batch_size,
        pipeline_dtype=pipeline_dtype,
        retry=retry,
    )
    tally = commands.run(
        prompts,
        contestants,
        scorers,
        making,
        out=out,
        prompt_file=prompt_file,
        people=people,
        device=device,
        dtype=dtype,
        style=style,
    )
    if reports is not None and commands.joined_processes().is_main_process:
        commands.log.print(f"wrote {reports.write_report([out])}")
    finish(tally)


@app.command()
@reported
def leaderboard(
    runs: Annotated[
        list[Path], typer.Argument(help="Folders of runs; several need the same prompts.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Also write the tables into this folder.")
    ] = None,
    as_json: AsJson = False,
    as_markdown: AsMarkdown = False,
    as_csv: AsCsv = False,
) -> None:
    """Print the leaderboard, pairs and ranking of one run, or of several together."""
    style = _style(as_json=as_json, as_markdown=as_markdown, as_csv=as_csv)
    commands = import_module("stablepref.benchmarks.cli.commands")
    finish(commands.leaderboard(runs, out=out, style=style))


@app.command()
@reported
def report(
    runs: Annotated[
        list[Path], typer.Argument(help="Folders of runs; several need the same prompts.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Folder of the report; by default `report` in that of the one run."
        ),
    ] = None,
    copy: Annotated[
        bool, typer.Option("--copy", help="Copy all images beside the page, to move or publish it.")
    ] = False,
) -> None:
    """Write a page to look at: leaderboard, win rates, categories, and a gallery of all images."""
    import_module("stablepref.benchmarks.bench.report.page").report(runs, out=out, copy=copy)


app.command()(paper)


def _style(*, as_json: bool, as_markdown: bool, as_csv: bool) -> str:
    chosen = [
        name
        for name, wanted in (("json", as_json), ("markdown", as_markdown), ("csv", as_csv))
        if wanted
    ]
    if len(chosen) > 1:
        msg = f"one of {', '.join(f'--{name}' for name in chosen)}, not several"
        raise ValueError(msg)
    return chosen[0] if chosen else "table"
