"""What `stablepref demo` does, once the command line is parsed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stablepref.integrations.cli.select import load_pipeline

from ..demo.run import demo
from ..demo.words import number, signed

if TYPE_CHECKING:
    from pathlib import Path

    from stablepref.cli.score import Options

    from ..demo.run import Demo


def demo_command(
    pipeline: str,
    prompt: str,
    options: Options,
    *,
    n: int,
    steps: int,
    guidance: float,
    seed: int,
    finetune: bool,
    out: Path,
) -> None:
    """Load everything, make the demonstration, and print what matters and where to look.

    Args:
        pipeline: Folder or hub repository of a diffusers pipeline.
        prompt: As in `demo`, as are the others.
        options: The scorer.
        n: As above.
        steps: As above.
        guidance: As above.
        seed: As above.
        finetune: As above.
        out: As above.

    Raises:
        ValueError: An argument is wrong, see `demo`.
        OSError: The pipeline or the scorer cannot be loaded, or `out` not be written.
        ImportError: diffusers, matplotlib, scipy or peft is not installed.
    """
    scorer = options.load()
    pipe = load_pipeline(pipeline, dtype=None, device=scorer.device)
    shown = demo(
        pipe,
        prompt,
        scorer,
        out=out,
        n=n,
        steps=steps,
        guidance=guidance,
        seed=seed,
        finetune=finetune,
    )
    _print(shown)


def _print(shown: Demo) -> None:
    chosen, order = shown.selection, shown.order
    print(f"{chosen.prompt}: the best of {len(chosen.candidates)} is seed {chosen.seed}")
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
    print(f"  stability  stays the best under {shown.stays} of {len(shown.stability)} disturbances")
    if shown.tuned is not None:
        before, after = shown.tuned.rewards
        told = f"reward {number(before)} -> {number(after)}"
        if shown.tuned.correct is not None:
            told += ", correct {} -> {}".format(*shown.tuned.correct)
        print(f"  fine-tuned {told}, over {len(shown.tuned.pairs)} pictures of the same seeds")
    print(f"look at {shown.page} and {shown.picture}")
