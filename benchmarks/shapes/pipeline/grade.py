"""Grades a pipeline on the prompt set: `python -m stablepref.benchmarks.shapes.pipeline.grade`."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import typer

from stablepref.assets import PIPELINES
from stablepref.output.tables import Table, print_table

from ..oracle.grading import ATTRIBUTES
from ..world.accuracy import Accuracy, with_interval
from ..world.commands import (
    PIPELINE_HELP,
    DeviceOption,
    JsonOption,
    SplitOption,
    ThreadsOption,
    pipeline_folder,
    write_json,
)
from ..world.prompts import CATEGORIES, PROMPTS_PER_CATEGORY, lab_prompts
from .parts import GUIDANCE, STEPS, open_pipeline
from .sampling import Sample, draw_samples, sample_prompts


def correct_shares(samples: Sequence[Sample]) -> dict[str, Accuracy]:
    """The share of fully correct pictures with 95 % bootstrap intervals over prompts.

    Returns:
        "all", then each category that occurs, in the order of `CATEGORIES`.
    """
    outcomes: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        for name in ("all", sample.prompt.category):
            outcomes[name][sample.prompt.prompt].append(float(sample.grade.correct))
    return {
        name: with_interval(list(outcomes[name].values()))
        for name in ("all", *CATEGORIES)
        if name in outcomes
    }


def attribute_shares(samples: Sequence[Sample]) -> dict[str, float]:
    """For each attribute the share of the pictures whose prompt names it where it is right."""
    shares = {}
    for name in ATTRIBUTES:
        named = [value for s in samples if (value := getattr(s.grade, name)) is not None]
        if named:
            shares[name] = sum(named) / len(named)
    return shares


def main(
    folder: Annotated[Path, typer.Argument(parser=pipeline_folder, help=PIPELINE_HELP)] = PIPELINES[
        "shapes"
    ],
    pictures: Annotated[int, typer.Option(min=1, help="pictures of each prompt")] = 4,
    per_category: Annotated[
        int, typer.Option(min=1, help="prompts of each category")
    ] = PROMPTS_PER_CATEGORY,
    split: SplitOption = "test",
    steps: Annotated[int, typer.Option(min=1, help="denoising steps")] = STEPS,
    guidance: Annotated[float, typer.Option(help="scale of classifier-free guidance")] = GUIDANCE,
    seed: Annotated[int, typer.Option(help="seed of the first noise")] = 0,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
    sheet: Annotated[
        Path | None, typer.Option(help="picture file to draw: one picture of each prompt")
    ] = None,
    out: JsonOption = None,
) -> None:
    """Print how many of a pipeline's pictures are fully correct, by category of the prompt."""
    if threads is not None:
        torch.set_num_threads(threads)
    pipe = open_pipeline(folder, device)
    samples = sample_prompts(
        pipe,
        lab_prompts(split, per_category=per_category),
        pictures=pictures,
        steps=steps,
        guidance=guidance,
        seed=seed,
    )
    shares, attributes = correct_shares(samples), attribute_shares(samples)
    print_table(
        Table(
            columns=("category", "fully correct", "95 % interval", "prompts", "pictures"),
            rows=[(name, *accuracy.cells()) for name, accuracy in shares.items()],
        )
    )
    parts = ", ".join(f"{name} {share:.1%}" for name, share in attributes.items())
    typer.echo(f"right, of the pictures whose prompt names it: {parts}")
    if sheet is not None:
        draw_samples(sheet, samples[::pictures])
    if out is not None:
        settings = {"split": split, "steps": steps, "guidance": guidance, "seed": seed}
        report = {
            **settings,
            "fully_correct": {name: asdict(row) for name, row in shares.items()},
            "attributes": attributes,
        }
        write_json(out, report)


if __name__ == "__main__":
    typer.run(main)
