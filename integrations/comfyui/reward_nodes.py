"""What the nodes do: ComfyUI's batches and prompts in, its batches, numbers and texts out.

A node is a class with `INPUT_TYPES`, `RETURN_TYPES` and the name of its method in `FUNCTION`. A
picture of ComfyUI is float `(height, width, channels)` in [0, 1], a batch of them is `IMAGE`.
"""

from __future__ import annotations

import heapq
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from PIL import Image

import stablepref
from stablepref.models.catalog import ENTRIES

if TYPE_CHECKING:
    from torch import Tensor

REWARD = "STABLEPREF_REWARD"
CATEGORY = "stablepref"
_OWN = "(a file or folder)"
_PROMPT = ("STRING", {"multiline": True, "default": "", "tooltip": "What the images should show."})
_VIEWS = (
    "INT",
    {
        "default": 0,
        "min": 0,
        "max": 64,
        "tooltip": "Slight crops that each score is averaged over.",
    },
)
_LARGEST_SEED = 2**64 - 1


@final
class LoadReward:
    """A reward model by name, or from a folder or file of one's own."""

    CATEGORY = CATEGORY
    FUNCTION = "load"
    RETURN_TYPES = (REWARD,)
    RETURN_NAMES = ("reward",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 (ComfyUI's name)
        """The names of `stablepref models`, number types and devices."""
        names = [entry.name for entry in ENTRIES]
        return {
            "required": {
                "model": ([*names, _OWN],),
                "dtype": (["auto", "float32", "bfloat16", "float16"],),
                "device": (["auto", "cpu", "cuda"],),
            },
            "optional": {
                "path": (
                    "STRING",
                    {"default": "", "tooltip": f"What to load where the model is {_OWN}."},
                )
            },
        }

    @classmethod
    def VALIDATE_INPUTS(cls, model: str, path: str = "") -> bool | str:  # noqa: N802 (ComfyUI's name)
        """True, or what is wrong."""
        if model == _OWN and not Path(path).expanduser().exists():
            return f"path is {path!r}, which does not exist; expected a model's folder or file"
        return True

    @classmethod
    def IS_CHANGED(  # noqa: N802 (ComfyUI's name)
        cls, model: str, dtype: str = "auto", device: str = "auto", path: str = ""
    ) -> str:
        """Another text when a model at a path was trained again, so that it is loaded again."""
        if model != _OWN:
            return model
        place = Path(path).expanduser()
        files = sorted(place.iterdir()) if place.is_dir() else [place]
        return " ".join(f"{file.name}:{file.stat().st_mtime_ns}" for file in files)

    def load(self, model: str, dtype: str, device: str, path: str = "") -> tuple[stablepref.Scorer]:
        """The scorer."""
        name = Path(path).expanduser() if model == _OWN else model
        place = None if device == "auto" else device
        return (stablepref.load(name, dtype=dtype, device=place),)


@final
class ScoreImages:
    """The score of each image, their mean, and a text of both."""

    CATEGORY = CATEGORY
    FUNCTION = "score"
    RETURN_TYPES = ("FLOAT", "FLOAT", "STRING")
    RETURN_NAMES = ("scores", "mean", "text")
    OUTPUT_IS_LIST = (True, False, False)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 (ComfyUI's name)
        """A reward, images and their prompt."""
        return {
            "required": {"reward": (REWARD,), "images": ("IMAGE",), "prompt": _PROMPT},
            "optional": {"views": _VIEWS},
        }

    def score(
        self, reward: stablepref.Scorer, images: Tensor, prompt: str, views: int = 0
    ) -> tuple[list[float], float, str]:
        """Scores in the images' order."""
        scores = reward.score(pictures(images), prompt, views=views).tolist()
        lines = [f"{place}: {score:.4f}" for place, score in enumerate(scores)]
        text = "\n".join([f"{reward.name}, {reward.unit}", *lines])
        return scores, sum(scores) / len(scores), text


@final
class PickBest:
    """The best images of a batch, best first, with their scores and places in the batch."""

    CATEGORY = CATEGORY
    FUNCTION = "pick"
    RETURN_TYPES = ("IMAGE", "FLOAT", "INT")
    RETURN_NAMES = ("images", "scores", "indices")
    OUTPUT_IS_LIST = (False, True, True)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 (ComfyUI's name)
        """A reward, images, their prompt, and how many to keep."""
        return {
            "required": {
                "reward": (REWARD,),
                "images": ("IMAGE",),
                "prompt": _PROMPT,
                "keep": ("INT", {"default": 1, "min": 1, "max": 4096}),
            },
            "optional": {"views": _VIEWS},
        }

    def pick(
        self, reward: stablepref.Scorer, images: Tensor, prompt: str, keep: int, views: int = 0
    ) -> tuple[Tensor, list[float], list[int]]:
        """The images themselves, unchanged; all of them where there are no more than `keep`."""
        ranking = reward.rank(pictures(images), prompt, views=views)[:keep]
        places = [one.index for one in ranking]
        return images[places], [one.score for one in ranking], places


@final
class ComparePictures:
    """Which of two images people would prefer, or that it is a tie."""

    CATEGORY = CATEGORY
    FUNCTION = "compare"
    RETURN_TYPES = ("STRING", "FLOAT", "FLOAT", "FLOAT", "IMAGE")
    RETURN_NAMES = ("preferred", "probability", "margin", "spread", "image")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 (ComfyUI's name)
        """A reward, two images and their prompt."""
        return {
            "required": {
                "reward": (REWARD,),
                "image_a": ("IMAGE",),
                "image_b": ("IMAGE",),
                "prompt": _PROMPT,
            }
        }

    def compare(
        self, reward: stablepref.Scorer, image_a: Tensor, image_b: Tensor, prompt: str
    ) -> tuple[str, float, float, float, Tensor]:
        """The choice, with NaN for a probability that the model does not give; a for a tie."""
        for name, image in (("image_a", image_a), ("image_b", image_b)):
            if len(image) != 1:
                raise ValueError(
                    f"{name} is a batch of {len(image)} images; expected one, as from an "
                    "ImageFromBatch node"
                )
        (a,), (b,) = pictures(image_a), pictures(image_b)
        choice = reward.compare(a, b, prompt)
        probability = math.nan if choice.probability is None else choice.probability
        image = image_b if choice.preferred == "b" else image_a
        return choice.preferred, probability, choice.margin, choice.spread, image


@final
class BestOfN:
    """Images of n seeds from a sampler; the best ones, with their latents, scores and seeds."""

    CATEGORY = CATEGORY
    FUNCTION = "choose"
    RETURN_TYPES = ("IMAGE", "LATENT", "FLOAT", "INT")
    RETURN_NAMES = ("images", "latent", "scores", "seeds")
    OUTPUT_IS_LIST = (False, False, True, True)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 (ComfyUI's name)
        """The inputs of a KSampler, and a reward, a VAE, the prompt and two numbers."""
        from comfy.samplers import KSampler  # noqa: PLC0415 (only ComfyUI has it)

        return {
            "required": {
                "reward": (REWARD,),
                "model": ("MODEL",),
                "positive": ("CONDITIONING",),
                "negative": ("CONDITIONING",),
                "latent_image": ("LATENT",),
                "vae": ("VAE",),
                "prompt": _PROMPT,
                "n": ("INT", {"default": 8, "min": 1, "max": 4096}),
                "keep": ("INT", {"default": 1, "min": 1, "max": 4096}),
                "seed": ("INT", {"default": 0, "min": 0, "max": _LARGEST_SEED}),
                "steps": ("INT", {"default": 20, "min": 1, "max": 10000}),
                "cfg": ("FLOAT", {"default": 8.0, "min": 0.0, "max": 100.0, "step": 0.1}),
                "sampler_name": (KSampler.SAMPLERS,),
                "scheduler": (KSampler.SCHEDULERS,),
                "denoise": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.01}),
            },
            "optional": {"views": _VIEWS},
        }

    def choose(
        self,
        reward: stablepref.Scorer,
        latent_image: dict[str, Any],
        vae: Any,  # noqa: ANN401 (ComfyUI has no types)
        prompt: str,
        n: int,
        keep: int,
        seed: int,
        views: int = 0,
        **sampler: Any,  # noqa: ANN401 (ComfyUI has no types)
    ) -> tuple[Tensor, dict[str, Any], list[float], list[int]]:
        """One image a seed, so that a KSampler with the best one's seed makes it again.

        No more than `keep` images are held at a time. The sampler's inputs pass through.
        """
        from nodes import common_ksampler  # noqa: PLC0415 (only ComfyUI has it)

        if len(latent_image["samples"]) != 1:
            raise ValueError(
                f"latent_image is a batch of {len(latent_image['samples'])}; expected one: the "
                "number of candidates is n"
            )
        kept: list[tuple[float, int, Tensor, Tensor]] = []
        for number in range(n):
            own = (seed + number) % (_LARGEST_SEED + 1)
            (made,) = common_ksampler(seed=own, latent=latent_image, **sampler)
            image = vae.decode(made["samples"])
            (score,) = reward.score(pictures(image), prompt, views=views).tolist()
            # Of equal scores the earlier seed is kept.
            add = heapq.heappush if len(kept) < keep else heapq.heappushpop
            add(kept, (score, -number, image, made["samples"]))
        best = sorted(kept, reverse=True, key=lambda one: one[:2])
        latent = {**latent_image, "samples": torch.cat([one[3] for one in best])}
        seeds = [(seed - one[1]) % (_LARGEST_SEED + 1) for one in best]
        return torch.cat([one[2] for one in best]), latent, [one[0] for one in best], seeds


def pictures(images: Tensor) -> list[Image.Image]:
    """A batch of ComfyUI as the pictures that its Save Image node writes, without alpha.

    Args:
        images: Float `(batch, height, width, channels)`; what lies outside [0, 1] is cut off, and
            values are rounded down to 8 bits, as that node does.

    Raises:
        ValueError: It has another shape, or holds NaN.
    """
    if images.ndim != 4 or images.shape[-1] not in (3, 4):
        raise ValueError(
            f"images have the shape {tuple(images.shape)}; expected (batch, height, width, 3)"
        )
    values = 255.0 * images[..., :3].detach().float().cpu().numpy()
    if np.isnan(values).any():
        raise ValueError("images hold NaN: look at the VAE, which may need float32 (--fp32-vae)")
    return [Image.fromarray(one) for one in np.clip(values, 0, 255).astype(np.uint8)]
