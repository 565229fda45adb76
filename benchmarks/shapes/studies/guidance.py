"""Reward and correctness over the scale of guidance, with and without robust views.

Run `python -m stablepref.benchmarks.shapes.studies.guidance --out FOLDER`. Needs
the extras `diffusers` and `bench`. A killed run goes on where it was.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from operator import sub
from pathlib import Path
from typing import Annotated

import typer
from diffusers import StableDiffusionPipeline
from rich.console import Console
from rich.table import Table

from stablepref.assets import PIPELINES
from stablepref.output.durable import replacing
from stablepref.zoo import load

from ..evaluate import Accuracy, with_interval
from ..people.split_option import known_split
from ..pipeline.parts import GUIDANCE, STEPS
from ..prompt_set import PROMPTS_PER_CATEGORY, lab_prompts
from .guidance_pictures import Row, Setting, guided_rows, settings_of
from .guidance_plot import draw_guidance_curve

SCALES = (0.005, 0.01, 0.02, 0.04, 0.08)
VIEWS = 4
MEASURES = ("reward", "robust", "correct")
"""Score of the picture itself; mean score over it and its judging views; whether the oracle calls
it fully correct."""
CURVE_FILE, PLOT_FILE = "curve.json", "curve.png"


@dataclass(frozen=True)
class Point:
    """What a setting's pictures are like: means with 95 % intervals over prompts, by measure.

    Attributes:
        setting: how they were guided.
        values: of each of `MEASURES`.
        gains: the same minus those of the pipeline alone, prompt by prompt.
    """

    setting: Setting
    values: dict[str, Accuracy]
    gains: dict[str, Accuracy]


def curve(rows: Sequence[Row], settings: Sequence[Setting]) -> list[Point]:
    """One point for each setting, the first of which is the pipeline alone."""
    found = {
        (how, measure): _by_prompt(rows, how, measure) for how in settings for measure in MEASURES
    }
    points = []
    for how in settings:
        values, gains = {}, {}
        for measure in MEASURES:
            pairs = zip(found[how, measure], found[settings[0], measure], strict=True)
            values[measure] = with_interval(found[how, measure])
            gains[measure] = with_interval([list(map(sub, *pair)) for pair in pairs])
        points.append(Point(how, values, gains))
    return points


def _by_prompt(rows: Sequence[Row], how: Setting, measure: str) -> list[list[float]]:
    """A measure of all pictures of each prompt."""
    numbers: dict[int, list[float]] = defaultdict(list)
    for row in rows:
        if (row["views"], row["scale"]) == (how.views, how.scale):
            numbers[row["prompt"]].append(float(row[measure]))
    return list(numbers.values())


def main(
    out: Annotated[Path, typer.Option(help="folder for rows, pictures, curve.json, curve.png")],
    pipeline: Annotated[
        Path, typer.Option(exists=True, file_okay=False, help="its folder")
    ] = PIPELINES["shapes"],
    model: Annotated[str, typer.Option(help="the scorer that guides")] = "shapes-clip",
    scale: Annotated[list[float] | None, typer.Option(help="one or more")] = None,
    views: Annotated[int, typer.Option(min=1, help="of the robust reward")] = VIEWS,
    where: Annotated[tuple[float, float], typer.Option(help="shares of the steps to guide")] = (
        0.0,
        1.0,
    ),
    pictures: Annotated[int, typer.Option(min=1, help="of each prompt")] = 1,
    per_category: Annotated[int, typer.Option(min=1, help="prompts")] = PROMPTS_PER_CATEGORY,
    split: Annotated[str, typer.Option(help="test, or validation to choose by")] = "test",
    steps: Annotated[int, typer.Option(min=2, help="denoising steps")] = STEPS,
    seed: Annotated[int, typer.Option(help="of the first noise")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps")] = "cpu",
) -> None:
    """Measure the reward and the oracle's judgement of guided pictures, and draw both."""
    known = known_split(split)
    settings = settings_of(scale or SCALES, views)
    prompts = lab_prompts(known, per_category=per_category)
    rows = guided_rows(
        StableDiffusionPipeline.from_pretrained(pipeline).to(device),
        load(model, device=device),
        prompts,
        settings,
        out,
        pictures=pictures,
        steps=steps,
        where=where,
        seed=seed,
    )
    points = curve(rows, settings)
    report = {
        "split": split,
        "model": model,
        "steps": steps,
        "guidance": GUIDANCE,
        "where": where,
        "seed": seed,
        "points": [asdict(point) for point in points],
    }
    with replacing(out / CURVE_FILE) as staging:
        staging.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    draw_guidance_curve(out / PLOT_FILE, points)
    table = Table("views", "scale", "reward", "over views", "correct", "95 % interval", "gain")
    for point in points:
        correct = point.values["correct"]
        table.add_row(
            str(point.setting.views),
            f"{point.setting.scale:g}",
            f"{point.values['reward'].value:.3f}",
            f"{point.values['robust'].value:.3f}",
            f"{correct.value:.1%}",
            f"{correct.low:.1%} to {correct.high:.1%}",
            f"{point.gains['correct'].value:+.1%}",
        )
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
