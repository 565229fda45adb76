"""The paper's ablations in the laboratory, where the truth is known and annotators err.

Run ``python -m stablepref.benchmarks.shapes.ablation --out FOLDER``. Needs the extra ``bench``.
Each training is one file: a killed run is resumed by the same command. docs/ablations.md says what
is compared, and why.
"""

import platform
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from stablepref.cli.settings import read_setting, with_settings
from stablepref.models.entry import MAX_LOGIT_SCALE

from ..world.commands import DeviceOption
from .cells import Store
from .jobs import start_jobs
from .methods import TABLES, Model
from .page import write_results
from .plan import Experiment
from .run import Runner, estimate
from .small import MODEL_NAME, small_model
from .suite import Suite
from .work import duration, measured_speed
from .world import open_world


@with_settings(Suite, panel="Sizes, the same for every method")
def main(
    *,
    out: Annotated[Path, typer.Option(help="folder for data, cached tokens and results")],
    small: Annotated[
        Path | None,
        typer.Option(help="the small model's folder; if left out, one is trained first"),
    ] = None,
    large: Annotated[
        str, typer.Option(help="the large model: a zoo name or a folder")
    ] = "shapes-clip",
    logit_scale: Annotated[
        float | None,
        typer.Option(
            min=1,
            max=MAX_LOGIT_SCALE,
            help="logit scale that both models begin with; their own if left out",
        ),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help=f"one or more of {', '.join(TABLES)}; all if left out")
    ] = None,
    page: Annotated[
        Path | None, typer.Option(help="folder for results.inc and figures; OUT/page if left out")
    ] = None,
    device: DeviceOption = "cpu",
    jobs: Annotated[int, typer.Option(min=1, help="trainings at a time")] = 1,
    threads: Annotated[
        int,
        typer.Option(
            min=0, help="threads of torch in each training; 0 divides its default among them"
        ),
    ] = 0,
    plan: Annotated[
        bool, typer.Option("--plan", help="print what is left to do, and stop")
    ] = False,
    **settings: str | None,
) -> None:
    """Run the ablations, or resume them, and write their tables and figures."""
    tables = _chosen(only)
    if plan and small is None:
        small = out / "small" / MODEL_NAME
    if small is not None and not small.is_dir():
        raise typer.BadParameter(
            f"{small} is not a folder; expected the small model. Without --small and --plan it is "
            "trained first",
            param_hint="--small",
        )
    each = threads or max(1, torch.get_num_threads() // jobs)
    if threads or jobs > 1:
        torch.set_num_threads(each)
    try:
        given: dict[str, Any] = {
            name: read_setting(Suite, name, text)
            for name, text in settings.items()
            if text is not None
        }
        suite = Suite(**given)
        if small is None:
            small = small_model(out / "small", suite.mixed_precision, device=device)
        names: dict[Model, str] = {"small": str(small), "large": large}
        opener = partial(open_world, out, suite, names, device=device, logit_scale=logit_scale)
        world = opener()
        store = Store(out / "cells", suite, world.weights)
        expected = estimate(world, store, tables)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    speed = jobs * measured_speed(world.scorers["large"], suite.mixed_precision)
    where = f"{jobs} x {each} threads" if jobs > 1 else f"{each} threads"
    typer.echo(
        f"{expected.trainings} trainings, {expected.trainings - expected.missing} of them done; "
        f"about {duration(expected.work / speed)} at the {speed / 1e9:.0f} GFLOP/s measured now "
        f"with {where} on {device}; {expected.size / 1e9:.1f} GB to "
        f"write in {out / 'features'}"
    )
    if plan:
        return
    pool = start_jobs(opener, jobs=jobs, threads=each) if jobs > 1 else None
    with Runner(world, store, expected, speed=speed, pool=pool) as run:
        experiment = Experiment(suite, world.batch_size, run)
        experiment.everything(tables)
        scales = ", ".join(
            f"{name} {scorer.logit_scale:.1f}" for name, scorer in world.scorers.items()
        )
        described = (
            f"{suite.groups} training, {suite.validation} validation and {suite.test} test groups "
            f"of each kind, {suite.steps} steps of {suite.batch_size} pairs, {suite.seeds} seeds "
            f"in Tables 2 and 5, {suite.other_seeds} elsewhere; on {device}, {platform.machine()}, "
            f"{where}, torch {torch.__version__}, mixed precision: {suite.mixed_precision}. Logit "
            f"scale at the start: {scales}."
        )
        written = write_results(page or out / "page", experiment, tables, described=described)
    seconds = estimate(world, store, tables).seconds
    typer.echo(f"{expected.trainings} trainings of {duration(seconds)} in all: {written}")


def _chosen(only: list[str] | None) -> list[str]:
    unknown = [name for name in only or () if name not in TABLES]
    if unknown:
        raise typer.BadParameter(
            f"{unknown[0]!r} is not one of {', '.join(TABLES)}", param_hint="--only"
        )
    return [name for name in TABLES if not only or name in only]


if __name__ == "__main__":
    typer.run(main)
