"""`stablepref select`: the best of many candidates that a diffusers pipeline makes."""

from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from stablepref.cli.cli_options import (
    AsJson,
    Device,
    Dtype,
    Guidance,
    Height,
    Like,
    NegativePrompt,
    Steps,
    Width,
    pipeline_call,
)
from stablepref.cli.ends import reported


@reported
def select(  # noqa: PLR0913, PLR0917 (the arguments of a command are its options)
    pipeline: Annotated[
        str,
        typer.Argument(
            help="A diffusers pipeline: shapes, which is bundled, its folder, or the name of a hub "
            "repository."
        ),
    ],
    prompt: Annotated[
        list[str],
        typer.Option("--prompt", "-p", help="What to make; given several times, each by itself."),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="Folder for all candidates, the best, a sheet and a page of them; after a kill "
            "the same command goes on.",
        ),
    ],
    n: Annotated[int, typer.Option("--n", "-n", min=1, help="Candidates for each prompt.")] = 100,
    keep: Annotated[int, typer.Option(min=1, help="How many of the best to keep.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the first candidate; each has its own.")] = 0,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Candidates generated at once.")
    ] = None,
    steps: Steps = None,
    guidance: Guidance = None,
    negative_prompt: NegativePrompt = None,
    height: Height = None,
    width: Width = None,
    pipeline_dtype: Annotated[
        str | None, typer.Option(help="Number type of the pipeline: bfloat16, ...")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="The scorer, as for `score`.")
    ] = None,
    like: Like = None,
    device: Device = None,
    dtype: Dtype = None,
    views: Annotated[
        int, typer.Option(min=0, help="Average each score over so many weak views.")
    ] = 0,
    prune: Annotated[
        list[str] | None,
        typer.Option(
            help="AT:KEEP, such as 0.4:0.5: after 40 % of the steps go on with the half of each "
            "batch whose predicted pictures score higher; may be repeated."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Generate many candidates for a prompt with a diffusers pipeline and keep the best."""
    options = import_module("stablepref.cli.score").Options(model, like, device, dtype, views)
    call = pipeline_call(
        steps=steps,
        guidance=guidance,
        negative_prompt=negative_prompt,
        height=height,
        width=width,
    )
    import_module("stablepref.integrations.cli.select").select(
        pipeline,
        prompt,
        options,
        out=out,
        n=n,
        keep=keep,
        seed=seed,
        batch_size=batch_size,
        pipeline_dtype=pipeline_dtype,
        prune=_shares(prune),
        call=call,
        as_json=as_json,
    )


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
