"""Many prompts times many pictures: the dual tower against one pair at a time."""

from __future__ import annotations

import time
from itertools import product
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stablepref.scorer import Scorer

SUBJECTS = (
    "a red fox",
    "an old sailor",
    "two astronauts",
    "a glass teapot",
    "the mayor of a small town",
    "a flock of paper cranes",
    "a sleepy dragon",
    "an empty tram",
    "a girl with a yellow umbrella",
    "a robot gardener",
)
PLACES = (
    "under a wooden bridge",
    "in a crowded market at dawn",
    "on the rings of Saturn",
    "beside a frozen lake",
    "in a library without walls",
    "on top of a lighthouse in a storm",
    "in a field of sunflowers",
    "at the bottom of the sea",
    "in a narrow alley after rain",
    "on a chessboard",
)
STYLES = (
    "oil on canvas",
    "35 mm photograph, shallow depth of field",
    "watercolour",
    "highly detailed digital painting, volumetric light, trending on artstation",
    "pencil sketch",
    "stained glass",
    "isometric render, soft shadows",
    "woodcut",
    "anime screencap",
    "art deco poster, flat colours",
)


def made_up_prompts(count: int) -> list[str]:
    """`count` different prompts, of about the length that people write.

    Raises:
        ValueError: More than 1,000 are asked for.
    """
    prompts = [", ".join(parts) for parts in product(SUBJECTS, PLACES, STYLES)]
    if count > len(prompts):
        msg = f"asked for {count} made-up prompts, but there are only {len(prompts)}"
        raise ValueError(msg)
    return prompts[:: len(prompts) // count][:count]


def prompts_times_pictures(
    scorer: Scorer, images: Sequence[str], prompts: Sequence[str], *, naive: int = 16
) -> dict[str, float]:
    """Seconds for all scores by `score_matrix`, and by scoring pair by pair.

    Each of the naive pairs encodes its picture and its prompt, in batches, as a reward model
    without separate features has to; a few pairs are measured, and their time is multiplied.

    Args:
        scorer: Any scorer.
        images: Paths.
        prompts: Different prompts, none of which is in the scorer's cache.
        naive: How many pairs to measure.
    """
    # Other prompts, or the scorer would take them from its cache.
    others = [f"{prompt}, again" for prompt in prompts[:naive]]
    paths = [images[i % len(images)] for i in range(len(others))]
    start = time.perf_counter()
    scorer.score(paths, others, progress=False)
    pair = (time.perf_counter() - start) / len(others)
    start = time.perf_counter()
    scores = scorer.score_matrix(list(images), prompts, progress=False)
    seconds = time.perf_counter() - start
    assert scores.shape == (len(images), len(prompts))
    return {
        "prompts": len(prompts),
        "pictures": len(images),
        "seconds": seconds,
        "naive_pairs_measured": len(others),
        "naive_seconds_extrapolated": pair * len(prompts) * len(images),
    }
