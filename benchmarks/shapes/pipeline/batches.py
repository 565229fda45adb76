"""Batches for the pipeline's denoiser: each a pure function of the seed and the step."""

import random
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..clip.scene_code import describe_scenes
from ..world.language import describe
from .latents import Latents, training_picture
from .object_maps import object_maps
from .parts import LATENT_CHANNELS, LATENT_SIZE, TRAIN_TIMESTEPS
from .words import build_tokenizer, token_ids


class LatentBatch(NamedTuple):
    """What one training step of the denoiser sees.

    Attributes:
        latents: `(batch, 4, 16, 16)` float32, drawn from the autoencoder's distributions.
        noise: `(batch, 4, 16, 16)` float32, normal.
        times: `(batch,)` int64, from 0 to 999.
        tokens: `(batch, 32)` int64; of no text where guidance must learn to do without.
        descriptions: `(batch, numbers)` float32, see `describe_scenes`; 0 where there is no text.
        maps: `(batch, 2, 16, 16)` int64, see `object_maps`.
    """

    latents: Tensor
    noise: Tensor
    times: Tensor
    tokens: Tensor
    descriptions: Tensor
    maps: Tensor

    def to(self, device: str | torch.device) -> "LatentBatch":
        """The same on another device."""
        return LatentBatch(*(part.to(device) for part in self))


class LatentBatches(Dataset[LatentBatch]):
    """Item `step` is that step's batch.

    Args:
        latents: of the training pictures.
        pictures_seed: the seed with which they were drawn.
        batch_size: pictures in a batch.
        steps: number of batches.
        textless: share of the pictures whose text is left out.
        seed: of all that is random here.
    """

    def __init__(
        self,
        latents: Latents,
        *,
        pictures_seed: int,
        batch_size: int,
        steps: int,
        textless: float,
        seed: int,
    ) -> None:
        self.latents, self.pictures_seed = latents, pictures_seed
        self.batch_size, self.steps, self.textless, self.seed = batch_size, steps, textless, seed
        self.tokenizer = build_tokenizer()

    def __len__(self) -> int:
        """Number of steps."""
        return self.steps

    def __getitem__(self, step: int) -> LatentBatch:
        """The batch of one step: every picture with a new paraphrase of its prompt.

        Times are stratified: each of `batch_size` equal parts of the schedule has one.
        """
        rng = random.Random(f"denoiser {self.seed} {step}")
        indices = [rng.randrange(len(self.latents)) for _ in range(self.batch_size)]
        pictures = [training_picture(self.pictures_seed, index) for index in indices]
        scenes = [picture.scene for picture in pictures]
        with_text = [rng.random() >= self.textless for _ in scenes]
        prompts = [
            describe(scene, rng) if kept else ""
            for scene, kept in zip(scenes, with_text, strict=True)
        ]
        descriptions = describe_scenes(scenes)
        descriptions[~torch.tensor(with_text)] = 0
        generator = torch.Generator().manual_seed(rng.getrandbits(62))
        stored = torch.from_numpy(np.stack([self.latents[index] for index in indices])).float()
        shape = (2, self.batch_size, LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE)
        within, noise = torch.randn(shape, generator=generator)
        parts = torch.arange(self.batch_size) + torch.rand(self.batch_size, generator=generator)
        times = (parts * (TRAIN_TIMESTEPS / self.batch_size)).long().clamp(max=TRAIN_TIMESTEPS - 1)
        return LatentBatch(
            latents=stored[:, 0] + within * stored[:, 1],
            noise=noise,
            times=times,
            tokens=token_ids(self.tokenizer, prompts),
            descriptions=descriptions,
            maps=object_maps(pictures, LATENT_SIZE),
        )
