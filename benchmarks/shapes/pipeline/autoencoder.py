"""Trains the pipeline's autoencoder on pictures of training scenes."""

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.utils.data import Dataset

from ..clip.stage import Stage
from ..clip.training_files import Precision, load_checkpoint, save_checkpoint
from ..world.drawing import IMAGE_SIZE, layout, render
from ..world.layout import Placed
from ..world.scenes import sample_scene
from .parts import Sizes, build_autoencoder

STAGE = "autoencoder"
# Pictures by which latents are brought to mean 0 and variance 1.
_MEASURED = 1024
_MEASURED_BATCH = 64


@dataclass(frozen=True)
class AutoencoderConfig:
    """Everything that decides the autoencoder's weights.

    Attributes:
        sizes: of the networks.
        steps: optimiser steps; the learning rate falls to zero over them along a cosine.
        warmup: steps over which it first rises.
        batch_size: pictures in a step.
        learning_rate: its peak.
        object_weight: weight of the absolute error in an object's circle, where the background's
            is 1. Objects cover a small part of a picture, and the prompt speaks of them.
        kl_weight: weight of the mean divergence of a latent number from a normal one, beside the
            weighted mean absolute error of the pictures in [-1, 1].
        seed: of weights, pictures and noise.
        precision: "bf16" (autocast) or "fp32".
    """

    sizes: Sizes = field(default_factory=Sizes)
    steps: int = 6000
    warmup: int = 100
    batch_size: int = 8
    learning_rate: float = 1e-3
    object_weight: float = 4.0
    kl_weight: float = 1e-3
    seed: int = 0
    precision: Precision = "fp32"


class Pictures(Dataset[tuple[Tensor, Tensor]]):
    """Item `step` is that step's pictures, and where objects are."""

    def __init__(self, name: str, batch_size: int, steps: int) -> None:
        """Batches 0 to `steps - 1`; other names give other pictures."""
        self.name, self.batch_size, self.steps = name, batch_size, steps

    def __len__(self) -> int:
        """Number of steps."""
        return self.steps

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        """Pictures `(batch, 3, 64, 64)` float32 in [-1, 1], and `(batch, 1, 64, 64)` bool."""
        rng = random.Random(f"{self.name} {step}")
        scenes = [sample_scene(rng, "train") for _ in range(self.batch_size)]
        drawn = [(scene, rng.getrandbits(48)) for scene in scenes]
        pictures = to_input([render(scene, seed=seed) for scene, seed in drawn])
        return pictures, torch.stack([object_circles(layout(*one)) for one in drawn])


def object_circles(places: Sequence[Placed]) -> Tensor:
    """Which pixels lie in the circle around an object, or at its edge: `(1, 64, 64)` bool."""
    inside = torch.zeros(1, IMAGE_SIZE, IMAGE_SIZE, dtype=torch.bool)
    for place in places:
        inside |= circle(place, IMAGE_SIZE)
    return inside


def circle(place: Placed, size: int) -> Tensor:
    """Which of `size` times `size` centres lie in an object's circle or a pixel from it: bool."""
    axis = (torch.arange(size) + 0.5) / size
    distance = torch.hypot(axis - place.x, axis[:, None] - place.y)
    return distance < place.radius + 1 / IMAGE_SIZE


def to_input(pictures: list[np.ndarray]) -> Tensor:
    """Pictures `(64, 64, 3)` uint8 as `(batch, 3, 64, 64)` float32 in [-1, 1]."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def train_autoencoder(
    config: AutoencoderConfig,
    folder: Path,
    *,
    device: str = "cpu",
    workers: int = 0,
    checkpoint_every: int = 200,
    stop_after: int | None = None,
) -> AutoencoderKL | None:
    """Train, or continue the training that `folder` holds, to the same weights either way.

    Args:
        config: decides the weights; a folder begun with another one is refused.
        folder: receives the checkpoint `autoencoder.pt`, at the end `autoencoder-finished.pt`, and
            lines of `metrics.jsonl`.
        device: where to train.
        workers: processes that draw pictures ahead; 0 draws them in this one.
        checkpoint_every: steps between checkpoints.
        stop_after: stop once this step is reached, as if interrupted there.

    Returns:
        The trained autoencoder with standardised latents, in evaluation mode; None if it was
        stopped before.

    Raises:
        ValueError: the folder holds a training with another configuration.
    """
    name = f"{STAGE} {config.seed}"
    model = build_autoencoder(config.sizes, seed=config.seed).to(device).train()
    finished = finished_path(folder)
    if state := load_checkpoint(finished, asdict(config), device=device):
        model.load_state_dict(state["model"])
        return model.eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.99), weight_decay=0.01)
    stage = Stage(
        STAGE,
        folder,
        config,
        {"model": model},
        [optimizer],
        settings=asdict(config),
        device=device,
        checkpoint_every=checkpoint_every,
        stop_after=stop_after,
    )
    batches = Pictures(name, config.batch_size, config.steps)
    for step, (pictures, objects) in stage.steps(batches, workers=workers):
        generator = torch.Generator().manual_seed(random.Random(f"{name} {step}").getrandbits(62))
        weights = 1 + (config.object_weight - 1) * objects.to(device)
        error, divergence = _losses(
            model, pictures.to(device), weights, generator, config.precision
        )
        optimizer.zero_grad(set_to_none=True)
        (error + config.kl_weight * divergence).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if stage.taken(step, error.item()):
            stage.save(step, {"error": error.item(), "kl": divergence.item()})
    if not stage.complete:
        return None
    model.eval().requires_grad_(False)
    measured = Pictures(f"{name} measured", _MEASURED_BATCH, _MEASURED // _MEASURED_BATCH)
    standardise_latents(model, [measured[step][0].to(device) for step in range(len(measured))])
    save_checkpoint(finished, {"config": asdict(config), "model": model.state_dict()})
    return model


def finished_path(folder: Path) -> Path:
    """Where the trained autoencoder is."""
    return folder / f"{STAGE}-finished.pt"


def _losses(
    model: AutoencoderKL,
    pictures: Tensor,
    weights: Tensor,
    generator: torch.Generator,
    precision: str,
) -> tuple[Tensor, Tensor]:
    """Weighted mean absolute error, and mean divergence of the latents from normal ones."""
    with torch.autocast(pictures.device.type, torch.bfloat16, enabled=precision == "bf16"):
        mean, log_variance = model.quant_conv(model.encoder(pictures)).float().chunk(2, dim=1)
        log_variance = log_variance.clamp(-30, 20)  # as diffusers does
        noise = torch.randn(mean.shape, generator=generator).to(mean.device)
        latents = mean + noise * (log_variance / 2).exp()
        decoded = model.decode(latents).sample.float()
    divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
    error = (weights * (decoded - pictures).abs()).sum() / (3 * weights.sum())
    return error, divergence


@torch.no_grad()
def standardise_latents(model: AutoencoderKL, batches: list[Tensor]) -> None:
    """Give each channel of the latents mean 0 and variance 1, without changing what is decoded.

    The pipeline scales all channels by one factor and shifts none, so the first and the last
    convolution of the latents take this over.

    Args:
        model: changed in place.
        batches: pictures, `(batch, 3, 64, 64)` in [-1, 1].
    """
    latents = torch.cat([model.encode(batch).latent_dist.mean for batch in batches]).double()
    mean, spread = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
    channels = len(mean)
    before, after = model.quant_conv, model.post_quant_conv
    # Decoding z' = (z - mean) / spread: W z + b = (W spread) z' + (b + W mean).
    weight = after.weight.double()
    after.bias.copy_(after.bias.double() + weight[:, :, 0, 0] @ mean)
    after.weight.copy_(weight * spread[None, :, None, None])
    before.weight[:channels] /= spread[:, None, None, None]
    before.bias[:channels] = (before.bias[:channels].double() - mean) / spread
    before.bias[channels:] -= 2 * spread.log()
