"""Does fine-tuning on a reward make the laboratory's pictures better, or the reward fooled?

Run `python -m stablepref.benchmarks.shapes.studies.finetune --out FOLDER`. Needs
the extras `diffusers` and `bench`. A killed run is resumed by the same command.

The same pipeline is fine-tuned with the plain reward, with the robust reward, and with an ensemble
if there are other scorers for one, each with several seeds. Pictures of held-out
prompts are drawn at intervals; the oracle grades them, and the plain reward scores them.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import typer

from stablepref.assets import PIPELINES
from stablepref.integrations.ensemble import Ensemble, reference_statistics
from stablepref.integrations.finetune.config import FinetuneConfig, Method
from stablepref.integrations.finetune.methods import METHODS
from stablepref.output.tables import Table, print_table
from stablepref.scorer import Scorer
from stablepref.zoo import load

from ..pipeline.parts import GUIDANCE, open_pipeline
from ..pipeline.sampling import Sample, sample_prompts
from ..world.commands import DeviceOption, PipelineOption, SplitOption, ThreadsOption, write_json
from ..world.prompts import lab_prompts
from .finetune_runs import Arm, HeldOut, signs_of, study_rows
from .finetune_summary import Summary, draw_finetune_study, summarise

SEEDS = (0, 1, 2)
VIEWS = 4
SAMPLING_STEPS = 10
"""Of each picture, fewer than the pipeline's own, for time."""
REFERENCE_PROMPTS, REFERENCE_PICTURES = 2, 4
"""Prompts of each category, and pictures of each, that the ensemble's units come from."""
STUDY_FILE, PLOT_FILE = "study.json", "study.png"


def arms_of(
    scorer: Scorer,
    others: Sequence[Scorer],
    reference: Sequence[Sample],
    config: FinetuneConfig,
    *,
    views: int,
) -> list[Arm]:
    """What is compared: plain, robust and, with other scorers, ensemble.

    Args:
        scorer: the reward model.
        others: further ones; the ensemble is the mean of all, each in units of its own deviation
            within the prompts of the reference.
        reference: some pictures of each of some prompts by the pipeline before training; unused
            without others.
        config: of all trainings.
        views: of the robust reward.

    Raises:
        ValueError: a scorer gives all pictures of a prompt one score.
    """
    arms = [Arm("plain", scorer, 0, config), Arm("robust", scorer, views, config)]
    if others:
        scorers = [scorer, *others]
        statistics = reference_statistics(
            scorers, [one.picture for one in reference], [one.prompt.prompt for one in reference]
        )
        arms.append(Arm("ensemble", Ensemble(scorers, normalise=statistics), 0, config))
    return arms


def summary_table(summaries: Sequence[Summary]) -> Table:
    """One row for each arm, with means and, in brackets, the least and the most of its seeds."""
    return Table(
        columns=("arm", "reward, gain", "correct, change", "95 % interval", "at equal gain", "gap"),
        rows=[
            (
                one.arm,
                _with_range(one.reward_gains, "+.3f"),
                _with_range(one.correct_changes, "+.1%"),
                f"{one.correct_change.low:+.1%} to {one.correct_change.high:+.1%}",
                _with_range(one.correct_at_equal_gain, "+.1%"),
                _with_range(one.gap_changes, "+.3f"),
            )
            for one in summaries
        ],
    )


def _with_range(values: Sequence[float], form: str) -> str:
    if not values:
        return "-"
    mean = sum(values) / len(values)
    return f"{mean:{form}} ({min(values):{form}} to {max(values):{form}})"


def main(  # noqa: PLR0913, PLR0917 (the arguments of a command are its options)
    out: Annotated[Path, typer.Option(help="folder for trainings, rows, study.json, study.png")],
    pipeline: PipelineOption = PIPELINES["shapes"],
    model: Annotated[
        str,
        typer.Option(
            "--scorer",
            "-s",
            "--model",
            help="what the pipeline is trained with; --model is its former name",
        ),
    ] = "shapes-clip",
    other: Annotated[
        list[str] | None, typer.Option(help="further scorer for the ensemble; may be repeated")
    ] = None,
    seed: Annotated[
        list[int] | None, typer.Option(min=0, help="seed of a training; may be repeated")
    ] = None,
    method: Annotated[Method, typer.Option(help="how the trainings follow the reward")] = "draft",
    steps: Annotated[int, typer.Option(min=1, help="steps of each training")] = 60,
    last_steps: Annotated[
        int,
        typer.Option(min=1, help="last denoising steps that draft and refl differentiate through"),
    ] = 1,
    batch_size: Annotated[int, typer.Option(min=1, help="pictures in a step")] = 16,
    learning_rate: Annotated[
        float, typer.Option(help="learning rate, the same in all steps")
    ] = 1e-3,
    rank: Annotated[
        int, typer.Option(min=0, help="rank of the LoRA matrices; 0 trains all weights")
    ] = FinetuneConfig.rank,
    ema: Annotated[
        float | None,
        typer.Option(help="decay of averaged weights, 0 for none; if left out the method's"),
    ] = None,
    views: Annotated[int, typer.Option(min=1, help="weak views of the robust reward")] = VIEWS,
    sample_every: Annotated[int, typer.Option(min=1, help="steps between measurements")] = 20,
    sampling_steps: Annotated[int, typer.Option(min=1, help="denoising steps")] = SAMPLING_STEPS,
    guidance: Annotated[float, typer.Option(help="scale of classifier-free guidance")] = GUIDANCE,
    train_per_category: Annotated[
        int, typer.Option(min=1, help="prompts of each category to train on")
    ] = 40,
    per_category: Annotated[
        int, typer.Option(min=1, help="held-out prompts of each category")
    ] = 10,
    split: SplitOption = "test",
    pictures: Annotated[int, typer.Option(min=1, help="pictures of each held-out prompt")] = 1,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
) -> None:
    """Fine-tune with three rewards, and let the oracle judge held-out prompts."""
    if threads is not None:
        torch.set_num_threads(threads)
    if METHODS[method].pairs:
        raise typer.BadParameter(
            f"{method} trains on ranked groups; shapes.studies.methods does that"
        )
    try:
        config = FinetuneConfig(
            method=method,
            steps=steps,
            batch_size=batch_size,
            last_steps=last_steps,
            rank=rank,
            learning_rate=learning_rate,
            ema=ema,
            sampling_steps=sampling_steps,
            gradient_checkpointing=False,  # the laboratory's denoiser is small
            guidance=guidance,
            sample_every=sample_every,
            samples=16,  # to look at, and for signs: what counts is measured on held-out prompts
            pictures_per_sample=2,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    scorer, *others = (load(m, device=device, dtype="float32") for m in (model, *(other or ())))
    reference: list[Sample] = []
    if others:
        reference = sample_prompts(
            open_pipeline(pipeline, device),
            lab_prompts("train", per_category=REFERENCE_PROMPTS),
            pictures=REFERENCE_PICTURES,
            steps=sampling_steps,
            guidance=guidance,
        )
    arms = arms_of(scorer, others, reference, config, views=views)
    seeds = tuple(dict.fromkeys(seed or SEEDS))
    rows = study_rows(
        pipeline,
        arms,
        out,
        train_prompts=[p.prompt for p in lab_prompts("train", per_category=train_per_category)],
        held_out=HeldOut(
            lab_prompts(split, per_category=per_category),
            scorer,
            steps=sampling_steps,
            guidance=guidance,
            pictures=pictures,
        ),
        seeds=seeds,
        device=device,
    )
    summaries = summarise(rows)
    signs = signs_of(out, rows)
    report = {
        "split": split,
        "model": model,
        "others": list(other or ()),
        "seeds": seeds,
        "views": views,
        "config": asdict(config),
        "base": {name: rows[0][name] for name in ("reward", "robust", "correct")},
        "arms": [asdict(one) for one in summaries],
        "signs": signs,
    }
    write_json(out / STUDY_FILE, report)
    draw_finetune_study(out / PLOT_FILE, rows)
    print_table(summary_table(summaries))
    for name, found in signs.items():
        typer.echo(f"{name}: {'; '.join(found) or 'no sign of reward hacking'}")
    if not others:
        typer.echo("no ensemble: it needs further scorers, given with --other")
    if not all(one.correct_at_equal_gain for one in summaries):
        typer.echo("no equal gain: in one training or more the held-out reward never rose")


if __name__ == "__main__":
    typer.run(main)
