"""Reward and correctness over the scale of guidance, with and without robust views.

Run `python -m stablepref.benchmarks.shapes.studies.guidance --out FOLDER`. Needs
the extras `diffusers` and `bench`. A killed run is resumed by the same command.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from operator import sub
from pathlib import Path
from typing import Annotated

import typer
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stablepref.assets import PIPELINES
from stablepref.output.figures import literal, save_figure
from stablepref.output.tables import Table, print_table
from stablepref.zoo import load

from ..pipeline.parts import GUIDANCE, STEPS, open_pipeline
from ..world.accuracy import Accuracy, with_interval
from ..world.commands import DeviceOption, PipelineOption, SplitOption, write_json
from ..world.prompts import PROMPTS_PER_CATEGORY, lab_prompts
from .guidance_pictures import Setting, guided_rows, settings_of
from .resumed import Row

SCALES = (0.005, 0.01, 0.02, 0.04, 0.08)
VIEWS = 4
MEASURES = ("reward", "robust", "correct")
"""Score of the picture itself; mean score over it and its judging views; whether the oracle
finds it fully correct."""
CURVE_FILE, PLOT_FILE = "curve.json", "curve.png"


@dataclass(frozen=True)
class Point:
    """A setting's measures: means with 95 % intervals over prompts.

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


def draw_guidance_curve(path: Path, points: Sequence[Point]) -> None:
    """Write the figure.

    Args:
        path: PNG file to write.
        points: the pipeline alone, then those of each scale without and with views.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    alone, *guided = points
    for views in sorted({point.setting.views for point in guided}):
        line = [alone, *(point for point in guided if point.setting.views == views)]
        name = f"guided by {views} views" if views else "guided by the picture alone"
        scales = [point.setting.scale for point in line]
        colour = f"C{int(views > 0)}"
        _draw(left, scales, [p.gains["reward"] for p in line], colour, "-", name)
        _draw(left, scales, [p.gains["robust"] for p in line], colour, ":", f"{name}; over views")
        _draw(right, scales, [p.values["correct"] for p in line], colour, "-", name, factor=100)
    left.set_ylabel("reward, gain over the pipeline alone")
    right.set_ylabel("fully correct by the oracle, %")
    right.set_ylim(bottom=0)
    for axes in (left, right):
        axes.set_xlabel("scale of the guidance")
        axes.legend(fontsize="small")
    save_figure(figure, path)


def _draw(
    axes: Axes,
    scales: Sequence[float],
    means: Sequence[Accuracy],
    colour: str,
    style: str,
    name: str,
    *,
    factor: float = 1.0,
) -> None:
    """A line with its 95 % intervals."""
    values = [factor * mean.value for mean in means]
    below = [factor * (mean.value - mean.low) for mean in means]
    above = [factor * (mean.high - mean.value) for mean in means]
    axes.errorbar(
        scales,
        values,
        yerr=[below, above],
        color=colour,
        linestyle=style,
        label=literal(name),
        capsize=2,
    )


def main(
    out: Annotated[Path, typer.Option(help="folder for rows, pictures, curve.json, curve.png")],
    pipeline: PipelineOption = PIPELINES["shapes"],
    scorer: Annotated[
        str,
        typer.Option("--scorer", "-s", "--model", help="what guides; --model is its former name"),
    ] = "shapes-clip",
    scale: Annotated[
        list[float] | None, typer.Option(help="scale of reward guidance; may be repeated")
    ] = None,
    views: Annotated[int, typer.Option(min=1, help="weak views of the robust reward")] = VIEWS,
    where: Annotated[
        tuple[float, float], typer.Option(help="first and last share of the steps that are guided")
    ] = (
        0.0,
        1.0,
    ),
    pictures: Annotated[int, typer.Option(min=1, help="pictures of each prompt")] = 1,
    per_category: Annotated[
        int, typer.Option(min=1, help="prompts of each category")
    ] = PROMPTS_PER_CATEGORY,
    split: SplitOption = "test",
    steps: Annotated[int, typer.Option(min=2, help="denoising steps")] = STEPS,
    seed: Annotated[int, typer.Option(help="seed of the first noise")] = 0,
    device: DeviceOption = "cpu",
) -> None:
    """Measure the reward and the oracle's judgement of guided pictures, and draw both."""
    settings = settings_of(scale or SCALES, views)
    prompts = lab_prompts(split, per_category=per_category)
    rows = guided_rows(
        open_pipeline(pipeline, device),
        load(scorer, device=device),
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
        "model": scorer,
        "steps": steps,
        "guidance": GUIDANCE,
        "where": where,
        "seed": seed,
        "points": [asdict(point) for point in points],
    }
    write_json(out / CURVE_FILE, report)
    draw_guidance_curve(out / PLOT_FILE, points)
    print_table(
        Table(
            columns=("views", "scale", "reward", "over views", "correct", "95 % interval", "gain"),
            rows=[
                (
                    point.setting.views,
                    f"{point.setting.scale:g}",
                    f"{point.values['reward'].value:.3f}",
                    f"{point.values['robust'].value:.3f}",
                    *point.values["correct"].cells()[:2],
                    f"{point.gains['correct'].value:+.1%}",
                )
                for point in points
            ],
        )
    )


if __name__ == "__main__":
    typer.run(main)
