"""Rewards for trainers that ask for one image at a time, or with a model of their own form."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple, final

import numpy as np
import torch
from torch import Tensor

from stablepref.images.decoding import decode
from stablepref.images.sources import iter_sources
from stablepref.scoring.prompts import check_prompts

from .latent_pictures import LatentPictures
from .micro_batches import MAX_DELAY, MicroBatches
from .sampled_rewards import as_scorer

if TYPE_CHECKING:
    import os
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from PIL import Image

    from stablepref.scorer import Scorer

PADDING = -1


def verl_omni_batched(
    model: Scorer | str | os.PathLike[str],
    *,
    max_batch: int | None = None,
    max_delay: float = 2 * MAX_DELAY,
) -> Callable[..., Awaitable[dict[str, float]]]:
    """An asynchronous `compute_score` for verl-omni, which scores concurrent calls together.

    Its reward managers ask for one image at a time, from many tasks of one event loop; here these
    meet in common batches.

    Args:
        model: The scorer, or what `stablepref.load` takes.
        max_batch: Images at once; None chooses.
        max_delay: Seconds for which an image waits for others.

    Returns:
        `compute_score(data_source, solution_image, ground_truth, extra_info, **kwargs)`, called by
        keywords, a coroutine function that returns `{"score": float}`. The image is a uint8 tensor
        `(3, H, W)` or `(1, 3, H, W)`, or any other single image; `ground_truth` is its prompt. It
        raises a ValueError for an image that cannot be scored.
    """
    scorer = as_scorer(model)
    batches = MicroBatches(scorer, max_batch=max_batch, max_delay=max_delay)

    async def compute_score(
        data_source: object,
        solution_image: object,
        ground_truth: str,
        extra_info: object = None,
        **kwargs: object,
    ) -> dict[str, float]:
        del data_source, extra_info, kwargs
        check_prompts([ground_truth], needed=scorer.needs_prompt)
        loop = asyncio.get_running_loop()
        inputs = await loop.run_in_executor(None, _inputs, scorer, solution_image)
        (score,) = await asyncio.wrap_future(batches.submit([inputs], [ground_truth]))
        if isinstance(score, str):
            raise ValueError(score)
        return {"score": score}

    return compute_score


def verl_omni_latents(
    model: Scorer | str | os.PathLike[str],
    vae: Any,  # noqa: ANN401 (diffusers has no types)
    *,
    max_batch: int | None = None,
    max_delay: float = 2 * MAX_DELAY,
) -> Callable[..., Awaitable[dict[str, float]]]:
    """As `verl_omni_batched`, for rollouts that end with latents (`output_type` latent or both).

    The trainer decodes nothing then; here concurrent calls are decoded and scored together, each
    under the words of its prompt.

    Args:
        model: The scorer, or what `stablepref.load` takes.
        vae: The VAE of the pipeline that is trained; it is brought to the scorer's device.
        max_batch: Samples at once; None chooses.
        max_delay: Seconds for which a sample waits for others.

    Returns:
        `compute_score` with the arguments of `verl_omni_batched`. The latents are
        `extra_info["latents_clean"]` where there are some, else `solution_image`: float
        `(channels, h, w)`, or a batch of one. It raises a ValueError for what is not that.
    """
    scorer = as_scorer(model)
    pictures = LatentPictures(scorer, vae.to(scorer.device))
    batches = MicroBatches(pictures, max_batch=max_batch, max_delay=max_delay)

    async def compute_score(
        data_source: object,
        solution_image: object,
        ground_truth: str,
        extra_info: Mapping[str, object] | None = None,
        **kwargs: object,
    ) -> dict[str, float]:
        del data_source, kwargs
        check_prompts([ground_truth], needed=scorer.needs_prompt)
        clean = (extra_info or {}).get("latents_clean")
        latents = pictures.check(solution_image if clean is None else clean)
        (score,) = await asyncio.wrap_future(batches.submit([latents], [ground_truth]))
        if isinstance(score, str):
            raise ValueError(score)
        return {"score": score}

    return compute_score


def _inputs(scorer: Scorer, image: object) -> Any:  # noqa: ANN401 - the model's own kind of inputs
    """The model's inputs of one image in any form."""
    sources = list(iter_sources(image))
    if len(sources) != 1:
        msg = f"verl-omni sends one image at a time, got {len(sources)}: videos are not scored"
        raise ValueError(msg)
    found = decode(sources[0])
    if isinstance(found, Tensor):
        return scorer.preprocess(found[None].to(scorer.device))[0]
    return scorer.preprocess.exact(found)


@final
class DanceGRPOReward(NamedTuple):
    """What DanceGRPO's training scripts call by these names.

    Attributes:
        reward_model: `reward_model(images, text)`, which gives a dictionary of `image_features` and
            `text_features` whose products are the scores.
        preprocess_val: `preprocess_val(image)`, a uint8 tensor `(3, H, W)` of a PIL image.
        tokenizer: `tokenizer([caption, ...])`, a tensor that holds the captions' bytes.
    """

    reward_model: Callable[[Tensor, Tensor], dict[str, Tensor]]
    preprocess_val: Callable[[Image.Image], Tensor]
    tokenizer: Callable[[Sequence[str]], Tensor]


def dance_grpo(model: Scorer | str | os.PathLike[str], *, divisor: float = 1.0) -> DanceGRPOReward:
    """A scorer in place of DanceGRPO's HPS v2: its three names, for `--use_hpsv2`.

    In `fastvideo/train_grpo_*.py`, after its own model is made:

        reward_model, preprocess_val, tokenizer = dance_grpo("hps-v2.1", divisor=100)

    The products of the features are the scores: `image_features @ text_features.T` has them on
    its diagonal, as there. Images of one call are of one size.

    Args:
        model: The scorer, or what `stablepref.load` takes.
        divisor: What scores are divided by; DanceGRPO's own HPS v2 is the cosine, a hundredth of
            ours.
    """
    scorer = as_scorer(model)

    def reward_model(images: Tensor, text: Tensor) -> dict[str, Tensor]:
        scores = scorer.score(images, _captions(text), progress=False).to(images.device) / divisor
        return {
            "image_features": torch.diag(scores),
            "text_features": torch.eye(len(scores)).to(scores),
        }

    return DanceGRPOReward(reward_model, _levels, _encoded)


def _levels(image: Image.Image) -> Tensor:
    """The 8-bit levels `(3, H, W)` of a PIL image."""
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def _encoded(captions: Sequence[str]) -> Tensor:
    """The bytes of captions, one row each."""
    rows = [torch.tensor(list(caption.encode()), dtype=torch.int16) for caption in captions]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PADDING)


def _captions(text: Tensor) -> list[str]:
    return [bytes(row[row != PADDING].tolist()).decode() for row in text.cpu()]
