"""Train the small CLIP from scratch: `python -m stablepref.benchmarks.shapes.clip.train`."""

from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from open_clip.model import CLIP
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from stablepref.models.clip import MAX_LOG_SCALE
from stablepref.output.locks import sole_writer
from stablepref.training.optimizer import build_optimizer

from ..world.commands import DeviceOption
from ..world.vocabulary import VOCABULARY_NAME, load_tokenizer, write_vocabulary
from .batches import BatchConfig, TrainingBatches
from .model import backbone_config, build_model, save_model
from .objective import Losses, batch_losses
from .patches import PatchHead
from .stage import Stage
from .training_files import Precision

STAGE = "clip"


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the trained weights.

    Attributes:
        batch: what each step sees.
        steps: optimiser steps; the learning rate falls to zero over them along a cosine.
        warmup: steps over which the learning rate first rises.
        learning_rate: its peak.
        weight_decay: AdamW's, on matrices only.
        code_weight: weight of the losses of the scenes' codes; the contrast has 1.
        patch_weight: weight of the losses of the patches.
        precision: "bf16" (autocast) or "fp32".
        backbone: open_clip's model configuration; None is that of `shapes-clip`.
    """

    batch: BatchConfig = field(default_factory=BatchConfig)
    steps: int = 3000
    warmup: int = 150
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    code_weight: float = 10.0
    patch_weight: float = 1.0
    precision: Precision = "fp32"
    backbone: dict[str, Any] | None = None


def train(
    config: TrainConfig,
    folder: Path,
    *,
    device: str = "cpu",
    workers: int = 1,
    checkpoint_every: int = 100,
    stop_after: int | None = None,
    max_hours: float | None = None,
) -> CLIP:
    """Train, or continue the training that `folder` holds, to the same weights either way.

    Args:
        config: decides the weights; a folder begun with another one is refused.
        folder: receives checkpoints and, after each, the model in the form that
            `stablepref.load` opens.
        device: where to train.
        workers: processes that draw batches ahead; 0 draws them in this one.
        checkpoint_every: steps between checkpoints.
        stop_after: stop once this step is reached, as if interrupted there.
        max_hours: save and stop when this call has taken this long.

    Raises:
        ValueError: the folder holds a training with another configuration.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = folder / VOCABULARY_NAME
    write_vocabulary(vocabulary)
    backbone = config.backbone or backbone_config(load_tokenizer(vocabulary).vocab_size)
    model = build_model(backbone, seed=config.batch.seed).to(device).train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.batch.seed)
        head = PatchHead(backbone["vision_cfg"]["width"]).to(device)
    both = nn.ModuleDict({"model": model, "head": head})
    optimizer = build_optimizer(
        both,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        betas=(0.9, 0.98),
        eps=1e-8,
    )
    stage = Stage(
        STAGE,
        folder,
        config,
        {"model": both},
        [optimizer],
        settings=asdict(config),
        device=device,
        checkpoint_every=checkpoint_every,
        stop_after=stop_after,
    )
    batches = TrainingBatches(config.batch, vocabulary, config.steps)
    # PyTorch's fused attention is slower than plain matrix products on a CPU at this size.
    attention = sdpa_kernel(SDPBackend.MATH) if device == "cpu" else nullcontext()
    with attention:
        for step, batch in stage.steps(batches, workers=workers):
            losses = batch_losses(model, head, batch.to(device), precision=config.precision)
            optimizer.zero_grad(set_to_none=True)
            total = losses.total(code_weight=config.code_weight, patch_weight=config.patch_weight)
            total.backward()
            optimizer.step()
            with torch.no_grad():
                model.logit_scale.clamp_(0, MAX_LOG_SCALE)
            late = max_hours is not None and stage.seconds > max_hours * 3600
            if stage.taken(step, losses.contrast.item()) or late:
                save_model(model, backbone, vocabulary, folder / "model")
                stage.save(step, _metrics(losses, model))
            if late:
                break
    return model


def _metrics(losses: Losses, model: CLIP) -> dict[str, float]:
    return {
        "loss": losses.contrast.item(),
        "pictures_loss": losses.pictures.item(),
        "prompts_loss": losses.prompts.item(),
        "kinds_loss": losses.kinds.item(),
        "places_loss": losses.places.item(),
        "top1": losses.top1.item(),
        "logit_scale": model.logit_scale.exp().item(),
    }


def main(
    out: Annotated[Path, typer.Option(help="folder for checkpoints and the model")],
    steps: Annotated[int, typer.Option(help="optimiser steps")] = TrainConfig.steps,
    learning_rate: Annotated[
        float, typer.Option(help="peak learning rate")
    ] = TrainConfig.learning_rate,
    seed: Annotated[int, typer.Option(help="seed of weights and batches")] = BatchConfig.seed,
    precision: Annotated[
        Precision, typer.Option(help="number type; bf16 where it is fast")
    ] = TrainConfig.precision,
    device: DeviceOption = "cpu",
    workers: Annotated[int, typer.Option(help="processes that draw batches ahead")] = 1,
    max_hours: Annotated[
        float | None, typer.Option(help="save and stop after this many hours")
    ] = None,
) -> None:
    """Train the shapes CLIP; run it again with the same options to resume."""
    config = TrainConfig(
        batch=BatchConfig(seed=seed),
        steps=steps,
        learning_rate=learning_rate,
        precision=precision,
    )
    with sole_writer(out, folder=True):
        train(config, out, device=device, workers=workers, max_hours=max_hours)


if __name__ == "__main__":
    typer.run(main)
