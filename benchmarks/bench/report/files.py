"""What `stablepref bench` does, once the command line is parsed."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

import numpy as np

from stablepref.cli.score import Tally, log
from stablepref.data.read import read_groups
from stablepref.output.durable import replacing
from stablepref.output.tables import print_table

from ..bench.judges import load_judges
from ..bench.people import PeopleJudge
from ..bench.processes import joined_processes
from ..bench.prompt_sets import read_prompt_set
from ..bench.report.sheets import failure_sheet, score_sheet, sheets
from ..bench.run import bench
from ..bench.score_table import CONFIG_FILE, joined, read_table, unshared
from ..bench.statistics.summary import Summary, summarise

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ..bench.contestants import Contestant
    from ..bench.judges import Judge
    from ..bench.score_table import ScoreTable

SUMMARY_FILE: Final = "leaderboard.json"
MARKDOWN_FILE: Final = "leaderboard.md"
TOLD: Final = 20
"""So many reasons for missing scores are printed."""


@final
@dataclass(frozen=True)
class Making:
    """How images are made, as typed; see `bench` for each."""

    images: int
    seed: int
    call: Mapping[str, object]
    batch_size: int | None
    pipeline_dtype: str | None
    retry: bool


def run(
    prompts: str,
    models: Sequence[Contestant],
    scorers: Sequence[str | None],
    making: Making,
    *,
    out: Path,
    prompt_file: Path | None,
    people: Path | None,
    device: str | None,
    dtype: str | None,
    style: str,
) -> Tally:
    """Run a benchmark to its end, write its tables into `out`, and print them.

    Args:
        prompts: A named set or a file.
        models: The models.
        scorers: As typed; None is the default model.
        making: How images are made.
        out: The run's folder.
        prompt_file: Where the named set's file is.
        people: Ranked groups of the finished pictures, or None.
        device: As in `bench`.
        dtype: As in `load_judges`.
        style: "table", "markdown", "csv" or "json".

    Raises:
        ValueError: As `bench`.
        OSError: As `bench`.
        ImportError: diffusers is not installed.
    """
    chosen = read_prompt_set(prompts, file=prompt_file)
    state = joined_processes()
    judges: tuple[Judge, ...] = load_judges(scorers, device=device, dtype=dtype)
    if people is not None:
        judges += (PeopleJudge(list(read_groups(people))),)
    try:
        table = bench(
            chosen,
            models,
            judges,
            out=out,
            images=making.images,
            seed=making.seed,
            arguments=making.call,
            batch_size=making.batch_size,
            pipeline_dtype=making.pipeline_dtype,
            device=device,
            retry=making.retry,
        )
    except KeyboardInterrupt:
        log.print(f"what is done is kept in {out}: the same command goes on there")
        raise
    if not state.is_main_process:
        return Tally()
    summary = summarise(table)
    _tell(table, summary)
    write_summary(out, table, summary)
    log.print(f"wrote {out / MARKDOWN_FILE}, {SUMMARY_FILE} and a .csv file for each table")
    _show(summary, style)
    return _count(table)


def leaderboard(runs: Sequence[Path], *, out: Path | None, style: str) -> Tally:
    """Print the tables of one run, or of several with the same prompts as one.

    Args:
        runs: Their folders.
        out: A folder to write the tables into too.
        style: As in `run`.

    Raises:
        ValueError: A folder is no run, or runs do not compare, see `joined`.
        OSError: `out` cannot be written.
    """
    for folder in runs:
        if (folder / CONFIG_FILE).is_file() and not (folder / SUMMARY_FILE).is_file():
            log.print(f"{folder} has not come to its end: these are the scores so far")
    tables = [read_table(folder) for folder in runs]
    for name in unshared(tables):
        log.print(f"{name} is left out: it is a scorer of some of the runs only")
    table = joined(tables)
    summary = summarise(table)
    _tell(table, summary)
    if out is not None:
        write_summary(out, table, summary)
        log.print(f"wrote {out / MARKDOWN_FILE}, {SUMMARY_FILE} and a .csv file for each table")
    _show(summary, style)
    return _count(table)


def write_summary(folder: Path, table: ScoreTable, summary: Summary) -> None:
    """Write all tables: Markdown, JSON, and CSV of each with every score and every failure.

    Each file appears whole or not at all, the JSON file last.

    Raises:
        OSError: The folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        f"{sheet.name}.csv": sheet.csv()
        for sheet in (*sheets(summary), score_sheet(table), failure_sheet(table))
    }
    texts[MARKDOWN_FILE] = markdown(summary)
    texts[SUMMARY_FILE] = json.dumps(summary.as_dict(), indent=1) + "\n"
    for name, text in texts.items():
        with replacing(folder / name) as staging:
            staging.write_text(text, encoding="utf-8")


def markdown(summary: Summary) -> str:
    """All tables and warnings as one document."""
    units = "\n".join(f"- {name}: {unit}" for name, unit in summary.units.items())
    parts = [f"# {summary.name}: {summary.prompts} prompts\n", f"Scorers:\n\n{units}\n"]
    if summary.warnings:
        parts.append("\n".join(f"- {warning}" for warning in summary.warnings) + "\n")
    return "\n".join([*parts, *(sheet.markdown() for sheet in sheets(summary))])


def _show(summary: Summary, style: str) -> None:
    if style == "json":
        print(json.dumps(summary.as_dict(), indent=1))
    elif style == "markdown":
        print(markdown(summary), end="")
    elif style == "csv":
        sys.stdout.write(sheets(summary)[0].csv())
    else:
        for sheet in sheets(summary):
            print_table(sheet.table())


def _tell(table: ScoreTable, summary: Summary) -> None:
    """Name what could not be scored, a line for each model and reason, and all warnings."""
    images: dict[tuple[str, str], list[str]] = {}
    for one in table.failures:
        names = images.setdefault((one.model, one.reason), [])
        name = f"{one.prompt} image {one.image}"
        if name not in names:
            names.append(name)
    for (model, reason), names in list(images.items())[:TOLD]:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        log.print(f"{model} {names[0]}{more}: {reason}")
    if len(images) > TOLD:
        log.print(f"and {len(images) - TOLD} more reasons: see failures.csv")
    for warning in summary.warnings:
        log.print(f"note: {warning}")


def _count(table: ScoreTable) -> Tally:
    """Images with a score of every scorer, and others."""
    failed = {(one.model, one.prompt, one.image) for one in table.failures}
    scored = int((~np.isnan(table.scores)).all(axis=1).sum())
    return Tally(scored=scored, failed=len(failed))
