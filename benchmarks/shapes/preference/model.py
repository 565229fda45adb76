"""Trains the bundled preference model `shapes`: the laboratory's CLIP, taught by its annotators.

They rank pictures that the laboratory's pipeline drew, whose errors are its own, and some of the
laboratory's generators, which imitate errors.

Run ``python -m stablepref.benchmarks.shapes.preference.model --out runs/shapes``. Run it again with
the same options to resume it; another share of the trained weights needs no training, another rate
or seed only its own.
"""

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import torch
import typer

from stablepref.assets import PIPELINES
from stablepref.data.groups import RankedGroup
from stablepref.data.read import read_groups
from stablepref.evaluation.agreement import pairwise_accuracy
from stablepref.evaluation.evaluate import evaluate
from stablepref.output.durable import replacing
from stablepref.output.locks import sole_writer
from stablepref.recipes import Precision, TrainConfig, recipe
from stablepref.scorer import Scorer
from stablepref.trainer import train
from stablepref.training.saving import CARD_FILE
from stablepref.weights.fingerprint import weights_digest
from stablepref.weights.folder import save_folder
from stablepref.zoo import load

from ..people.dataset import oracle_groups, write_dataset
from ..people.settings import HPDV2, SETTINGS
from ..pipeline.parts import GUIDANCE, open_pipeline
from ..world.perturbations import PERTURBATIONS
from .card import Judged, preference_card
from .drawn import write_drawn

if TYPE_CHECKING:
    from ..world.scenes import Split

NAME = "shapes"
DRAWN = "drawn"
"""The kind of groups that the pipeline drew."""
START_FILE = "start.json"
RECIPE = recipe("sp-shapes")
RATES = (1e-4,)
SHARES = (0.5,)


def main(
    out: Annotated[Path, typer.Option(help="folder for data, trainings and the model")],
    groups: Annotated[
        int, typer.Option(min=0, help="training groups of nine pictures by the generators")
    ] = 300,
    held_out: Annotated[
        int, typer.Option(min=1, help="validation groups, and as many test groups of each setting")
    ] = 200,
    drawn: Annotated[
        int, typer.Option(min=0, help="training groups that the pipeline drew; 0 for none")
    ] = 1200,
    drawn_held_out: Annotated[
        int, typer.Option(min=1, help="validation groups that it drew, and as many test groups")
    ] = 60,
    rate: Annotated[
        list[float] | None,
        typer.Option(help="peak learning rate, one or more; if left out, 1e-4"),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="trainings at each rate")] = 1,
    steps: Annotated[int, typer.Option(min=1, help="steps of each training")] = 300,
    share: Annotated[
        list[float] | None,
        typer.Option(
            min=0,
            max=1,
            help="share of the trained weights in the model, one or more; the rest are those of "
            "the start; if left out, 0.5",
        ),
    ] = None,
    start: Annotated[
        str, typer.Option(help="CLIP of shapes to begin with: a zoo name or a folder")
    ] = RECIPE.model,
    mixed_precision: Annotated[
        Precision | None,
        typer.Option(help="of the trainings; if left out, bf16 where the device multiplies it"),
    ] = None,
) -> None:
    """Train at several rates, choose by validation, measure on test; print the model's folder.

    The rate and share whose seeds agree best on average with the annotators of the validation
    groups are taken, and of its seeds the best one; of equals the lower. Each kind of groups counts
    alike.
    """
    if not groups + drawn:
        raise typer.BadParameter("give training groups, with --groups or --drawn")
    common = replace(lengthened(RECIPE, steps), model=start, mixed_precision=mixed_precision)
    try:
        configs = {peak: replace(common, learning_rate=peak) for peak in sorted(rate or RATES)}
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--rate") from error
    with sole_writer(out, folder=True):
        folder = made(
            configs,
            out,
            start=start,
            generators=(groups, held_out),
            pipeline=(drawn, drawn_held_out),
            seeds=seeds,
            shares=sorted(set(share or SHARES)),
        )
    typer.echo(folder)


def made(
    configs: Mapping[float, TrainConfig],
    out: Path,
    *,
    start: str,
    generators: tuple[int, int],
    pipeline: tuple[int, int],
    seeds: int,
    shares: Sequence[float],
) -> Path:
    """The folder of the chosen model; the arguments are those of the command.

    `generators` and `pipeline` are the training groups and held-out groups of each source.
    """
    before = load(start, dtype="float32")
    _claim(out, before, start)
    kinds = _write_data(out / "data", generators, pipeline)
    training = [
        group
        for kind, (number, _) in {DRAWN: pipeline, HPDV2.name: generators}.items()
        if number
        for group in read_groups(out / "data" / kind / "train.jsonl")
    ]
    validation = [list(read_groups(out / "data" / kind / "validation.jsonl")) for kind in kinds]
    ends = {
        peak: [trained(training, replace(config, seed=seed), out) for seed in range(seeds)]
        for peak, config in configs.items()
    }
    models = {
        (peak, share): [averaged(before, end, share=share) for end in trainings]
        for peak, trainings in ends.items()
        for share in shares
    }
    agreement = {
        setting: [float(np.mean([_agreement(model, each) for each in validation])) for model in own]
        for setting, own in models.items()
    }
    best = max(agreement, key=lambda setting: float(np.mean(agreement[setting])))
    chosen = int(np.argmax(agreement[best]))
    peak, share = best
    tested = (*SETTINGS, *(kind for kind in kinds if kind not in SETTINGS))
    card = preference_card(
        configs[peak],
        generators,
        pipeline,
        share=share,
        agreement=agreement,
        chosen=chosen,
        start=judged(before, out / "data", tested),
        finals=[judged(model, out / "data", tested) for model in models[best]],
    )
    folder = out / f"share-{share:g}"
    save_folder(models[best][chosen].half(), folder)
    with replacing(folder / CARD_FILE) as staging:
        staging.write_text(card, encoding="utf-8")
    return folder


def _write_data(
    data: Path, generators: tuple[int, int], pipeline: tuple[int, int]
) -> tuple[str, ...]:
    """Write what is missing of the groups; give the kinds to choose by."""
    groups, held_out = generators
    counts: dict[Split, int] = {"validation": held_out, "test": held_out}
    tested: dict[Split, int] = {"test": held_out}
    if groups:
        counts["train"] = groups
    for setting in SETTINGS.values():
        write_dataset(data / setting.name, setting, counts if setting is HPDV2 else tested)
    drawn, held_out = pipeline
    if not drawn:
        return (HPDV2.name,)
    pipe = open_pipeline(PIPELINES["shapes"])
    wanted: dict[Split, int] = {"train": drawn, "validation": held_out, "test": held_out}
    for split, number in wanted.items():
        write_drawn(data / DRAWN, pipe, number, split=split, guidance=GUIDANCE)
    return HPDV2.name, DRAWN


def _agreement(model: Scorer, groups: Sequence[RankedGroup]) -> float:
    return evaluate(model, groups, perturbations=()).accuracy


def _claim(out: Path, start: Scorer, name: str) -> None:
    """Refuse a folder whose trainings began with another model; a path may get other weights."""
    out.mkdir(parents=True, exist_ok=True)
    path, own = out / START_FILE, {"model": name, "weights": weights_digest(start)}
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found != own:
            what = found["model"] if found["model"] != name else "other weights of that name"
            raise typer.BadParameter(
                f"{name}, but the trainings in {out} began with {what}; give another --out",
                param_hint="--start",
            )
        return
    with replacing(path) as staging:
        staging.write_text(json.dumps(own, indent=1) + "\n", encoding="utf-8")


def lengthened(config: TrainConfig, steps: int) -> TrainConfig:
    """The recipe with other steps, of which step 1 and the warm-up have the same shares."""
    order, warmup = (
        round(part * steps / config.steps) for part in (config.order_steps, config.warmup_steps)
    )
    return replace(config, steps=steps, order_steps=order, warmup_steps=warmup)


def trained(groups: Sequence[RankedGroup], config: TrainConfig, out: Path) -> Scorer:
    """The model after the last step; a training that the folder holds is resumed, or only read."""
    folder = out / f"rate-{config.learning_rate:g}" / f"seed-{config.seed}"
    return train(groups, config, out=folder, resume=True)


def averaged(start: Scorer, end: Scorer, *, share: float) -> Scorer:
    """A model whose weights lie between two: WiSE-FT (Wortsman et al. 2022, equation 1).

    Args:
        start: Gives ``1 - share`` of every weight that a score's direction depends on.
        end: Gives the rest, and the unit of the score.
        share: From 0 to 1.
    """
    model = copy.deepcopy(end)
    model.name = NAME
    weights = dict(model.named_parameters())
    with torch.no_grad():
        for name, before in start.named_parameters():
            if not name.endswith("logit_scale"):
                weights[name].copy_(torch.lerp(before, weights[name], share))
    return model


def judged(scorer: Scorer, data: Path, kinds: Sequence[str] = tuple(SETTINGS)) -> Judged:
    """Agreement with people and with the truth on the test groups of each kind.

    Args:
        scorer: The model.
        data: Folder with a folder for each kind.
        kinds: Names of settings, and `DRAWN`.
    """
    people, oracle = {}, {}
    for kind in kinds:
        groups = list(read_groups(data / kind / "test.jsonl"))
        perturbations = PERTURBATIONS if kind == HPDV2.name else ()
        report = evaluate(scorer, oracle_groups(groups), perturbations=perturbations)
        oracle[kind] = report
        people[kind] = pairwise_accuracy(
            [group.scores[0] for group in report.scored], [group.ranks for group in groups]
        )
    return Judged(people, oracle)


if __name__ == "__main__":
    typer.run(main)
