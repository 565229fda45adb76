"""How good the best of n is by several scorers, and what pruning saves and loses.

Run `python -m stablepref.benchmarks.shapes.studies.selection --out FOLDER`. Needs
the extras `diffusers` and `bench`. A killed run is resumed by the same command.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter

from stablepref.assets import PIPELINES
from stablepref.output.figures import literal, save_figure
from stablepref.output.tables import Table, print_table
from stablepref.zoo import load

from ..pipeline.parts import GUIDANCE, STEPS, open_pipeline
from ..world.accuracy import Accuracy
from ..world.commands import DeviceOption, PipelineOption, SplitOption, ThreadsOption, write_json
from ..world.prompts import lab_prompts
from .resumed import Row
from .selection_numbers import Candidates, Pruned, best_curve, pruned, standardised
from .selection_rows import LOOKS, candidate_rows

RANDOM = "at random"
SIZES = (1, 2, 3, 5, 10, 20, 30, 50, 70, 100)
STUDY_FILE, PLOT_FILE = "study.json", "selection.png"
HALF = 0.5
"""Of the denoising steps, which pruning may take."""


def gathered(rows: Sequence[Row]) -> Candidates:
    """All rows as arrays, and a further scorer that gives all candidates one score."""
    prompts = 1 + max(row["prompt"] for row in rows)

    def grid(values: Sequence[float]) -> np.ndarray:
        return np.array(values, dtype=float).reshape(prompts, -1)

    names = rows[0]["scores"]
    looks = range(len(rows[0]["early"]))
    correct = grid([row["correct"] for row in rows])
    return Candidates(
        scores={name: grid([row["scores"][name] for row in rows]) for name in names}
        | {RANDOM: np.zeros_like(correct)},
        early=np.array([grid([row["early"][look] for row in rows]) for look in looks]),
        correct=correct,
    )


def schedules(looks: Sequence[float], batch_size: int) -> list[dict[float, float]]:
    """Ways of pruning that take at most half of the steps: once at each look, or at two.

    With two looks, half of the candidates are dropped at the first one.
    """

    def whole(keep: float) -> float:
        """The largest share up to this one that is a whole number of candidates, 1 or more."""
        return max(1, math.floor(keep * batch_size + 1e-9)) / batch_size

    once = [{at: whole((HALF - at) / (1 - at))} for at in looks]
    first, second = looks[0], looks[1]
    kept = whole(0.5)
    left = whole((HALF - first - kept * (second - first)) / (1 - second))
    return [*once, {first: kept, second: left / kept}]


def draw_selection(
    path: Path,
    sizes: Sequence[int],
    rewards: Mapping[str, Sequence[Accuracy]],
    correct: Mapping[str, Sequence[Accuracy]],
) -> None:
    """Write the figure.

    Args:
        path: PNG file to write.
        sizes: each n.
        rewards: by scorer, the score of its choice in standard deviations of a candidate.
        correct: by scorer, the share of its choices that is fully correct.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    colours = {name: f"C{place}" for place, name in enumerate(correct)}
    for name, means in rewards.items():
        _draw(left, sizes, means, name, colours[name])
    for name, means in correct.items():
        _draw(right, sizes, means, name, colours[name], factor=100)
    left.set_ylabel("score of the choice, standard deviations")
    right.set_ylabel("choices fully correct by the oracle, %")
    right.set_ylim(bottom=0)
    for axes in (left, right):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
        axes.set_xlabel("candidates")
    right.legend(title="chosen by", fontsize="small")
    save_figure(figure, path)


def _draw(
    axes: Axes,
    sizes: Sequence[int],
    means: Sequence[Accuracy],
    name: str,
    colour: str,
    *,
    factor: float = 1.0,
) -> None:
    """A line in its band of 95 % intervals."""
    axes.plot(sizes, [factor * mean.value for mean in means], color=colour, label=literal(name))
    low, high = ([factor * getattr(mean, end) for mean in means] for end in ("low", "high"))
    axes.fill_between(sizes, low, high, color=colour, alpha=0.15, linewidth=0)


def main(
    out: Annotated[Path, typer.Option(help="folder for candidates, study.json, selection.png")],
    pipeline: PipelineOption = PIPELINES["shapes"],
    scorer: Annotated[
        list[str] | None,
        typer.Option(help="NAME=MODEL; may be repeated. Predictions are pruned by the first one"),
    ] = None,
    candidates: Annotated[int, typer.Option(min=2, help="candidates of each prompt")] = 100,
    per_category: Annotated[int, typer.Option(min=1, help="prompts of each category")] = 10,
    split: SplitOption = "test",
    steps: Annotated[int, typer.Option(min=2, help="denoising steps")] = STEPS,
    seed: Annotated[int, typer.Option(help="seed of the first candidate")] = 0,
    batch_size: Annotated[
        int, typer.Option(min=2, help="candidates drawn and pruned together")
    ] = 20,
    pruning: Annotated[
        bool, typer.Option(help="also score predictions on the way; without, half of the time")
    ] = True,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
) -> None:
    """Draw candidates, score and grade them, and report what selection and pruning are worth."""
    if threads is not None:
        torch.set_num_threads(threads)
    named = dict(_named(one) for one in scorer or ["shapes-clip=shapes-clip"])
    if RANDOM in named:
        raise typer.BadParameter(f"the name {RANDOM!r} is taken", param_hint="--scorer")
    rows = candidate_rows(
        open_pipeline(pipeline, device),
        {name: load(model, device=device) for name, model in named.items()},
        lab_prompts(split, per_category=per_category),
        out,
        candidates=candidates,
        looks=LOOKS if pruning else (),
        steps=steps,
        seed=seed,
        batch_size=batch_size,
    )
    found = gathered(rows)
    sizes = sorted({n for n in SIZES if n <= candidates} | {candidates})
    rewards = {
        name: best_curve(own, standardised(own), sizes)
        for name, own in found.scores.items()
        if name != RANDOM
    }
    correct = {name: best_curve(own, found.correct, sizes) for name, own in found.scores.items()}
    judge = next(iter(named))
    ways = [
        pruned(found, judge, way, looks=LOOKS, steps=steps, batch_size=batch_size)
        for way in (schedules(LOOKS, batch_size) if pruning else ())
    ]
    report = {
        "split": split,
        "scorers": named,
        "prompts": len(found.correct),
        "candidates": candidates,
        "steps": steps,
        "guidance": GUIDANCE,
        "seed": seed,
        "batch_size": batch_size,
        "sizes": sizes,
        "rewards": {name: [asdict(one) for one in means] for name, means in rewards.items()},
        "correct": {name: [asdict(one) for one in means] for name, means in correct.items()},
        "pruning": [asdict(way) for way in ways],
    }
    write_json(out / STUDY_FILE, report)
    draw_selection(out / PLOT_FILE, sizes, rewards, correct)
    print_table(
        Table(
            columns=("chosen by", *(f"of {n}" for n in sizes)),
            rows=[(name, *(f"{m.value:.1%}" for m in means)) for name, means in correct.items()],
            title="fully correct by the oracle",
        )
    )
    if ways:
        print_table(pruning_table(ways, judge))


def pruning_table(ways: Sequence[Pruned], judge: str) -> Table:
    """One row for each way of pruning."""
    return Table(
        columns=(
            "after: share kept",
            "steps taken",
            "lost, SD",
            "lost by fewer candidates, SD",
            "best is kept",
            "correct",
            "more correct without pruning",
        ),
        rows=[
            (
                ", ".join(f"{at:.0%}: {keep:.0%}" for at, keep in way.schedule.items()),
                f"{way.compute:.1%}",
                _with_bounds(way.loss, ".3f"),
                _with_bounds(way.fewer, ".3f"),
                f"{way.kept.value:.0%}",
                f"{way.correct.value:.1%}",
                _with_bounds(way.correct_loss, "+.1%"),
            )
            for way in ways
        ],
        title=f"pruned by the scores that {judge} gives to predictions",
    )


def _with_bounds(mean: Accuracy, form: str) -> str:
    return f"{mean.value:{form}} ({mean.low:{form}} to {mean.high:{form}})"


def _named(given: str) -> tuple[str, str]:
    name, _, model = given.partition("=")
    if not (name and model):
        raise typer.BadParameter(f"expected NAME=MODEL, got {given!r}", param_hint="--scorer")
    return name, model


if __name__ == "__main__":
    typer.run(main)
