"""Trains the smaller of the ablations' two models, by the laboratory's own script.

Run ``python -m stablepref.benchmarks.shapes.ablation.small --out runs/shapes-small``. Run it again
with the same options and it continues.
"""

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from ..clip.batches import BatchConfig
from ..clip.model import backbone_config
from ..clip.train import TrainConfig, train
from ..clip.training_files import Precision
from ..world.commands import DeviceOption
from ..world.vocabulary import VOCABULARY_NAME, load_tokenizer, write_vocabulary

MODEL_NAME: Final = "model"
"""Where a training keeps its model."""


def small_backbone(vocab_size: int) -> dict[str, Any]:
    """open_clip's configuration: 4 image blocks of width 128 and 3 text blocks of width 96.

    A third of `shapes-clip`'s image tower in weights, and the same features' length.
    """
    whole = backbone_config(vocab_size)
    return whole | {
        "vision_cfg": whole["vision_cfg"] | {"layers": 4, "width": 128},
        "text_cfg": whole["text_cfg"] | {"layers": 3, "width": 96, "heads": 3},
    }


def small_model(folder: Path, precision: str, *, device: str) -> Path:
    """The small model of a suite, trained first if it is not there or not finished.

    Args:
        folder: Of its training.
        precision: The suite's mixed precision: "no" or "bf16".
        device: Where to train.

    Raises:
        ValueError: The folder holds another training.
    """
    main(folder, precision="bf16" if precision == "bf16" else "fp32", device=device)
    return folder / MODEL_NAME


def main(
    out: Annotated[Path, typer.Option(help="folder for checkpoints and the model")],
    steps: Annotated[int, typer.Option(min=1, help="optimiser steps")] = TrainConfig.steps,
    batch_size: Annotated[
        int, typer.Option(min=4, help="pictures in a step")
    ] = BatchConfig.batch_size,
    seed: Annotated[int, typer.Option(help="seed of weights and batches")] = BatchConfig.seed,
    precision: Annotated[
        Precision, typer.Option(help="number type; bf16 where it is fast")
    ] = "fp32",
    device: DeviceOption = "cpu",
    workers: Annotated[int, typer.Option(min=0, help="processes that draw batches ahead")] = 1,
) -> None:
    """Train the small model; OUT/model is what the ablations take as --small."""
    out.mkdir(parents=True, exist_ok=True)
    vocabulary = out / VOCABULARY_NAME
    write_vocabulary(vocabulary)
    config = TrainConfig(
        batch=BatchConfig(seed=seed, batch_size=batch_size),
        steps=steps,
        precision=precision,
        backbone=small_backbone(load_tokenizer(vocabulary).vocab_size),
    )
    train(config, out, device=device, workers=workers)
    typer.echo(out / MODEL_NAME)


if __name__ == "__main__":
    typer.run(main)
