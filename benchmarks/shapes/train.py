"""Trains the laboratory's CLIP from nothing: `python -m stablepref.benchmarks.shapes.train`."""

import json
import math
import os
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from open_clip.model import CLIP
from rich.progress import Progress, TextColumn, TimeRemainingColumn
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, Subset

from stablepref.clip import CLIPScorer
from stablepref.pretrained import load_folder

from .batches import BatchConfig, TrainingBatches
from .model import backbone_config, build_model, save_model
from .objective import Heads, Losses, batch_losses
from .vocabulary import VOCABULARY_NAME, load_tokenizer, write_vocabulary

MAX_LOG_SCALE = math.log(100)
CHECKPOINT_NAME = "checkpoint.pt"
POSITIONS = "visual.positional_embedding"


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the trained weights.

    Attributes:
        batch: what each step sees.
        steps: optimiser steps; the learning rate falls to zero over them along a cosine.
        warmup: steps over which the learning rate first rises.
        learning_rate: its peak.
        weight_decay: AdamW's, on matrices only.
        scene_weight: weight of the features' second task beside the contrast.
        patch_weight: weight of the patches' second task.
        precision: "bf16" (autocast) or "fp32".
        backbone: open_clip's model configuration; None is the bundled model's.
        start: folder of a model whose weights this one begins with; None begins with random ones.
        fresh_positions: begin with smooth positions of the patches, not those of `start`: what
            contrast alone leaves there tells no places.
    """

    batch: BatchConfig = field(default_factory=BatchConfig)
    steps: int = 2400
    warmup: int = 150
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    scene_weight: float = 4.0
    patch_weight: float = 1.0
    precision: str = "fp32"
    backbone: dict[str, Any] | None = None
    start: str | None = None
    fresh_positions: bool = False


def learning_rate_at(config: TrainConfig, step: int) -> float:
    """Linear rise over the warm-up, then a cosine to zero at the last step."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    progress = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices, none on biases, norms, positions and the scale."""
    named = list(model.named_parameters())
    matrices = [p for name, p in named if p.ndim > 1 and "positional" not in name]
    plain = [p for name, p in named if p.ndim <= 1 or "positional" in name]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98), fused=True)


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
        max_hours: save and stop when this call has taken so long.

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
        heads = Heads(backbone).to(device)
    if config.start is not None:
        _take_over(model, Path(config.start), fresh_positions=config.fresh_positions)
    both = nn.ModuleDict({"model": model, "heads": heads})
    optimizer = build_optimizer(both, config)
    start = _resume(folder / CHECKPOINT_NAME, config, both, optimizer, device)
    end = config.steps if stop_after is None else min(stop_after, config.steps)
    batches = TrainingBatches(config.batch, vocabulary, config.steps)
    loader = DataLoader(Subset(batches, range(start, end)), batch_size=None, num_workers=workers)
    began = time.monotonic()
    # PyTorch's fused attention is slower than plain matrix products on a CPU at this size.
    attention = sdpa_kernel(SDPBackend.MATH) if device == "cpu" else nullcontext()
    with attention, _progress() as bar:
        task = bar.add_task("training", total=config.steps, completed=start, loss=0.0, top=0.0)
        for step, batch in enumerate(loader, start):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(config, step)
            losses = batch_losses(model, heads, batch.to(device), precision=config.precision)
            optimizer.zero_grad(set_to_none=True)
            total = losses.total(scene_weight=config.scene_weight, patch_weight=config.patch_weight)
            total.backward()
            optimizer.step()
            with torch.no_grad():
                model.logit_scale.clamp_(0, MAX_LOG_SCALE)
            loss, top = losses.contrast.item(), losses.top1.item()
            bar.update(task, completed=step + 1, loss=loss, top=top)
            late = max_hours is not None and time.monotonic() - began > max_hours * 3600
            if (step + 1) % checkpoint_every == 0 or step + 1 == end or late:
                _log(folder, step + 1, losses, model, time.monotonic() - began)
                _save_checkpoint(folder / CHECKPOINT_NAME, config, both, optimizer, step + 1)
                save_model(model, backbone, vocabulary, folder / "model")
            if late:
                break
    return model


def _take_over(model: CLIP, folder: Path, *, fresh_positions: bool) -> None:
    """Give the model the weights of another of its architecture."""
    scorer = load_folder(folder).float()
    if not isinstance(scorer, CLIPScorer):
        raise ValueError(f"{folder} holds a {type(scorer).__name__}; expected a CLIPScorer")
    own, given = model.state_dict(), scorer.model.state_dict()
    if {name: v.shape for name, v in given.items()} != {n: v.shape for n, v in own.items()}:
        raise ValueError(f"{folder} holds a model of another architecture")
    kept = {POSITIONS: own[POSITIONS]} if fresh_positions else {}
    model.load_state_dict(given | kept)


def _progress() -> Progress:
    return Progress(
        *Progress.get_default_columns()[:3],
        TextColumn("step {task.completed}/{task.total} loss {task.fields[loss]:.3f}"),
        TextColumn("top-1 {task.fields[top]:.3f}"),
        TimeRemainingColumn(),
    )


def _log(folder: Path, step: int, losses: Losses, model: CLIP, seconds: float) -> None:
    row = {
        "step": step,
        "loss": losses.contrast.item(),
        "pictures_loss": losses.pictures.item(),
        "prompts_loss": losses.prompts.item(),
        "patches_loss": losses.patches.item(),
        "top1": losses.top1.item(),
        "logit_scale": model.logit_scale.exp().item(),
        "seconds": round(seconds, 1),
    }
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


def _save_checkpoint(
    path: Path, config: TrainConfig, both: nn.Module, optimizer: torch.optim.Optimizer, step: int
) -> None:
    """Write the checkpoint beside its place, then move it, so that a kill leaves a whole one."""
    state = {
        "config": asdict(config),
        "step": step,
        "model": both.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    beside = path.with_suffix(".new")
    with beside.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def _resume(
    path: Path, config: TrainConfig, both: nn.Module, optimizer: torch.optim.Optimizer, device: str
) -> int:
    """Load the checkpoint, if there is one, and return the next step."""
    if not path.exists():
        return 0
    state = torch.load(path, map_location=device, weights_only=True)
    if state["config"] != asdict(config):
        raise ValueError(
            f"{path} was trained with {state['config']}, which differs from {asdict(config)}; "
            "choose another folder or remove it"
        )
    both.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    step: int = state["step"]
    return step


def main(
    out: Annotated[Path, typer.Option(help="folder for checkpoints and the model")],
    steps: Annotated[int, typer.Option(help="optimiser steps")] = TrainConfig.steps,
    learning_rate: Annotated[float, typer.Option(help="peak")] = TrainConfig.learning_rate,
    focus: Annotated[
        float, typer.Option(help="share of batches' groups with the hardest errors")
    ] = BatchConfig.focus,
    scene_weight: Annotated[
        float, typer.Option(help="of the features' second task")
    ] = TrainConfig.scene_weight,
    start: Annotated[Path | None, typer.Option(help="folder of a model to begin from")] = None,
    fresh_positions: Annotated[
        bool, typer.Option("--fresh-positions", help="begin with smooth positions nonetheless")
    ] = False,
    seed: Annotated[int, typer.Option(help="of weights and batches")] = BatchConfig.seed,
    precision: Annotated[
        str, typer.Option(help="fp32, or bf16 where it is fast")
    ] = TrainConfig.precision,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps")] = "cpu",
    workers: Annotated[int, typer.Option(help="processes that draw batches")] = 1,
    max_hours: Annotated[float | None, typer.Option(help="save and stop after so long")] = None,
) -> None:
    """Train the shapes CLIP; run again with the same options to continue."""
    config = TrainConfig(
        batch=BatchConfig(focus=focus, seed=seed),
        steps=steps,
        start=None if start is None else str(start),
        fresh_positions=fresh_positions,
        learning_rate=learning_rate,
        scene_weight=scene_weight,
        precision=precision,
    )
    train(config, out, device=device, workers=workers, max_hours=max_hours)


if __name__ == "__main__":
    typer.run(main)
