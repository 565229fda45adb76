"""`stablepref bench geneval2`, `tifa`, `dpg` and `judge`: questions answered by a `vqa:` model."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, final

import typer

from stablepref.cli.ends import Tally, finish, say
from stablepref.cli.options import (
    AsCsv,
    AsJson,
    AsMarkdown,
    Device,
    Dtype,
    check_folder,
    chosen,
    with_options,
)

if TYPE_CHECKING:
    from ..alignment.benchmarks import Benchmark
    from ..alignment.judge import VQAJudge

SCENES: Final = 60
REASONS: Final = 10
"""Most reasons for missing pictures that are printed."""

Data = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The benchmark's file.")]


@final
@dataclass(frozen=True)
class JudgeOptions:
    """Who judges, and how it runs, as typed."""

    judge: Annotated[
        str,
        typer.Option(
            "--judge",
            "-j",
            help="vqa:MODEL, such as vqa:Qwen/Qwen3-VL-8B-Instruct,form=geneval2.",
        ),
    ] = ""
    device: Device = None
    dtype: Dtype = None
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Questions asked at once; chosen by default.")
    ] = None

    def load(self) -> "VQAJudge":
        """The judge."""
        from ..alignment.judge import load_judge

        return load_judge(
            self.judge, device=self.device, dtype=self.dtype, batch_size=self.batch_size
        )


@final
@dataclass(frozen=True)
class RunOptions:
    """Whose images are examined, and where results go, as typed."""

    images: Annotated[
        list[str] | None,
        typer.Option(
            "--images",
            "-i",
            help="[NAME=]SOURCE, once for each model: a JSON object of paths by prompt or id, a "
            "folder of images named by places or ids, or a manifest.",
        ),
    ] = None
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder of the run; if interrupted, run the same command again to resume.",
        ),
    ] = None
    scenes: Annotated[
        int,
        typer.Option(
            min=0,
            help="Drawn scenes of which everything is known, on which the judge is tried; its "
            "error rate is shown beside its scores. 0 leaves it out.",
        ),
    ] = SCENES
    as_json: AsJson = False
    as_markdown: AsMarkdown = False
    as_csv: AsCsv = False


Published = Annotated[
    bool, typer.Option("--published", help="With the quirks of the published code.")
]


@with_options
def geneval2(
    *, data: Data, judge: JudgeOptions, options: RunOptions, published: Published = False
) -> None:
    """GenEval 2: Soft-TIFA, arithmetic and geometric, by skill and by number of atoms."""

    def read() -> "Benchmark":
        from ..alignment.benchmarks import GenEval2

        return GenEval2.read(data, published=published)

    _run(read, data, judge, options)


@with_options
def tifa(*, data: Data, judge: JudgeOptions, options: RunOptions) -> None:
    """TIFA v1.0: multiple-choice questions about each caption, by element type."""

    def read() -> "Benchmark":
        from ..alignment.benchmarks import Tifa

        return Tifa.read(data)

    _run(read, data, judge, options)


@with_options
def dpg(
    *,
    data: Data,
    judge: JudgeOptions,
    options: RunOptions,
    pictures: Annotated[
        int,
        typer.Option(
            min=1, max=4, help="Pictures of each image: 1 is the whole, 4 a grid of two by two."
        ),
    ] = 4,
    published: Published = False,
) -> None:
    """DPG-Bench: yes-or-no questions that depend on others, by category."""

    def read() -> "Benchmark":
        from ..alignment.benchmarks import Dpg

        return Dpg.read(data, pictures=pictures, published=published)

    _run(read, data, judge, options)


@with_options
def judge(
    *,
    judge: JudgeOptions,
    scenes: Annotated[int, typer.Option(min=1, help="Drawn scenes.")] = SCENES,
    as_json: AsJson = False,
) -> None:
    """Measure how often a judge is wrong about drawn scenes of which everything is known."""
    _check_judge(judge)

    from stablepref.output.tables import print_table

    from ..alignment.examine import errors_dict, errors_table
    from ..alignment.laboratory import judge_errors

    loaded = judge.load()
    errors = judge_errors(loaded, scenes=scenes)
    if as_json:
        print(json.dumps({"judge": loaded.name, "errors": errors_dict(errors)}, indent=1))
    else:
        print_table(errors_table(loaded.name, errors))


def _run(
    read: Callable[[], "Benchmark"], data: Path, judge: JudgeOptions, options: RunOptions
) -> None:
    style = chosen(json=options.as_json, markdown=options.as_markdown, csv=options.as_csv)
    _check_judge(judge)
    if not options.images:
        msg = "expected --images [NAME=]SOURCE, once for each model"
        raise ValueError(msg)
    if options.out is None:
        msg = "expected --out FOLDER, where answers are kept"
        raise ValueError(msg)
    check_folder("--out", options.out)

    from stablepref.output.tables import print_table

    from ..alignment.examine import MARKDOWN_FILE, RESULTS_FILE, examine
    from ..alignment.sources import parse_sources

    sources = parse_sources(options.images)
    benchmark = read()
    try:
        results = examine(
            benchmark, sources, judge.load(), data=data, out=options.out, scenes=options.scenes
        )
    except KeyboardInterrupt:
        say(f"what is done is kept in {options.out}: run the same command again to resume")
        raise
    for model, key, reason in results.failures[:REASONS]:
        say(f"{model} {key}: {reason}")
    if len(results.failures) > REASONS:
        say(f"and {len(results.failures) - REASONS} more: see {options.out / RESULTS_FILE}")
    say(f"wrote {options.out / MARKDOWN_FILE}, {RESULTS_FILE} and results.csv")
    if style == "json":
        print(json.dumps(results.as_dict(), indent=1))
    elif style == "markdown":
        print(results.markdown(), end="")
    elif style == "csv":
        sys.stdout.write(results.tables()[0].csv())
    else:
        for table in results.tables():
            print_table(table)
    finish(Tally(scored=results.examined, failed=len(results.failures)))


def _check_judge(judge: JudgeOptions) -> None:
    """Refuse what is no judge, before anything is read."""
    if not judge.judge.startswith("vqa:"):
        msg = (
            f"--judge is {judge.judge!r}; expected a model that answers questions, vqa:MODEL, such "
            "as vqa:Qwen/Qwen3-VL-8B-Instruct,form=geneval2"
        )
        raise ValueError(msg)
