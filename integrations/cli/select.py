"""`stablepref select`: the best of many candidates that a diffusers pipeline makes."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stablepref.cli.options import (
    AsJson,
    PipelineCall,
    PipelineDtype,
    PipelineName,
    PipelineScheduler,
    SafetyChecker,
    ScorerOptions,
    check_folder,
    with_options,
)
from stablepref.output.text import printable

from ..diffusion.named import check_pipeline
from ..diffusion.schedulers import check_scheduler_name

if TYPE_CHECKING:
    from ..best_of_n.selection import Selection


@with_options
def select(
    *,
    pipeline: PipelineName,
    prompt: Annotated[
        list[str],
        typer.Option(
            "--prompt",
            "-p",
            help="What to make; may be given several times, for a selection of each.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="Folder for all candidates, the best ones, and a sheet and a page that show them; "
            "if interrupted, run the same command again to resume.",
        ),
    ],
    n: Annotated[int, typer.Option("--n", "-n", min=1, help="Candidates for each prompt.")] = 100,
    keep: Annotated[int, typer.Option(min=1, help="Best candidates to keep.")] = 1,
    seed: Annotated[
        int, typer.Option(help="Seed of the first candidate; the others count up from it.")
    ] = 0,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Candidates generated at once; chosen automatically by default."),
    ] = None,
    call: PipelineCall,
    pipeline_dtype: PipelineDtype = None,
    scheduler: PipelineScheduler = None,
    safety_checker: SafetyChecker = True,
    scorer: ScorerOptions,
    prune: Annotated[
        list[str] | None,
        typer.Option(
            help="AT:KEEP, such as 0.4:0.5: after 40 % of the steps continue only with the half of "
            "each batch whose predicted images score higher; may be given several times."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Generate many candidates for a prompt with a diffusers pipeline and keep the best."""
    check_pipeline(pipeline, pipeline_dtype)
    check_scheduler_name(scheduler)
    check_folder("--out", out)
    arguments: dict[str, Any] = {
        "keep": keep,
        "batch_size": batch_size,
        "seed": seed,
        "views": scorer.views,
        "prune": _shares(prune),
        "out": out,
        **call.arguments(),
    }

    from stablepref.output.locks import sole_writer

    with sole_writer(out, folder=True):
        pass  # another process that writes there is reported before models are loaded

    from ..best_of_n.choose import best_of_n
    from ..diffusion.load import load_pipeline

    loaded = scorer.load()
    pipe = load_pipeline(
        pipeline,
        dtype=pipeline_dtype,
        device=loaded.device,
        scheduler=scheduler,
        safety_checker=safety_checker,
    )
    several = len(prompt) > 1
    if several:
        made = best_of_n(pipe, list(prompt), loaded, n, **arguments)
    else:
        made = [best_of_n(pipe, prompt[0], loaded, n, **arguments)]
    folders = [out / f"{i:03d}" if several else out for i in range(len(made))]
    if as_json:
        rows = [s.row() | {"folder": str(f)} for s, f in zip(made, folders, strict=True)]
        print(json.dumps(rows, indent=1))
        return
    for selection, folder in zip(made, folders, strict=True):
        _print(selection, folder)


def _shares(given: list[str] | None) -> dict[float, float] | None:
    """`AT:KEEP` as numbers, in the order of the steps.

    Raises:
        ValueError: One is not two numbers.
    """
    try:
        pairs = [tuple(map(float, one.split(":"))) for one in given or ()]
        return dict(sorted((at, keep) for at, keep in pairs)) or None
    except ValueError as error:
        msg = f"--prune {' '.join(given or ())} is not AT:KEEP, such as 0.4:0.5"
        raise ValueError(msg) from error


def _print(selection: "Selection", folder: Path) -> None:
    print(f"{printable(selection.prompt)}: best of {len(selection.candidates)}")
    for place, index in enumerate(selection.kept, start=1):
        candidate = selection.candidates[index]
        tie = "  tie" if selection.tie and place <= 2 else ""
        print(f"{place:4d}  {candidate.score:.4f}  seed {candidate.seed}{tie}")
    if selection.margin is not None:
        close = "a tie: within" if selection.tie else "more than"
        print(
            f"margin over the second {selection.margin:.4f}, {close} the spread over weak views, "
            f"{selection.spread:.4f}"
        )
    print(f"model {selection.model}, {selection.unit}; all candidates: {folder}/candidates.html")
