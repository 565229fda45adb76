"""Trains the bundled preference model `shapes`: the laboratory's CLIP, taught by its annotators.

Run ``python -m stablepref.benchmarks.shapes.preference_model --out runs/shapes``. Run it again with
the same options and it continues.
"""

import copy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stablepref.durable import replacing
from stablepref.evaluation import evaluate
from stablepref.pretrained import save_folder
from stablepref.readers import read_groups
from stablepref.recipes import recipe
from stablepref.scorer import Scorer
from stablepref.trainer import BEST, train
from stablepref.zoo import load

from .ablation_world import DISTURBANCES
from .dataset import oracle_groups, write_dataset
from .preference_card import Judged, preference_card
from .settings import HPDV2, SETTINGS

if TYPE_CHECKING:
    from .scenes import Split

NAME = "shapes"
RECIPE = "sp-shapes"
CARD_FILE = "README.md"


def main(
    out: Annotated[Path, typer.Option(help="folder for data, trainings and the model")],
    groups: Annotated[int, typer.Option(min=1, help="training groups of nine pictures")] = 1000,
    held_out: Annotated[int, typer.Option(min=1, help="validation groups, and test groups")] = 300,
    seeds: Annotated[int, typer.Option(min=1, help="trainings to choose from")] = 3,
    name: Annotated[str, typer.Option("--recipe", help="of the trainings")] = RECIPE,
    steps: Annotated[
        int | None, typer.Option(min=1, help="of each; the recipe's if left out")
    ] = None,
) -> None:
    """Train with several seeds, choose by validation, measure on test; OUT/model is the model."""
    counts: dict[Split, int] = {"train": groups, "validation": held_out, "test": held_out}
    tested: dict[Split, int] = {"test": held_out}
    for setting in SETTINGS.values():
        wanted = counts if setting is HPDV2 else tested
        write_dataset(out / "data" / setting.name, setting, wanted)
    data = out / "data" / HPDV2.name
    config = recipe(name)
    if steps is not None:
        share = steps / config.steps
        order, warmup = round(share * config.order_steps), round(share * config.warmup_steps)
        config = replace(config, steps=steps, order_steps=order, warmup_steps=warmup)
    trained: dict[int, Scorer] = {}
    chosen_by: dict[int, float] = {}
    validation = list(read_groups(data / "validation.jsonl"))
    for seed in range(seeds):
        folder = out / f"seed-{seed}"
        train(
            list(read_groups(data / "train.jsonl")),
            replace(config, seed=seed),
            out=folder,
            validation=validation,
            resume=True,
        )
        trained[seed] = load(folder / BEST, dtype="float32")
        chosen_by[seed] = evaluate(trained[seed], validation, perturbations=()).accuracy
    chosen = max(chosen_by, key=lambda seed: chosen_by[seed])
    start = judged(load(config.model, dtype="float32"), out / "data")
    finals = {seed: judged(scorer, out / "data") for seed, scorer in trained.items()}
    model = copy.deepcopy(trained[chosen]).half()
    model.name = NAME
    save_folder(model, out / "model")
    with replacing(out / "model" / CARD_FILE) as staging:
        text = preference_card(
            config, groups, held_out, chosen_by=chosen_by, chosen=chosen, start=start, finals=finals
        )
        staging.write_text(text, encoding="utf-8")
    typer.echo(out / "model")


def judged(scorer: Scorer, data: Path) -> Judged:
    """Agreement with people and with the truth on both settings' test groups."""
    people, oracle = {}, {}
    for setting in SETTINGS:
        groups = list(read_groups(data / setting / "test.jsonl"))
        people[setting] = evaluate(scorer, groups, perturbations=()).pairwise
        disturbances = DISTURBANCES if setting == HPDV2.name else ()
        oracle[setting] = evaluate(scorer, oracle_groups(groups), perturbations=disturbances)
    return Judged(people, oracle)


if __name__ == "__main__":
    typer.run(main)
