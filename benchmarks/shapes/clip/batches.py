"""Training batches of the shapes laboratory: each a pure function of the seed and the step."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from ..world.drawing import layout, render
from ..world.errors import error_kinds, single_error
from ..world.language import describe
from ..world.objects import Objects, list_objects
from ..world.scenes import Scene, sample_scene, split_of
from ..world.vocabulary import load_tokenizer
from .scene_code import describe_scenes

CROP_AREA = (0.85, 1.0)
HARDEST = ("left-right", "above-below", "axis", "binding")


@dataclass(frozen=True)
class BatchConfig:
    """What a batch holds.

    Attributes:
        batch_size: pictures, each with its own prompt.
        group_size: scenes that differ by single errors: one drawn at random and
            `group_size - 1` wrong versions of it, all in the batch with their own prompts.
        focus: share of the groups whose wrong versions are, as far as the scene has such errors,
            those that are hardest to see: swapped places, turned relations, swapped attributes.
        plain: share of the prompts that are the plainest of their scene. "Left of" and "right of"
            equally often, in either order, cancel at first, and nothing is learnt of both.
        seed: base of all random choices.
    """

    batch_size: int = 64
    group_size: int = 4
    focus: float = 0.5
    plain: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse sizes that do not fit."""
        if self.group_size < 1 or self.batch_size % self.group_size:
            raise ValueError(
                f"batch_size must be a multiple of group_size, got {self.batch_size} "
                f"and {self.group_size}"
            )


def batch_scenes(config: BatchConfig, rng: random.Random) -> list[Scene]:
    """Distinct training scenes, in groups whose members differ from the first by one error."""
    scenes: dict[Scene, None] = {}
    while len(scenes) < config.batch_size:
        scene = sample_scene(rng, "train")
        group = [scene]
        kinds = list(error_kinds(scene))
        rng.shuffle(kinds)
        if rng.random() < config.focus:
            kinds.sort(key=HARDEST.__contains__)  # taken from the end
        while len(group) < config.group_size:
            # Scenes with few kinds of error use some of them more than once.
            kind = kinds.pop() if kinds else rng.choice(error_kinds(scene))
            wrong = single_error(scene, kind, rng)
            if split_of(wrong) == "train" and wrong not in group:
                group.append(wrong)
        if not any(member in scenes for member in group):
            scenes.update(dict.fromkeys(group))
    return list(scenes)


class Batch(NamedTuple):
    """What one training step sees.

    Attributes:
        pictures: `(batch, 3, 64, 64)` uint8.
        crops: `(batch, 3)` float32, see `crop_pictures`.
        tokens: `(batch, context)` int64.
        descriptions: `(batch, numbers)` float32, see `describe_scenes`.
        objects: what stands where in the cropped pictures.
    """

    pictures: Tensor
    crops: Tensor
    tokens: Tensor
    descriptions: Tensor
    objects: Objects

    def to(self, device: str | torch.device) -> "Batch":
        """The same on another device."""
        return Batch(
            self.pictures.to(device),
            self.crops.to(device),
            self.tokens.to(device),
            self.descriptions.to(device),
            self.objects.to(device),
        )


class TrainingBatches(Dataset[Batch]):
    """Item `step` is that step's batch."""

    def __init__(self, config: BatchConfig, vocabulary: Path, steps: int) -> None:
        """Batches 0 to `steps - 1`."""
        self.config = config
        self.steps = steps
        self.tokenizer = load_tokenizer(vocabulary)

    def __len__(self) -> int:
        """Number of steps."""
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        """The batch of one step."""
        rng = random.Random(f"batch {self.config.seed} {step}")
        scenes = batch_scenes(self.config, rng)
        seeds = [rng.getrandbits(48) for _ in scenes]
        drawn = list(zip(scenes, seeds, strict=True))
        pictures = np.stack([render(scene, seed=seed) for scene, seed in drawn])
        crops = []
        for _ in scenes:
            # Every other picture stays whole; crops keep the aspect ratio, and are never
            # mirrored, because left and right carry meaning.
            side = 1.0 if rng.random() < 1 / 2 else rng.uniform(*CROP_AREA) ** 0.5
            crops.append((rng.uniform(0, 1 - side), rng.uniform(0, 1 - side), side))
        tokens = self.tokenizer(
            [describe(scene, None if rng.random() < self.config.plain else rng) for scene in scenes]
        )
        return Batch(
            torch.from_numpy(pictures).permute(0, 3, 1, 2),
            torch.tensor(crops),
            tokens,
            describe_scenes(scenes),
            list_objects(scenes, [layout(*one) for one in drawn], torch.tensor(crops)),
        )


def crop_pictures(pictures: Tensor, crops: Tensor) -> Tensor:
    """Cut a square from each picture and bring it back to full size, bilinearly.

    Args:
        pictures: `(batch, 3, size, size)` in [0, 1].
        crops: `(batch, 3)`: left edge, top edge and side, as shares of the picture's side.

    Returns:
        `(batch, 3, size, size)`.
    """
    left, top, side = crops.unbind(dim=1)
    affine = torch.zeros(len(crops), 2, 3, device=crops.device)
    affine[:, 0, 0] = affine[:, 1, 1] = side
    affine[:, 0, 2] = 2 * left + side - 1
    affine[:, 1, 2] = 2 * top + side - 1
    grid = functional.affine_grid(affine, list(pictures.shape), align_corners=False)
    return functional.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
