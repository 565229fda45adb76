"""`stablepref demo`: what a reward is good for, on one page."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stablepref.cli.options import ScorerOptions, Threads, check_folder
from stablepref.integrations.diffusion.named import check_pipeline
from stablepref.output.text import printable

if TYPE_CHECKING:
    from ..demo.result import Demo

# The laboratory's own, as in `stablepref.benchmarks.shapes.pipeline.parts`, which needs torch.
STEPS = 25
GUIDANCE = 4.0


def demo(
    pipeline: Annotated[
        str,
        typer.Option(
            help="A diffusers pipeline: shapes (bundled), a folder, or the name of a hub "
            "repository."
        ),
    ] = "shapes",
    prompt: Annotated[
        str,
        typer.Option(
            "--prompt",
            "-p",
            help="What to make. If the prompt is one of the laboratory's, it is also known which "
            "images are correct.",
        ),
    ] = "a red circle left of a blue star",
    n: Annotated[int, typer.Option("--n", "-n", min=2, help="Number of candidates.")] = 100,
    steps: Annotated[int, typer.Option(min=1, help="Denoising steps.")] = STEPS,
    guidance: Annotated[
        float, typer.Option(min=0, help="Scale of classifier-free guidance.")
    ] = GUIDANCE,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the first candidate; the others count up from it.")
    ] = 0,
    finetune: Annotated[
        bool,
        typer.Option(
            "--finetune",
            help="Also fine-tune the pipeline briefly to draw in three steps, and show prompts "
            "that it was not trained on before and after.",
        ),
    ] = False,
    threads: Threads = None,
    scorer: Annotated[
        str, typer.Option("--scorer", "-s", help="The scorer, as for `score`.")
    ] = "shapes",
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="Folder for the page, the picture and all candidates; if interrupted, run the "
            "same command again to resume.",
        ),
    ] = Path("demo"),
) -> None:
    """Make many images of a prompt, pick the best, and show on a page how good the pick is."""
    options = ScorerOptions(scorer, threads=threads)
    check_pipeline(pipeline)
    check_folder("--out", out)

    from stablepref.integrations.diffusion.load import load_pipeline

    from ..demo.run import demo as make

    loaded = options.load()
    pipe = load_pipeline(pipeline, dtype=None, device=loaded.device)
    shown = make(
        pipe,
        prompt,
        loaded,
        out=out,
        n=n,
        steps=steps,
        guidance=guidance,
        seed=seed,
        finetune=finetune,
    )
    _print(shown)


def _print(shown: "Demo") -> None:
    from ..demo.words import number, signed, tied

    chosen, order = shown.selection, shown.order
    print(
        f"{printable(chosen.prompt)}: the best of {len(chosen.candidates)} is seed {chosen.seed}"
        f"{', in a tie with the second' if chosen.tie else ''}"
    )
    print(
        f"  reward     {number(shown.best)} against an average of {number(shown.average)}: "
        f"{signed(shown.gain)}, {shown.deviations:.1f} standard deviations ({chosen.model})"
    )
    right = shown.truth.count(candidate.index for candidate in order)
    if right is None:
        print(f"  truth      not known: {shown.truth.unknown}")
    else:
        which = "correct" if shown.truth.correct[order[0].index] else "not correct"
        print(f"  truth      the best is {which}; of all, {right} of {len(order)} are")
    print(
        f"  stability  stays the best under {shown.stays} of {len(shown.stability)} perturbations"
        f"{tied(shown)}"
    )
    if shown.tuned is not None:
        (before, after), gain = shown.tuned.correct, shown.tuned.gain
        print(
            f"  fine-tuned {before.value:.1%} -> {after.value:.1%} correct, "
            f"{100 * gain.value:+.1f} points ({100 * gain.low:+.1f} to {100 * gain.high:+.1f}): "
            f"{after.trials} images of {after.prompts} prompts that it was not trained on, "
            f"in {shown.tuned.config.sampling_steps} steps"
        )
    print(f"look at {shown.page} and {shown.picture}")
