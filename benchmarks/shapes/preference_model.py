"""Trains the bundled preference model `shapes`: the laboratory's CLIP, taught by its annotators.

Run ``python -m stablepref.benchmarks.shapes.preference_model --out runs/shapes``. Run it again with
the same options and it continues; another share of the trained weights needs no other training.
"""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import torch
import typer

from stablepref.agreement import pairwise_accuracy
from stablepref.durable import replacing
from stablepref.evaluation import evaluate
from stablepref.fingerprint import weights_digest
from stablepref.pretrained import save_folder
from stablepref.readers import read_groups
from stablepref.recipes import TrainConfig, recipe
from stablepref.scorer import Scorer
from stablepref.trained import CARD_FILE
from stablepref.trainer import train
from stablepref.zoo import load

from .ablation_world import DISTURBANCES
from .dataset import oracle_groups, write_dataset
from .preference_card import Judged, preference_card
from .settings import HPDV2, SETTINGS

if TYPE_CHECKING:
    from .scenes import Split

NAME = "shapes"
START_FILE = "start.json"
RECIPE = recipe("sp-shapes", learning_rate=5e-5)


def main(
    out: Annotated[Path, typer.Option(help="folder for data, trainings and the model")],
    groups: Annotated[int, typer.Option(min=1, help="training groups of nine pictures")] = 4000,
    held_out: Annotated[int, typer.Option(min=1, help="validation groups, and test groups")] = 300,
    seeds: Annotated[int, typer.Option(min=1, help="trainings to choose from")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="of each training")] = 900,
    share: Annotated[
        float, typer.Option(min=0, max=1, help="of the trained weights; the rest are the start's")
    ] = 0.7,
    start: Annotated[
        str, typer.Option(help="CLIP of shapes to begin with: a zoo name or a folder")
    ] = RECIPE.model,
) -> None:
    """Train with several seeds, choose by validation, measure on test; print the model's folder."""
    counts: dict[Split, int] = {"train": groups, "validation": held_out, "test": held_out}
    tested: dict[Split, int] = {"test": held_out}
    for setting in SETTINGS.values():
        wanted = counts if setting is HPDV2 else tested
        write_dataset(out / "data" / setting.name, setting, wanted)
    config = replace(lengthened(RECIPE, steps), model=start)
    before = load(start, dtype="float32")
    _claim(out, before, start)
    models = {
        seed: averaged(before, trained(config, seed, out), share=share) for seed in range(seeds)
    }
    validation = list(read_groups(out / "data" / HPDV2.name / "validation.jsonl"))
    agreement = {
        seed: evaluate(model, validation, perturbations=()).accuracy
        for seed, model in models.items()
    }
    chosen = max(agreement, key=lambda seed: agreement[seed])
    card = preference_card(
        config,
        groups,
        held_out,
        share=share,
        agreement=agreement,
        chosen=chosen,
        start=judged(before, out / "data"),
        finals={seed: judged(model, out / "data") for seed, model in models.items()},
    )
    folder = out / f"share-{share:g}"
    save_folder(models[chosen].half(), folder)
    with replacing(folder / CARD_FILE) as staging:
        staging.write_text(card, encoding="utf-8")
    typer.echo(folder)


def _claim(out: Path, start: Scorer, name: str) -> None:
    """Refuse a folder whose trainings began with another model; a path may get other weights."""
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


def trained(config: TrainConfig, seed: int, out: Path) -> Scorer:
    """The model after the last step; a training that is there goes on, or is only read."""
    return train(
        list(read_groups(out / "data" / HPDV2.name / "train.jsonl")),
        replace(config, seed=seed),
        out=out / f"seed-{seed}",
        resume=True,
    )


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
        disturbances = DISTURBANCES if setting == HPDV2.name else ()
        report = evaluate(scorer, oracle_groups(groups), perturbations=disturbances)
        oracle[setting] = report
        people[setting] = pairwise_accuracy(
            [group.scores[0] for group in report.scored], [group.ranks for group in groups]
        )
    return Judged(people, oracle)


if __name__ == "__main__":
    typer.run(main)
