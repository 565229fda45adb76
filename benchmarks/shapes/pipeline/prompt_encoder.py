"""Teaches the encoder of the pipeline's prompts places, before the denoiser learns with it.

The errors of pictures teach colours and shapes, but hardly ever which of two objects is left: an
encoder that ignores their order gives a denoiser nothing to heed, and while that does not heed it
nothing asks the encoder for it. A loss of their own teaches places within minutes, beside the one
that has the scene's code read: without that it stays at chance, since whose place it would be is
not known.
"""

import random
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset
from transformers import CLIPTextModel

from ..clip.scene_code import PLACES, code_loss, describe_scenes, scene_codes
from ..clip.stage import Stage
from ..world.language import describe
from ..world.scenes import Scene, sample_scene
from .parts import Sizes, build_text_encoder
from .words import build_tokenizer, token_ids

STAGE = "text"


@dataclass(frozen=True)
class PromptEncoderConfig:
    """Everything that decides the weights with which the text encoder meets the denoiser.

    Attributes:
        sizes: of the networks.
        steps: optimiser steps; the learning rate falls to zero over them along a cosine. With 0 it
            keeps its first weights.
        warmup: steps over which it first rises.
        batch_size: prompts in a step.
        learning_rate: its peak.
        seed: of weights and prompts.
    """

    sizes: Sizes = field(default_factory=Sizes)
    steps: int = 800
    warmup: int = 100
    batch_size: int = 128
    learning_rate: float = 1e-3
    seed: int = 0


class PromptEncoder(NamedTuple):
    """A text encoder, and the linear reader of places from its pooled output."""

    text: CLIPTextModel
    reader: nn.Linear


class RelatedPrompts(Dataset[tuple[Tensor, Tensor]]):
    """Item `step` is that step's prompts, of training scenes with a relation.

    Args:
        batch_size: prompts in a batch.
        steps: number of batches.
        seed: of scenes and paraphrases.
    """

    def __init__(self, *, batch_size: int, steps: int, seed: int) -> None:
        self.batch_size, self.steps, self.seed = batch_size, steps, seed
        self.tokenizer = build_tokenizer()

    def __len__(self) -> int:
        """Number of steps."""
        return self.steps

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        """Tokens `(batch, 32)` int64, and what `describe_scenes` makes of the scenes."""
        rng = random.Random(f"places {self.seed} {step}")
        scenes: list[Scene] = []
        while len(scenes) < self.batch_size:
            scene = sample_scene(rng, "train")
            if scene.relation is not None:
                scenes.append(scene)
        prompts = [describe(scene, rng) for scene in scenes]
        return token_ids(self.tokenizer, prompts), describe_scenes(scenes)


def train_prompt_encoder(
    config: PromptEncoderConfig,
    folder: Path,
    *,
    device: str = "cpu",
    checkpoint_every: int = 200,
    stop_after: int | None = None,
) -> PromptEncoder | None:
    """Train, or continue the training that `folder` holds, to the same weights either way.

    Args:
        config: decides the weights; a folder begun with another one is refused.
        folder: receives the checkpoint `text.pt` and lines of `metrics.jsonl`.
        device: where to train.
        checkpoint_every: steps between checkpoints.
        stop_after: stop once this step is reached, as if interrupted there.

    Returns:
        The encoder and its reader, in training mode; None if it was stopped before the end.

    Raises:
        ValueError: the folder holds a training with another configuration.
    """
    made = build_prompt_encoder(config.sizes, seed=config.seed)
    networks = nn.ModuleList(made).to(device).train()
    optimizer = torch.optim.AdamW(networks.parameters(), betas=(0.9, 0.98), weight_decay=0.0)
    stage = Stage(
        STAGE,
        folder,
        config,
        {"networks": networks},
        [optimizer],
        settings=asdict(config),
        device=device,
        checkpoint_every=checkpoint_every,
        stop_after=stop_after,
    )
    prompts = RelatedPrompts(batch_size=config.batch_size, steps=config.steps, seed=config.seed)
    for step, batch in stage.steps(prompts):
        tokens, descriptions = (part.to(device) for part in batch)
        pooled = made.text(tokens).pooler_output
        read = made.reader(pooled)
        loss = places_loss(read, descriptions)
        loss = loss + code_loss(pooled, scene_codes(descriptions, pooled.shape[1]))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(networks.parameters(), 1.0)
        optimizer.step()
        if stage.taken(step, loss.item()):
            right = places_right(read, descriptions)
            stage.save(step, {"loss": loss.item(), "right": right})
    return made if stage.complete else None


def build_prompt_encoder(sizes: Sizes, *, seed: int) -> PromptEncoder:
    """A text encoder and a reader with new weights."""
    text = build_text_encoder(sizes, seed=seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PromptEncoder(text, nn.Linear(sizes.text, PLACES))


def places_loss(read: Tensor, descriptions: Tensor) -> Tensor:
    """How badly places were read: scalar, mean cross-entropy in nats, 0 if there are none.

    Args:
        read: `(batch, PLACES)`, logits of an attribute being of the last group, not of the first.
        descriptions: `(batch, numbers)` of `describe_scenes`: what they have no place for, or one
            in the middle, is not counted.
    """
    places, known = _known_places(descriptions)
    losses = functional.softplus(-read.float() * places) * known
    return losses.sum() / known.sum().clamp(min=1)


def places_right(read: Tensor, descriptions: Tensor) -> float:
    """The share of the known places that were read rightly; chance is one half."""
    places, known = _known_places(descriptions)
    return float((read.sign() == places)[known].float().mean())


def _known_places(descriptions: Tensor) -> tuple[Tensor, Tensor]:
    """Places as -1 for the first, 1 for the last, 0 otherwise; and which are not 0."""
    places = descriptions[:, -PLACES:].sign()
    return places, places != 0
