"""What the methods' trainings came to: the best step by validation, its test, and the figure."""

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from operator import sub
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from stablepref.integrations.diffusion.described import pipeline_digests
from stablepref.output.figures import save_figure
from stablepref.training.log import METRICS_FILE

from ..pipeline.parts import GUIDANCE, STEPS, open_pipeline
from ..pipeline.sampling import sample_prompts
from ..world.accuracy import Accuracy, with_interval
from ..world.prompts import LabPrompt
from .finetune_runs import BASE, Arm, by_training, folder_of, trained
from .methods_choice import Choice
from .resumed import Row, resumed_rows

TEST_FILE = "test.jsonl"


@dataclass(frozen=True)
class Outcome:
    """The step of a training that is best on the validation prompts, and the pipeline before.

    Attributes:
        arm: name of the method, or "base".
        seed: of the training.
        step: the best one; the earliest of equals, and 0 where none is better than the start.
        pictures: drawn until then.
        seconds: that the training took until then.
        validation: share of fully correct pictures of the validation prompts.
        test: the same of the test prompts.
        gain: of `test` over the pipeline as it was, at equal noises.
    """

    arm: str
    seed: int
    step: int
    pictures: int
    seconds: float
    validation: float
    test: Accuracy
    gain: Accuracy


def outcomes(
    pipeline: Path,
    arms: Sequence[Arm],
    rows: Sequence[Row],
    out: Path,
    prompts: Sequence[LabPrompt],
    *,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    pictures: int = 1,
    device: str = "cpu",
) -> list[Outcome]:
    """The outcome of the pipeline as it is, then of each training.

    Args:
        pipeline: folder of the pipeline.
        arms: what was trained.
        rows: as `study_rows` gives them.
        out: the study's folder; test pictures that were graded there are not drawn again.
        prompts: to test on.
        steps: denoising steps of the test pictures.
        guidance: of them.
        pictures: of each test prompt.
        device: where to run.

    Raises:
        ResumeError: the folder holds tests of other settings.
    """
    base, runs = by_training(rows)
    best = [max((base, *run), key=lambda row: row["correct"]) for run in runs.values()]
    jobs = [
        {"arm": arm, "seed": seed, "step": row["step"]}
        for (arm, seed), row in zip(((BASE, 0), *runs), (base, *best), strict=True)
    ]
    drawn = {"steps": steps, "guidance": guidance, "pictures": pictures}
    corrects = _tested(pipeline, arms, jobs, out, prompts, drawn, device)
    named = {arm.name: arm for arm in arms}
    return [
        Outcome(
            job["arm"],
            job["seed"],
            job["step"],
            *spent(named.get(job["arm"]), folder_of(out, job), job["step"]),
            validation=row["correct"],
            test=with_interval(own),
            gain=with_interval(
                [list(map(sub, *pair)) for pair in zip(own, corrects[0], strict=True)]
            ),
        )
        for job, row, own in zip(jobs, (base, *best), corrects, strict=True)
    ]


def _tested(
    pipeline: Path,
    arms: Sequence[Arm],
    jobs: Sequence[Row],
    out: Path,
    prompts: Sequence[LabPrompt],
    drawn: Mapping[str, Any],
    device: str,
) -> list[list[list[float]]]:
    """For each job and each test prompt 1 or 0 for each picture."""
    pipe = open_pipeline(pipeline, device)
    named = {arm.name: arm for arm in arms}

    def made(job: Row) -> Row:
        weights: AbstractContextManager[None] = nullcontext()
        if job["step"]:
            weights = trained(pipe, folder_of(out, job), job["step"], named[job["arm"]].config)
        with weights:
            samples = sample_prompts(pipe, prompts, **drawn)
        right = [float(one.grade.correct) for one in samples]
        each = drawn["pictures"]
        return {"corrects": [right[i : i + each] for i in range(0, len(right), each)]}

    identity = {
        "pipeline": pipeline_digests(pipe),
        "prompts": [one.prompt for one in prompts],
        **drawn,
    }
    return [row["corrects"] for row in resumed_rows(out / TEST_FILE, identity, jobs, made)]


def spent(arm: Arm | None, folder: Path, step: int) -> tuple[int, float]:
    """Pictures drawn and seconds taken by a training until a step, from its metrics."""
    if arm is None or not step:
        return 0, 0.0
    rows = [json.loads(line) for line in (folder / METRICS_FILE).read_text("utf-8").splitlines()]
    # Others are those of the samples.
    speeds = [row["images_per_second"] for row in rows if row["step"] <= step and "loss" in row]
    size = arm.config.batch_size
    return step * size, sum(size / speed for speed in speeds)


def draw_methods(
    path: Path,
    rows: Sequence[Row],
    arms: Sequence[Arm],
    out: Path,
    chosen: Sequence[Choice] = (),
) -> None:
    """Write the figure: correctness over pictures, and over minutes.

    Args:
        path: PNG file to write.
        rows: as `study_rows` gives them.
        arms: what was trained.
        out: the study's folder.
        chosen: best of n, in order of n.
    """
    base, runs = by_training(rows)
    named = {arm.name: arm for arm in arms}
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    shown: set[str] = set()
    for (name, _), run in runs.items():
        pictures, seconds = zip(
            (0, 0.0),
            *(spent(named[name], folder_of(out, row), row["step"]) for row in run),
            strict=True,
        )
        style = {"color": f"C{list(named).index(name)}", "marker": ".", "linewidth": 1.2}
        label = None if name in shown else name
        shown.add(name)
        percent = [100 * row["correct"] for row in (base, *run)]
        left.plot(pictures, percent, label=label, **style)
        right.plot([one / 60 for one in seconds], percent, **style)
    if chosen:
        style = {"color": "black", "marker": "x", "linewidth": 1, "linestyle": "--"}
        percent = [100 * one.correct.value for one in chosen]
        left.plot([one.pictures for one in chosen], percent, label="best of n", **style)
        right.plot([one.seconds / 60 for one in chosen], percent, **style)
    for axes in (left, right):
        axes.axhline(100 * base["correct"], color="grey", linewidth=0.8, linestyle=":")
    left.set_ylabel("fully correct, validation prompts, %")
    left.set_xlabel("pictures drawn in training")
    right.set_xlabel("minutes of training")
    left.legend(fontsize="small")
    save_figure(figure, path)
