"""Which method of fine-tuning makes the most of as many pictures, by what the oracle sees.

Run `python -m stablepref.benchmarks.shapes.studies.methods --out FOLDER`. Needs the extras
`diffusers` and `bench`. A killed run is resumed by the same command.

The laboratory's pipeline is fine-tuned by each method, with the oracle or a model as the reward, or
on ranked groups such as `preference.drawn` writes.
Validation prompts are drawn at intervals; the step that is best there is measured once more, on the
test prompts, with the pipeline's own number of steps or another.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from stablepref.assets import PIPELINES
from stablepref.data.groups import RankedGroup
from stablepref.data.read import read_groups
from stablepref.integrations.finetune.config import FinetuneConfig
from stablepref.integrations.finetune.methods import METHODS
from stablepref.output.tables import Table, print_table
from stablepref.zoo import load

from ..oracle.reward import NAME as ORACLE
from ..oracle.reward import oracle_reward
from ..pipeline.parts import GUIDANCE, STEPS
from ..world.commands import DeviceOption, PipelineOption, ThreadsOption, write_json
from ..world.prompts import lab_prompts
from .finetune_runs import Arm, HeldOut, study_rows
from .methods_choice import Choice, choices
from .methods_summary import Outcome, draw_methods, outcomes

STUDY_FILE, PLOT_FILE = "study.json", "study.png"
VALIDATION_STEPS = 10
JUDGE = "shapes-clip"
"""Scores all pictures, whatever the reward is."""

COMMON: Mapping[str, Any] = {
    "rank": 0,
    "sampling_steps": 10,
    "guidance": 1.0,
    "gradient_checkpointing": False,  # the laboratory's denoiser is small
    "samples": 4,  # to look at: what counts is measured on held-out prompts
    "pictures_per_sample": 1,
    "monitor_views": 1,
    "checkpoint_every": 20,
}
DPO: Mapping[str, Any] = {
    "method": "dpo",
    "batch_size": 32,
    "learning_rate": 1e-5,
    "ema": 0.9,
}
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "nft": {"batch_size": 48, "pictures_per_prompt": 8, "learning_rate": 1e-4, "nft_timesteps": 4},
    "grpo": {"batch_size": 48, "pictures_per_prompt": 8, "learning_rate": 1e-4, "ema": 0.9},
    "ddpo": {"batch_size": 48, "pictures_per_prompt": 8, "learning_rate": 1e-4, "ema": 0.9},
    "draft": {"batch_size": 16, "last_steps": 10, "learning_rate": 1e-4, "ema": 0.9},
    "dpo": DPO,
    "dpo-paper": {**DPO, "dpo_weights": "paper"},
}
"""What each method has besides `COMMON`; short trials on validation prompts led to them."""
FIXED: Mapping[str, str] = {
    "method": "--method",
    "steps": "--pictures",
    "sample_every": "--every",
    "seed": "--seed",
}
"""Fields that other options decide."""
WITHOUT_GRADIENT = ("nft", "grpo", "ddpo")
ON_GROUPS = tuple(one for one in SETTINGS if METHODS[SETTINGS[one].get("method", one)].pairs)


def config_of(method: str, pictures: int, every: int, changes: Mapping[str, Any]) -> FinetuneConfig:
    """The settings of a training that draws so many pictures, or takes so many pairs.

    Args:
        method: one of `SETTINGS`.
        pictures: in all, or pairs of DPO; rounded up to whole steps.
        every: pictures between measurements, likewise.
        changes: fields with other values than those of `COMMON` and `SETTINGS`.

    Raises:
        ValueError: a field is unknown or its value cannot be used.
    """
    if method not in SETTINGS:
        raise ValueError(f"there is no method {method!r} here; expected {', '.join(SETTINGS)}")
    values = {"method": method, **COMMON, **SETTINGS[method], **changes}
    if fixed := changes.keys() & FIXED.keys():
        name = min(fixed)
        raise ValueError(f"{name} follows from {FIXED[name]}; it cannot be set")
    if unknown := values.keys() - FinetuneConfig.__dataclass_fields__.keys():
        raise ValueError(f"unknown {', '.join(sorted(unknown))}; see FinetuneConfig")
    config = FinetuneConfig(**values)
    steps, apart = (-(-count // config.batch_size) for count in (pictures, every))
    return replace(config, steps=steps, sample_every=apart)


def changes_of(given: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What METHOD.FIELD=VALUE texts change: by method, values by field.

    Raises:
        ValueError: a text has another form, or names another method.
    """
    changes: dict[str, dict[str, Any]] = {}
    for text in given:
        name, equals, value = text.partition("=")
        method, dot, field = name.partition(".")
        if not (equals and dot and field) or method not in SETTINGS:
            raise ValueError(
                f"expected METHOD.FIELD=VALUE with a method of {', '.join(SETTINGS)}, got {text!r}"
            )
        try:
            changes.setdefault(method, {})[field] = json.loads(value)
        except json.JSONDecodeError:
            changes.setdefault(method, {})[field] = value
    return changes


def table_of(found: Sequence[Outcome], base: Outcome, chosen: Sequence[Choice] = ()) -> Table:
    """One row for each training, one for the pipeline before any, and those of choosing."""
    return Table(
        columns=("method", "seed", "pictures", "minutes", "validation", "test", "difference"),
        rows=[
            (
                one.arm,
                str(one.seed),
                f"{one.pictures:,}",
                f"{one.seconds / 60:.0f}",
                f"{one.validation:.1%}",
                f"{one.test.value:.1%} ({one.test.low:.1%} to {one.test.high:.1%})",
                f"{one.gain.value:+.1%} ({one.gain.low:+.1%} to {one.gain.high:+.1%})",
            )
            for one in (base, *found)
        ]
        + [
            (
                f"best of {one.n}",
                "",
                f"{one.pictures:,}",
                f"{one.seconds / 60:.0f}",
                f"{one.correct.value:.1%} ({one.correct.low:.1%} to {one.correct.high:.1%})",
                "",
                "",
            )
            for one in chosen
            if one.n > 1
        ],
        title="fully correct by the oracle; the step that is best on validation prompts",
    )


def main(  # noqa: PLR0913, PLR0917 (the arguments of a command are its options)
    out: Annotated[Path, typer.Option(help="folder for trainings, rows, study.json, study.png")],
    pipeline: PipelineOption = PIPELINES["shapes"],
    reward: Annotated[
        str, typer.Option(help='"oracle", or a scorer: what the pipeline is trained with')
    ] = ORACLE,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help=f"of {', '.join(SETTINGS)}; may be repeated; if left out the first three"
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(exists=True, help="ranked groups to train on, for dpo")
    ] = None,
    seed: Annotated[
        list[int] | None,
        typer.Option(min=0, help="seed of a training; may be repeated; if left out 0"),
    ] = None,
    pictures: Annotated[
        int, typer.Option(min=1, help="pictures that a training draws; of dpo pairs that it takes")
    ] = 9600,
    every: Annotated[int, typer.Option(min=1, help="the same between measurements")] = 960,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", help="METHOD.FIELD=VALUE of FinetuneConfig; may be repeated"),
    ] = None,
    train_per_category: Annotated[
        int, typer.Option(min=1, help="prompts of each category to train on")
    ] = 100,
    per_category: Annotated[
        int, typer.Option(min=1, help="validation prompts of each category")
    ] = 10,
    choose: Annotated[
        bool, typer.Option(help="also choose the best of as many pictures of validation prompts")
    ] = True,
    guidance: Annotated[
        float, typer.Option(min=0, help="guidance of validation and test pictures; 1 for none")
    ] = GUIDANCE,
    test_steps: Annotated[
        int, typer.Option(min=1, help="denoising steps of test pictures")
    ] = STEPS,
    test_pictures: Annotated[int, typer.Option(min=1, help="pictures of each test prompt")] = 1,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
) -> None:
    """Fine-tune by several methods, and let the oracle judge held-out prompts."""
    if threads is not None:
        torch.set_num_threads(threads)
    methods = list(dict.fromkeys(method or WITHOUT_GRADIENT))
    try:
        changes = changes_of(change or ())
        if unused := changes.keys() - set(methods):
            raise ValueError(f"--set is of {', '.join(sorted(unused))}, which no --method names")
        configs = {one: config_of(one, pictures, every, changes.get(one, {})) for one in methods}
        groups = _groups(data, methods)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    scorer = oracle_reward() if reward == ORACLE else load(reward, device=device, dtype="float32")
    backwards = [one for one, config in configs.items() if METHODS[config.method].gradient]
    if backwards and scorer.joint:
        raise typer.BadParameter(
            f"{backwards[0]} needs a reward with a gradient, which {reward!r} has not; give a "
            'model such as "shapes" with --reward'
        )
    judge = load(JUDGE, device=device, dtype="float32")
    arms = [
        Arm(name, scorer, 0, config, groups if name in ON_GROUPS else ())
        for name, config in configs.items()
    ]
    seeds = tuple(dict.fromkeys(seed or (0,)))
    validation = lab_prompts("validation", per_category=per_category)
    rows = study_rows(
        pipeline,
        arms,
        out,
        train_prompts=[p.prompt for p in lab_prompts("train", per_category=train_per_category)],
        held_out=HeldOut(validation, judge, VALIDATION_STEPS, guidance),
        seeds=seeds,
        device=device,
    )
    chosen = (
        choices(
            pipeline,
            scorer,
            out,
            validation,
            pictures=pictures,
            steps=VALIDATION_STEPS,
            guidance=guidance,
            device=device,
        )
        if choose
        else []
    )
    base, *found = outcomes(
        pipeline,
        arms,
        rows,
        out,
        lab_prompts("test"),
        steps=test_steps,
        guidance=guidance,
        pictures=test_pictures,
        device=device,
    )
    write_json(
        out / STUDY_FILE,
        {
            "reward": reward,
            "configs": {name: asdict(config) for name, config in configs.items()},
            "seeds": seeds,
            "guidance": guidance,
            "test_steps": test_steps,
            "test_pictures": test_pictures,
            "base": asdict(base),
            "trainings": [asdict(one) for one in found],
            "choices": [asdict(one) for one in chosen],
        },
    )
    draw_methods(out / PLOT_FILE, rows, arms, out, chosen)
    print_table(table_of(found, base, chosen))


def _groups(data: Path | None, methods: Sequence[str]) -> list[RankedGroup]:
    """The ranked groups that some of the methods train on; none if none does.

    Raises:
        ValueError: they are missing, nothing trains on them, or they cannot be read.
    """
    wanted = [one for one in methods if one in ON_GROUPS]
    if wanted and data is None:
        raise ValueError(f"--method {wanted[0]} trains on ranked groups; give --data")
    if data is None:
        return []
    if not wanted:
        raise ValueError(f"--data is for the methods {' and '.join(ON_GROUPS)}; leave it out")
    return list(read_groups(data))


if __name__ == "__main__":
    typer.run(main)
