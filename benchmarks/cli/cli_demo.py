"""`stablepref demo`: what a reward is good for, on one page."""

from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from stablepref.cli.ends import reported

# The laboratory's own, as in `stablepref.benchmarks.shapes.pipeline.parts`, which needs torch.
STEPS = 25
GUIDANCE = 4.0

Pipeline = Annotated[
    str,
    typer.Option(
        help="A diffusers pipeline: shapes, which is bundled, its folder, or the name of a hub "
        "repository.",
    ),
]


@reported
def demo(
    pipeline: Pipeline = "shapes",
    prompt: Annotated[
        str,
        typer.Option(
            "--prompt", "-p", help="What to make; of the laboratory's prompts the truth is known."
        ),
    ] = "a red circle left of a blue star",
    n: Annotated[int, typer.Option("--n", "-n", min=2, help="Candidates.")] = 100,
    steps: Annotated[int, typer.Option(min=1, help="Denoising steps.")] = STEPS,
    guidance: Annotated[float, typer.Option(min=0, help="Guidance scale.")] = GUIDANCE,
    seed: Annotated[int, typer.Option(min=0, help="Of the first candidate.")] = 0,
    finetune: Annotated[
        bool,
        typer.Option(
            "--finetune", help="Also fine-tune shortly, and show the same seeds before and after."
        ),
    ] = False,
    scorer: Annotated[str, typer.Option(help="The reward model, as for `score`.")] = "shapes",
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="Folder for the page, the picture and all candidates; after a kill the same "
            "command goes on.",
        ),
    ] = Path("demo"),
) -> None:
    """Make candidates of a prompt, choose the best, and show on a page how good the choice is."""
    options = import_module("stablepref.cli.score").Options(scorer, None, None, None, 0)
    import_module("stablepref.benchmarks.cli.demo").demo_command(
        pipeline,
        prompt,
        options,
        n=n,
        steps=steps,
        guidance=guidance,
        seed=seed,
        finetune=finetune,
        out=out,
    )
