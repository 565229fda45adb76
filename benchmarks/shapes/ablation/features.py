"""Frozen blocks run once: images in all their variants, as the trained blocks will see them.

A variant is the image itself, or one of a fixed pool of weak views, or the image perturbed. The
tokens are in float32 in a file that is mapped into memory, so that a training holds only what a
step reads.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from stablepref.augment.perturbations import PERTURBATIONS
from stablepref.augment.philox import uniform
from stablepref.augment.views import weak_view_boxes
from stablepref.images.decoding import decode
from stablepref.images.sources import Source
from stablepref.output.durable import replacing
from stablepref.training.loader import WHOLE
from stablepref.training.pairs import name_of

from .towers import frozen_images, frozen_texts, plain_attention

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from stablepref.data.groups import RankedGroup
    from stablepref.models.clip import CLIPScorer

    from .towers import Texts

CROP_AREA = (0.85, 1.0)
_TOGETHER = 256
_WORDS = 4  # numbers in a block of Philox


class Cached(NamedTuple):
    """Ranked groups whose images went through the frozen blocks.

    Attributes:
        groups: With people's ranks.
        truth: The same with the oracle's.
        first: int64 `(groups + 1,)`: the row of each group's first image, and the number of rows.
        tokens: float32 `(images, variants, tokens, width)`, the image itself first.
        texts: The groups' prompts.
        trained: Image and text blocks that are left to run.
    """

    groups: Sequence[RankedGroup]
    truth: Sequence[RankedGroup]
    first: NDArray[np.int64]
    tokens: NDArray[np.float32]
    texts: Texts
    trained: tuple[int, int]

    @property
    def pool(self) -> int:
        """Number of variants other than the image itself."""
        return int(self.tokens.shape[1]) - 1


@torch.no_grad()
def cache_groups(
    scorer: CLIPScorer,
    groups: Sequence[RankedGroup],
    truth: Sequence[RankedGroup],
    path: Path,
    *,
    trained: tuple[int, int],
    pool: int = 0,
    seed: int = 0,
    perturbations: Sequence[str] = (),
    advance: Callable[[int], object] = lambda _: None,
) -> Cached:
    """Run the frozen blocks, or take what the file holds.

    Args:
        scorer: The model, float32.
        groups: Ranked images of equal size.
        truth: The same groups ranked by the oracle.
        path: File of the tokens of exactly this call; written whole or not at all.
        trained: Image and text blocks that are left to run.
        pool: Weak views of each image, never mirrored.
        seed: Of the views.
        perturbations: Names of `PERTURBATIONS`, instead of views.
        advance: Called with the number of variants encoded since its last call.

    Raises:
        ValueError: Both views and perturbations are given.
        ImageError: An image cannot be read.
    """
    if pool and perturbations:
        raise ValueError(f"pool is {pool} and perturbations {list(perturbations)}; expected one")
    if not path.exists():
        _write(scorer, groups, path, trained[0], pool, seed, perturbations, advance)
    tokens = np.load(path, mmap_mode="r")
    counts = [len(group.images) for group in groups]
    with plain_attention(scorer.device):
        texts = frozen_texts(scorer, [group.prompt for group in groups], trained=trained[1])
    return Cached(groups, truth, np.cumsum([0, *counts]), tokens, texts, trained)


def pool_choice(
    items: Sequence[int], views: int, pool: int, *, seed: int, step: int
) -> NDArray[np.int64]:
    """Which of the pool's views each image shows in a step: a pure function, as views are.

    Args:
        items: Identities of the images.
        views: Different ones of the pool for each image.
        pool: Views that each image has.
        seed: Of the training.
        step: Of the training.

    Returns:
        Numbers from 0 to `pool - 1`, `(items, views)`.

    Raises:
        ValueError: ``views`` is larger than ``pool``.
    """
    if views > pool:
        raise ValueError(
            f"{views} weak views of each image, but its pool has {pool}; give a larger pool"
        )
    counters = np.zeros((len(items), -(-pool // _WORDS), _WORDS), dtype=np.uint64)
    counters[..., 0] = np.asarray(items, dtype=np.uint64)[:, None]
    counters[..., 2] = np.uint64(step)
    counters[..., 3] = np.arange(counters.shape[1], dtype=np.uint64)
    numbers = uniform(counters, seed).reshape(len(items), -1)[:, :pool]
    return numbers.argsort(axis=1, kind="stable")[:, :views].astype(np.int64)


def pool_boxes(items: Sequence[int], pool: int, *, seed: int) -> Tensor:
    """Where the image itself and its pool of views lie, `(items, 1 + pool, 4)` as fractions."""
    boxes, _ = weak_view_boxes(items, pool, seed=seed, area=CROP_AREA, hflip=False)
    whole = torch.tensor(WHOLE, dtype=boxes.dtype).expand(len(items), 1, 4)
    return torch.cat([whole, boxes], dim=1)


def _write(
    scorer: CLIPScorer,
    groups: Sequence[RankedGroup],
    path: Path,
    trained: int,
    pool: int,
    seed: int,
    perturbations: Sequence[str],
    advance: Callable[[int], object],
) -> None:
    images = sum(len(group.images) for group in groups)
    variants = 1 + pool + len(perturbations)
    path.parent.mkdir(parents=True, exist_ok=True)
    mapped: np.memmap[tuple[int, ...], np.dtype[np.float32]] | None = None
    row = 0
    decoded, together = _decoded(groups), max(1, _TOGETHER // variants)
    with replacing(path) as staging:
        while some := list(islice(decoded, together)):
            if pool:  # as in training
                boxes = pool_boxes(range(row, row + len(some)), pool, seed=seed)
                flips = torch.zeros(boxes.shape[:2], dtype=torch.bool)
                pixels = [_pixels(image).to(scorer.device) for image in some]
                inputs = scorer.preprocess(pixels, boxes, flips)
            else:  # as in an evaluation
                inputs = _perturbed(scorer, some, perturbations)
            with plain_attention(scorer.device):
                found = frozen_images(scorer, inputs.flatten(0, 1), trained=trained)
            if mapped is None:
                shape = (images, variants, *found.shape[1:])
                mapped = np.lib.format.open_memmap(
                    staging, mode="w+", dtype=np.float32, shape=shape
                )
            mapped[row : row + len(some)] = found.unflatten(0, (len(some), variants)).cpu().numpy()
            row += len(some)
            advance(len(found))
        assert mapped is not None
        mapped.flush()


def _decoded(groups: Sequence[RankedGroup]) -> Iterator[Image.Image]:
    for number, group in enumerate(groups):
        for place, image in enumerate(group.images):
            decoded = decode(Source(place, name_of(groups, (number, place)), image))
            assert isinstance(decoded, Image.Image), "the laboratory's pictures are not tensors"
            yield decoded


def _pixels(image: Image.Image) -> Tensor:
    """RGB in [0, 1], `(3, H, W)`."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div_(255)


def _perturbed(
    scorer: CLIPScorer, images: Sequence[Image.Image], perturbations: Sequence[str]
) -> Tensor:
    """Exact inputs `(images, 1 + perturbations, 3, S, S)`, as `stablepref.evaluate` makes them."""
    rows = [[image, *(PERTURBATIONS[name](image) for name in perturbations)] for image in images]
    exact = [torch.stack([scorer.preprocess.exact(one) for one in row]) for row in rows]
    return torch.stack(exact).to(scorer.device)
