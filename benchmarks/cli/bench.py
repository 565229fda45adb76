"""`stablepref bench`: text-to-image models on sets of prompts, and what the scores conclude."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from typer.core import TyperGroup

from stablepref.cli.ends import Tally, finish, say
from stablepref.cli.options import (
    AsJson,
    AsMarkdown,
    Device,
    Dtype,
    PipelineCall,
    PipelineDtype,
    ScorerOptions,
    Threads,
    check_folder,
    chosen,
    with_options,
)
from stablepref.integrations.diffusion.named import check_pipeline_dtype

from ..bench.contestants import check_sources, parse_contestants
from .alignment import dpg, geneval2, judge, tifa
from .paper import paper

if TYPE_CHECKING:
    from ..bench.score_table import ScoreTable
    from ..bench.statistics.summary import Summary

ORACLE: Final = "oracle"  # as in stablepref.benchmarks.bench.judges, which brings torch
REASONS: Final = 20
"""Most reasons for missing scores that are printed."""

AsCsv = Annotated[bool, typer.Option("--csv", help="Print the leaderboard as CSV.")]
Runs = Annotated[
    list[Path],
    typer.Argument(help="Folders of runs; several must be of the same prompts."),
]


class RunByDefault(TyperGroup):
    """A group in which anything but a command's name is what `run` takes."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 (typer's own)
        """Put `run` before what is not a command."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=RunByDefault,
    no_args_is_help=True,
    help="Benchmark text-to-image models: `stablepref bench drawbench --model A --model B`.\n\n"
    "`stablepref bench run --help` lists the options.",
)


@app.command()
@with_options
def run(
    *,
    prompts: Annotated[
        str,
        typer.Argument(
            help="drawbench, hpdv2, parti, geneval, imagereward, lab, or a file of prompts: .csv, "
            ".tsv, .json, .jsonl or .txt."
        ),
    ],
    model: Annotated[
        list[str],
        typer.Option(
            "--model",
            "-m",
            help="[NAME=]SOURCE[,KEY=VALUE...], once for each model: a diffusers pipeline (shapes, "
            "which is bundled, a folder, or a hub repository) with lora=PATH@WEIGHT, steps=, "
            "guidance= and other arguments of its call; or a folder or manifest of images that "
            "are made already.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="Folder of the run; if interrupted, run the same command again to resume.",
        ),
    ],
    scorer: Annotated[
        list[str] | None,
        typer.Option(
            "--scorer",
            "-s",
            help="A scorer, as for `score`; may be given several times. Also oracle, which "
            "grades the prompts of lab.",
            show_default="$STABLEPREF_MODEL, else hps-v2.1",
        ),
    ] = None,
    prompt_file: Annotated[
        Path | None,
        typer.Option("--prompts", help="The file of the named prompt set; downloaded by default."),
    ] = None,
    people: Annotated[
        Path | None,
        typer.Option(
            help="Ranked groups of the images, as `stablepref data check` reads them: shows how "
            "people rank the models beside the scorers.",
        ),
    ] = None,
    images: Annotated[
        int, typer.Option("--images", "-n", min=1, help="Images of each prompt.")
    ] = 1,
    seed: Annotated[
        int, typer.Option(help="Seed of the first image; the others count up from it.")
    ] = 0,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Images generated at once, of several prompts; chosen automatically by default.",
        ),
    ] = None,
    call: PipelineCall,
    pipeline_dtype: PipelineDtype = None,
    device: Device = None,
    dtype: Dtype = None,
    threads: Threads = None,
    retry: Annotated[
        bool,
        typer.Option("--retry", help="Generate and score again what failed before."),
    ] = False,
    page: Annotated[
        bool, typer.Option("--report", help="Also write the page of `bench report`.")
    ] = False,
    as_json: AsJson = False,
    as_markdown: AsMarkdown = False,
    as_csv: AsCsv = False,
) -> None:
    """Generate every model's images of every prompt, score them, and compare the models."""
    style = chosen(json=as_json, markdown=as_markdown, csv=as_csv)
    check_folder("--out", out)
    check_pipeline_dtype(pipeline_dtype)
    contestants = parse_contestants(model)
    check_sources(contestants)
    scorers: list[str | None] = list(scorer) if scorer else [None]
    for name in scorers:
        if name != ORACLE:
            ScorerOptions(name, None, device, dtype)

    from stablepref.data.read import read_groups
    from stablepref.output.locks import sole_writer
    from stablepref.runtime.threads import use_threads

    from ..bench.judges import Judge, load_judges
    from ..bench.people import PeopleJudge
    from ..bench.processes import joined_processes
    from ..bench.prompt_sets import read_prompt_set
    from ..bench.report.files import write_summary
    from ..bench.run import bench
    from ..bench.statistics.summary import summarise

    if page:  # before hours of work, as it needs matplotlib
        from ..bench.report.page import write_report

    use_threads(threads)
    chosen_set = read_prompt_set(prompts, file=prompt_file)
    state = joined_processes()
    with sole_writer(out, folder=True, active=state.is_main_process):
        pass  # another process that writes there is reported before models are loaded
    judges: tuple[Judge, ...] = load_judges(scorers, device=device, dtype=dtype)
    if people is not None:
        judges += (PeopleJudge(list(read_groups(people))),)
    try:
        table = bench(
            chosen_set,
            contestants,
            judges,
            out=out,
            images=images,
            seed=seed,
            arguments=call.arguments(),
            batch_size=batch_size,
            pipeline_dtype=pipeline_dtype,
            device=device,
            retry=retry,
        )
    except KeyboardInterrupt:
        say(f"what is done is kept in {out}: run the same command again to resume")
        raise
    if not state.is_main_process:
        return
    summary = summarise(table)
    _explain(table, summary)
    write_summary(out, table, summary)
    _say_what_was_written(out)
    _show(summary, style)
    if page:
        say(f"wrote {write_report([out])}")
    finish(_count(table))


@app.command()
def leaderboard(
    runs: Runs,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Also write the tables into this folder.")
    ] = None,
    as_json: AsJson = False,
    as_markdown: AsMarkdown = False,
    as_csv: AsCsv = False,
) -> None:
    """Print the leaderboard, pairs and ranking of one run, or of several together."""
    style = chosen(json=as_json, markdown=as_markdown, csv=as_csv)

    from ..bench.report.files import SUMMARY_FILE, write_summary
    from ..bench.run_files import CONFIG_FILE
    from ..bench.score_table import joined, read_table, unshared
    from ..bench.statistics.summary import summarise

    for folder in runs:
        if (folder / CONFIG_FILE).is_file() and not (folder / SUMMARY_FILE).is_file():
            say(f"{folder} is not finished: these are the scores so far")
    tables = [read_table(folder) for folder in runs]
    for name in unshared(tables):
        say(f"{name} is left out: only some of the runs have this scorer")
    table = joined(tables)
    summary = summarise(table)
    _explain(table, summary)
    if out is not None:
        write_summary(out, table, summary)
        _say_what_was_written(out)
    _show(summary, style)
    finish(_count(table))


@app.command()
def report(
    runs: Runs,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder of the report; by default `report` in the folder of the run.",
        ),
    ] = None,
    copy: Annotated[
        bool,
        typer.Option("--copy", help="Copy all images into the report, to move or publish it."),
    ] = False,
) -> None:
    """Write a web page: leaderboard, win rates, categories, and a gallery of all images."""
    from ..bench.report.files import MARKDOWN_FILE, SUMMARY_FILE
    from ..bench.report.page import write_report

    page = write_report(runs, out=out, copy=copy)
    say(f"wrote {MARKDOWN_FILE}, {SUMMARY_FILE} and a .csv file for each table beside it")
    print(page)


app.command()(paper)
for command in (geneval2, tifa, dpg, judge):
    app.command()(command)


def _show(summary: "Summary", style: str | None) -> None:
    from stablepref.output.tables import print_table

    from ..bench.report.files import markdown
    from ..bench.report.sheets import sheets

    if style == "json":
        print(json.dumps(summary.as_dict(), indent=1))
    elif style == "markdown":
        print(markdown(summary), end="")
    elif style == "csv":
        sys.stdout.write(sheets(summary)[0].csv())
    else:
        for sheet in sheets(summary):
            print_table(sheet)


def _explain(table: "ScoreTable", summary: "Summary") -> None:
    """Name what could not be scored, a line for each model and reason, and all warnings."""
    images: dict[tuple[str, str], list[str]] = {}
    for one in table.failures:
        names = images.setdefault((one.model, one.reason), [])
        name = f"{one.prompt} image {one.image}"
        if name not in names:
            names.append(name)
    for (model, reason), names in list(images.items())[:REASONS]:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        say(f"{model} {names[0]}{more}: {reason}")
    if len(images) > REASONS:
        say(f"and {len(images) - REASONS} more reasons: see failures.csv")
    for warning in summary.warnings:
        say(f"note: {warning}")


def _say_what_was_written(folder: Path) -> None:
    from ..bench.report.files import MARKDOWN_FILE, SUMMARY_FILE

    say(f"wrote {folder / MARKDOWN_FILE}, {SUMMARY_FILE} and a .csv file for each table")


def _count(table: "ScoreTable") -> Tally:
    """Images with a score of every scorer, and others."""
    import numpy as np

    failed = {(one.model, one.prompt, one.image) for one in table.failures}
    scored = int((~np.isnan(table.scores)).all(axis=1).sum())
    return Tally(scored=scored, failed=len(failed))
