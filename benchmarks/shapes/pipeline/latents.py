"""Latents of many training pictures, made once and kept in files that a kill does not spoil."""

import io
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from rich.progress import track

from stablepref.output.durable import replacing
from stablepref.weights.fingerprint import weights_digest

from ..world.drawing import render
from ..world.scenes import BACKGROUNDS, Scene, sample_scene
from .autoencoder import to_input

SHARD = 256
"""Pictures in a file."""
_BATCH = 64
_RECIPE_NAME = "recipe.json"


class TrainingPicture(NamedTuple):
    """One picture that the denoiser learns.

    Attributes:
        scene: what its prompts describe.
        drawn: the same with a background: where prompts name none, any of the plain ones. Patterns
            would take most of what a small denoiser can learn, and no prompt asks for them.
        seed: of the drawing.
    """

    scene: Scene
    drawn: Scene
    seed: int


def training_picture(seed: int, index: int) -> TrainingPicture:
    """Picture `index`."""
    rng = random.Random(f"picture {seed} {index}")
    scene = sample_scene(rng, "train")
    background = scene.background or rng.choice(BACKGROUNDS)
    return TrainingPicture(scene, replace(scene, background=background), rng.getrandbits(48))


class Latents:
    """Means and standard deviations of the latents of pictures 0 to `number - 1`.

    Args:
        folder: where `cache_latents` wrote them.
        number: how many.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self.number = number
        self.shards = [
            np.load(_shard_path(folder, shard), mmap_mode="r") for shard in range(_shards(number))
        ]

    def __len__(self) -> int:
        """Number of pictures."""
        return self.number

    def __getitem__(self, index: int) -> NDArray[np.float16]:
        """`(2, 4, 16, 16)` float16: mean and standard deviation."""
        found: NDArray[np.float16] = self.shards[index // SHARD][index % SHARD]
        return found


@torch.no_grad()
def cache_latents(
    autoencoder: AutoencoderKL, folder: Path, *, number: int, seed: int, quiet: bool = False
) -> Latents:
    """Encode the training pictures, but for those that the folder has already.

    Args:
        autoencoder: encodes, on its own device.
        folder: receives files of 256 pictures, 1 MB each. A file appears whole or not at all.
        number: pictures.
        seed: of the pictures.
        quiet: no progress bar.

    Raises:
        ValueError: the folder holds latents of another autoencoder or seed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    recipe = {
        "seed": seed,
        "autoencoder": weights_digest(autoencoder),
        "backgrounds": list(BACKGROUNDS),
    }
    known = folder / _RECIPE_NAME
    if not known.exists():
        _write(known, json.dumps(recipe).encode())
    elif (found := json.loads(known.read_text())) != recipe:
        raise ValueError(f"{folder} holds latents of {found}, not of {recipe}; remove the folder")
    missing = [s for s in range(_shards(number)) if not _shard_path(folder, s).exists()]
    for shard in track(missing, description="latents", disable=quiet):
        parts = []
        for start in range(shard * SHARD, (shard + 1) * SHARD, _BATCH):
            shown = [training_picture(seed, index) for index in range(start, start + _BATCH)]
            pictures = to_input([render(one.drawn, seed=one.seed) for one in shown])
            latents = autoencoder.encode(pictures.to(autoencoder.device)).latent_dist
            parts.append(torch.stack([latents.mean, latents.std], dim=1).half().cpu().numpy())
        content = io.BytesIO()
        np.save(content, np.concatenate(parts))
        _write(_shard_path(folder, shard), content.getvalue())
    return Latents(folder, number)


def _shards(number: int) -> int:
    return -(-number // SHARD)


def _shard_path(folder: Path, shard: int) -> Path:
    return folder / f"{shard:05}.npy"


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as staging:
        staging.write_bytes(content)
