"""Trains the bundled preference model `shapes`: the laboratory's CLIP, taught by its annotators.

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
from ..world.perturbations import PERTURBATIONS
from .card import Judged, preference_card

if TYPE_CHECKING:
    from ..world.scenes import Split

NAME = "shapes"
START_FILE = "start.json"
RECIPE = recipe("sp-shapes")
RATES = (1e-4, 2e-4, 4e-4)


def main(
    out: Annotated[Path, typer.Option(help="folder for data, trainings and the model")],
    groups: Annotated[int, typer.Option(min=1, help="training groups of nine pictures")] = 4000,
    held_out: Annotated[
        int, typer.Option(min=1, help="validation groups, and as many test groups of each setting")
    ] = 300,
    rate: Annotated[
        list[float] | None,
        typer.Option(help="peak learning rate, one or more; if left out, 1e-4, 2e-4, 4e-4"),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="trainings at each rate")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="steps of each training")] = 900,
    share: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="share of the trained weights in the model; the rest are those of the start",
        ),
    ] = 0.7,
    start: Annotated[
        str, typer.Option(help="CLIP of shapes to begin with: a zoo name or a folder")
    ] = RECIPE.model,
    mixed_precision: Annotated[
        Precision | None,
        typer.Option(help="of the trainings; if left out, bf16 where the device multiplies it"),
    ] = None,
) -> None:
    """Train at several rates, choose by validation, measure on test; print the model's folder.

    The rate whose seeds agree best on average with the annotators of the validation groups is
    taken, and of its seeds the best one; of equals the lower.
    """
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
            groups=groups,
            held_out=held_out,
            seeds=seeds,
            share=share,
        )
    typer.echo(folder)


def made(
    configs: Mapping[float, TrainConfig],
    out: Path,
    *,
    start: str,
    groups: int,
    held_out: int,
    seeds: int,
    share: float,
) -> Path:
    """The folder of the chosen model; the arguments are those of the command."""
    before = load(start, dtype="float32")
    _claim(out, before, start)
    counts: dict[Split, int] = {"train": groups, "validation": held_out, "test": held_out}
    tested: dict[Split, int] = {"test": held_out}
    for setting in SETTINGS.values():
        wanted = counts if setting is HPDV2 else tested
        write_dataset(out / "data" / setting.name, setting, wanted)
    training = list(read_groups(out / "data" / HPDV2.name / "train.jsonl"))
    models = {
        peak: [
            averaged(before, trained(training, replace(config, seed=seed), out), share=share)
            for seed in range(seeds)
        ]
        for peak, config in configs.items()
    }
    validation = list(read_groups(out / "data" / HPDV2.name / "validation.jsonl"))
    agreement = {
        peak: [evaluate(model, validation, perturbations=()).accuracy for model in ends]
        for peak, ends in models.items()
    }
    best = max(agreement, key=lambda peak: float(np.mean(agreement[peak])))
    chosen = int(np.argmax(agreement[best]))
    card = preference_card(
        configs[best],
        groups,
        held_out,
        share=share,
        agreement=agreement,
        chosen=chosen,
        start=judged(before, out / "data"),
        finals=[judged(model, out / "data") for model in models[best]],
    )
    folder = out / f"share-{share:g}"
    save_folder(models[best][chosen].half(), folder)
    with replacing(folder / CARD_FILE) as staging:
        staging.write_text(card, encoding="utf-8")
    return folder


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


def judged(scorer: Scorer, data: Path) -> Judged:
    """Agreement with people and with the truth on both settings' test groups."""
    people, oracle = {}, {}
    for setting in SETTINGS:
        groups = list(read_groups(data / setting / "test.jsonl"))
        perturbations = PERTURBATIONS if setting == HPDV2.name else ()
        report = evaluate(scorer, oracle_groups(groups), perturbations=perturbations)
        oracle[setting] = report
        people[setting] = pairwise_accuracy(
            [group.scores[0] for group in report.scored], [group.ranks for group in groups]
        )
    return Judged(people, oracle)


if __name__ == "__main__":
    typer.run(main)
