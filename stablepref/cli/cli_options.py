"""Options that several commands share; imported by all of them, so it imports next to nothing."""

from pathlib import Path
from typing import Annotated

import typer

Like = Annotated[
    str | None, typer.Option(help="For a file whose name does not tell: the model it is like.")
]
Device = Annotated[str | None, typer.Option(help="cuda, cpu, ...; by default the accelerator.")]
Dtype = Annotated[
    str | None,
    typer.Option(
        help="float32, which is exact, bfloat16, ...; by default bfloat16 where the device "
        "multiplies it, else float32."
    ),
]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Images encoded at once.")]
Steps = Annotated[int | None, typer.Option(min=1, help="Denoising steps.")]
Guidance = Annotated[float | None, typer.Option(help="Guidance scale.")]
NegativePrompt = Annotated[str | None, typer.Option(help="What not to make.")]
Height = Annotated[int | None, typer.Option(min=1, help="Of the pictures, in pixels.")]
Width = Annotated[int | None, typer.Option(min=1, help="Of the pictures, in pixels.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Format = Annotated[
    str,
    typer.Option(
        "--format", help="The data set: imagereward, hpdv2-test, ...; by default its keys tell."
    ),
]
ImageFolder = Annotated[
    Path | None,
    typer.Option("--images", help="Where relative image paths start; by default it is looked for."),
]


def pipeline_call(
    *,
    steps: int | None,
    guidance: float | None,
    negative_prompt: str | None,
    height: int | None,
    width: int | None,
) -> dict[str, object]:
    """Arguments of a pipeline's call from options; what was not given is the pipeline's own."""
    call = {
        "num_inference_steps": steps,
        "guidance_scale": guidance,
        "negative_prompt": negative_prompt,
        "height": height,
        "width": width,
    }
    return {name: value for name, value in call.items() if value is not None}
