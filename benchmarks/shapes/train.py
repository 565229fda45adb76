"""Trains the laboratory's CLIP from nothing: `python -m stablepref.benchmarks.shapes.train`."""

import json
import math
import os
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
import typer
from open_clip.model import CLIP
from rich.progress import Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, Subset

from stablepref.towers import encode_tokens
from stablepref.wide import unit

from .auxiliary import (
    PatchHead,
    SceneHead,
    patch_loss,
    patch_targets,
    picture_targets,
    scene_loss,
)
from .batches import Batch, BatchConfig, TrainingBatches, crop_pictures
from .model import (
    backbone_config,
    build_model,
    normalise,
    save_model,
)
from .vocabulary import VOCABULARY_NAME, load_tokenizer, write_vocabulary

MAX_LOG_SCALE = math.log(100)
CHECKPOINT_NAME = "checkpoint.pt"


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
        start: folder of a finished training whose weights this one begins with; None begins with
            random ones.
    """

    batch: BatchConfig = field(default_factory=BatchConfig)
    steps: int = 2400
    warmup: int = 150
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    scene_weight: float = 4.0
    patch_weight: float = 1.0
    precision: str = "bf16"
    backbone: dict[str, Any] | None = None
    start: str | None = None


class Losses(NamedTuple):
    """One step's losses, scalars.

    Attributes:
        contrast: CLIP's symmetric cross-entropy (Radford et al. 2021, figure 3).
        pictures: what the picture features say of the scene.
        prompts: what the prompt features say of it.
        patches: what the patches say.
        top1: share of pictures that find their own prompt.
    """

    contrast: Tensor
    pictures: Tensor
    prompts: Tensor
    patches: Tensor
    top1: Tensor

    def total(self, config: TrainConfig) -> Tensor:
        """What training lowers."""
        scene = (self.pictures + self.prompts) / 2
        return self.contrast + config.scene_weight * scene + config.patch_weight * self.patches


class Heads(nn.Module):
    """The second tasks' heads, thrown away after training."""

    def __init__(self, backbone: dict[str, Any]) -> None:
        super().__init__()
        self.scene = SceneHead(backbone["embed_dim"])
        self.patch = PatchHead(backbone["vision_cfg"]["width"])


def batch_losses(model: CLIP, heads: Heads, batch: Batch, *, precision: str) -> Losses:
    """The losses of a batch; features, logits and losses are float32 whatever the precision."""
    images = normalise(crop_pictures(batch.pictures.float() / 255, batch.crops))
    half = torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bf16")
    with half:
        pooled, patches = encode_pictures(model, images)
        features = [pooled, encode_tokens(model, batch.tokens)]
    seen, read = map(unit, features)
    logits = model.logit_scale.exp() * (seen @ read.T)
    own = torch.arange(len(logits), device=logits.device)
    return Losses(
        contrast=(functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own))
        / 2,
        pictures=scene_loss(heads.scene(seen), picture_targets(batch.targets, batch.objects)),
        prompts=scene_loss(heads.scene(read), batch.targets),
        patches=patch_loss(
            heads.patch(patches.float()),
            patch_targets(batch.objects, math.isqrt(patches.shape[1])),
        ),
        top1=(logits.argmax(dim=1) == own).float().mean(),
    )


def encode_pictures(model: CLIP, images: Tensor) -> tuple[Tensor, Tensor]:
    """The features `(batch, dim)` and the last block's patches `(batch, patches, width)`."""
    found = model.visual.forward_intermediates(
        images, indices=1, normalize_intermediates=True, output_fmt="NLC"
    )
    return found["image_features"], found["image_intermediates"][0]


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
    both = nn.ModuleDict({"model": model, "heads": heads})
    if config.start is not None:
        path = Path(config.start) / CHECKPOINT_NAME
        both.load_state_dict(torch.load(path, map_location=device, weights_only=True)["model"])
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
            losses.total(config).backward()
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
    batch_size: Annotated[int, typer.Option(help="pictures per step")] = BatchConfig.batch_size,
    learning_rate: Annotated[float, typer.Option(help="peak")] = TrainConfig.learning_rate,
    focus: Annotated[
        float, typer.Option(help="share of batches' groups with the hardest errors")
    ] = BatchConfig.focus,
    warmup: Annotated[int, typer.Option(help="steps of rising learning rate")] = TrainConfig.warmup,
    start: Annotated[Path | None, typer.Option(help="finished training to begin from")] = None,
    seed: Annotated[int, typer.Option(help="of weights and batches")] = BatchConfig.seed,
    precision: Annotated[str, typer.Option(help="bf16 or fp32")] = TrainConfig.precision,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps")] = "cpu",
    workers: Annotated[int, typer.Option(help="processes that draw batches")] = 1,
    max_hours: Annotated[float | None, typer.Option(help="save and stop after so long")] = None,
) -> None:
    """Train the shapes CLIP; run again with the same options to continue."""
    config = TrainConfig(
        batch=BatchConfig(batch_size=batch_size, focus=focus, seed=seed),
        steps=steps,
        warmup=warmup,
        start=None if start is None else str(start),
        learning_rate=learning_rate,
        precision=precision,
    )
    train(config, out, device=device, workers=workers, max_hours=max_hours)


if __name__ == "__main__":
    typer.run(main)
