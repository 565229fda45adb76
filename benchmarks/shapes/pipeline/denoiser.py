"""Trains the pipeline's denoiser and, with it, the encoder of its prompts."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel

from ..clip.muon import SMALLEST_SIDE, Muon
from ..clip.scene_code import code_loss, scene_codes
from ..clip.stage import Stage
from ..clip.training_files import Precision
from .batches import LatentBatch, LatentBatches
from .latents import Latents
from .object_maps import build_reader, output_of, reading_loss
from .parts import Sizes, build_denoiser, build_scheduler
from .prompt_encoder import PromptEncoder, places_loss

STAGE = "denoiser"
# Its output, at 16 latent pixels, is what objects are read from.
_READ = "up_blocks.1"


@dataclass(frozen=True)
class DenoiserConfig:
    """Everything that decides the weights of denoiser and text encoder, but for the latents.

    Attributes:
        sizes: of the networks.
        pictures: training pictures, as many as there are latents.
        steps: optimiser steps; the learning rate falls to zero over them along a cosine.
        warmup: steps over which it first rises.
        batch_size: pictures in a step.
        learning_rate: its peak.
        weight_decay: of matrices only.
        average: decay of the moving average of the weights, which is what gets used.
        textless: share of pictures whose text is left out, for classifier-free guidance.
        max_weight: the weight of the error in the clean latents is SNR + 1, which is that of
            v-prediction, but not more than this (as in Hang et al. 2023, Min-SNR).
        code_weight: weight of `code_loss`, which draws the text encoder's pooled output to the
            scene's code.
        places_weight: weight of `places_loss`, which keeps the text encoder's knowledge of places.
        reading_weight: weight of `reading_loss`, which has the shape and colour at each place read
            from features inside the denoiser.
        seed: of weights and batches.
        precision: "bf16" (autocast) or "fp32".
    """

    sizes: Sizes = field(default_factory=Sizes)
    pictures: int = 65536
    steps: int = 6000
    warmup: int = 100
    batch_size: int = 32
    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    average: float = 0.999
    textless: float = 0.1
    max_weight: float = 5.0
    code_weight: float = 0.1
    places_weight: float = 0.1
    reading_weight: float = 0.2
    seed: int = 0
    precision: Precision = "fp32"


class Averaged:
    """The moving average of a network's weights over the steps, shorter at first.

    Args:
        network: the averages begin with its weights.
        decay: in the long run; before, (1 + step) / (10 + step), as in TensorFlow.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Take in the weights after step number `step`, 0 or more."""
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(
            list(self.network.parameters()), [p.detach() for p in network.parameters()], share
        )


Visit = Callable[[CLIPTextModel, UNet2DConditionModel, int], Mapping[str, float]]
"""Uses the averaged networks after a step of that number; returns numbers for `metrics.jsonl`."""


def train_denoiser(
    config: DenoiserConfig,
    prompt_encoder: PromptEncoder,
    latents: Latents,
    folder: Path,
    *,
    pictures_seed: int,
    device: str = "cpu",
    workers: int = 0,
    checkpoint_every: int = 200,
    visit: Visit | None = None,
    visit_every: int = 2000,
    stop_after: int | None = None,
) -> tuple[CLIPTextModel, UNet2DConditionModel] | None:
    """Train, or continue the training that `folder` holds, to the same weights either way.

    Args:
        config: decides the weights; a folder begun with another one is refused.
        prompt_encoder: of the same sizes; its training continues.
        latents: of the training pictures.
        folder: receives the checkpoint `denoiser.pt` and lines of `metrics.jsonl`.
        pictures_seed: the seed with which the training pictures were drawn.
        device: where to train.
        workers: processes that make batches ahead; 0 makes them in this one.
        checkpoint_every: steps between checkpoints.
        visit: is called at every `visit_every`-th step and at the last one.
        visit_every: a multiple of `checkpoint_every`.
        stop_after: stop once this step is reached, as if interrupted there.

    Returns:
        The averaged text encoder and denoiser; None if it was stopped before the end.

    Raises:
        ValueError: the folder holds a training with another configuration, `visit_every` does not
            fit, or there are not as many latents as the configuration says.
    """
    if visit_every % checkpoint_every:
        raise ValueError(
            f"visit_every is {visit_every}; expected a multiple of checkpoint_every, "
            f"{checkpoint_every}"
        )
    if len(latents) != config.pictures:
        raise ValueError(f"there are {len(latents)} latents; expected {config.pictures}")
    networks = _build_networks(config, prompt_encoder).to(device).train()
    averaged = Averaged(networks, config.average)
    optimizers = _build_optimizers(networks, config)
    stage = Stage(
        STAGE,
        folder,
        config,
        {"networks": networks, "averaged": averaged.network},
        optimizers,
        settings=settings_of(config, pictures_seed),
        device=device,
        checkpoint_every=checkpoint_every,
        stop_after=stop_after,
    )
    batches = LatentBatches(
        latents,
        pictures_seed=pictures_seed,
        batch_size=config.batch_size,
        steps=config.steps,
        textless=config.textless,
        seed=config.seed,
    )
    scheduler, seen = build_scheduler(), []
    for step, batch in stage.steps(batches, workers=workers):
        losses = batch_losses(networks, scheduler, batch.to(device), config)
        networks.zero_grad(set_to_none=True)
        losses.total(config).backward()
        torch.nn.utils.clip_grad_norm_(networks.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        averaged.update(networks, step)
        seen.append([value.item() for value in losses])
        if not stage.taken(step, seen[-1][0]):
            continue
        means = (sum(column) / len(column) for column in zip(*seen, strict=True))
        values = dict(zip(Losses._fields, means, strict=True))
        seen.clear()
        if visit is not None and (step + 1 == config.steps or (step + 1) % visit_every == 0):
            values |= visit(*_parts(averaged.network), step + 1)
        stage.save(step, values)
    return _parts(averaged.network) if stage.complete else None


def settings_of(config: DenoiserConfig, pictures_seed: int) -> dict[str, Any]:
    """What decides the weights, as the checkpoint has it."""
    return {**asdict(config), "pictures_seed": pictures_seed}


class Losses(NamedTuple):
    """The losses of a batch, scalars in float32.

    Attributes:
        error: weighted mean squared error of v-predictions.
        code_loss: how far the pooled texts are from the codes of their scenes.
        places_loss: the error of reading places from the pooled texts.
        reading_loss: the error of reading objects from inside the denoiser.
    """

    error: Tensor
    code_loss: Tensor
    places_loss: Tensor
    reading_loss: Tensor

    def total(self, config: DenoiserConfig) -> Tensor:
        """What training minimises."""
        texts = config.code_weight * self.code_loss + config.places_weight * self.places_loss
        return self.error + texts + config.reading_weight * self.reading_loss


def batch_losses(
    networks: nn.ModuleDict, scheduler: DDIMScheduler, batch: LatentBatch, config: DenoiserConfig
) -> Losses:
    """The losses of one batch."""
    text, denoiser = networks["text"], networks["denoiser"]
    noisy = scheduler.add_noise(batch.latents, batch.noise, batch.times)
    wanted = scheduler.get_velocity(batch.latents, batch.noise, batch.times)
    autocast = torch.autocast(noisy.device.type, torch.bfloat16, enabled=config.precision == "bf16")
    with autocast, output_of(denoiser.get_submodule(_READ)) as features:
        encoded = text(batch.tokens)
        predicted = denoiser(noisy, batch.times, encoded.last_hidden_state).sample
        read = networks["reader"](features[0])
    # SNR + 1 = 1 / (1 - alpha-bar): the error in v has that weight already.
    kept = scheduler.alphas_cumprod.to(noisy.device)[batch.times]
    weight = (config.max_weight * (1 - kept)).clamp(max=1)
    errors = (predicted.float() - wanted).square().mean(dim=(1, 2, 3))
    pooled = encoded.pooler_output.float()
    return Losses(
        (weight * errors).mean(),
        code_loss(pooled, scene_codes(batch.descriptions, pooled.shape[1])),
        places_loss(networks["places"](pooled), batch.descriptions),
        reading_loss(read, batch.maps),
    )


def _build_networks(config: DenoiserConfig, prompt_encoder: PromptEncoder) -> nn.ModuleDict:
    return nn.ModuleDict(
        {
            "text": prompt_encoder.text,
            "places": prompt_encoder.reader,
            "denoiser": build_denoiser(config.sizes, seed=config.seed),
            "reader": build_reader(config.sizes.denoiser[1], seed=config.seed),
        }
    )


def _parts(networks: nn.Module) -> tuple[CLIPTextModel, UNet2DConditionModel]:
    """Text encoder and denoiser."""
    modules: dict[str, Any] = dict(networks.named_children())
    return modules["text"], modules["denoiser"]


def _build_optimizers(
    networks: nn.Module, config: DenoiserConfig
) -> tuple[torch.optim.Optimizer, ...]:
    """Muon for matrices and convolutions; AdamW for the rest, without weight decay."""
    parameters = list(networks.parameters())
    matrices = [p for p in parameters if p.ndim > 1 and min(p.flatten(1).shape) >= SMALLEST_SIDE]
    kept = {id(p) for p in matrices}
    others = [p for p in parameters if id(p) not in kept]
    rate = config.learning_rate
    return (
        Muon(matrices, lr=rate, weight_decay=config.weight_decay),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True),
    )
