"""Which pairs each training step sees: a pure function of the data, the seed and the step.

Any number of processes, any micro-batch size and any restart see the same pairs. An image that
several pairs of a batch share is listed, and encoded, once.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Literal, NamedTuple, cast, final

import numpy as np
import torch

from stablepref.images.decoding import read_file
from stablepref.images.sources import UnusableImageError, describe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from stablepref.data.groups import RankedGroup

SURE: Final = 1.0
TIE: Final = 0.5
"""Labels: the probability that the first image of a pair is the better one."""


@final
class Batch(NamedTuple):
    """The pairs of one global batch and the distinct images that they compare.

    Attributes:
        images: For each image its group and its place in the group; those of a group stand
            together.
        better: int64 `(pairs,)`, places in `images`; for a tie the first of the two.
        worse: int64 `(pairs,)`, places in `images`.
        label: float32 `(pairs,)`: the probability that `better` is the better one, 1 or 0.5.
    """

    images: list[tuple[int, int]]
    better: Tensor
    worse: Tensor
    label: Tensor


@final
class PairBatches:
    """All pairs of ranked groups, in batches that repeat without end, each epoch in a new order.

    Batches do not stop at the end of an epoch: two pairs are used
    equally often, or one of them once more.

    Args:
        groups: The data.
        batch_size: Pairs in a batch; the last of each epoch is filled from the next.
        batching: "pairs" shuffles all pairs; "groups" shuffles groups, and the pairs within each,
            so that a batch holds few groups and encodes few images.
        ties: Whether tied pairs take part.
        seed: Of the order.

    Raises:
        ValueError: There are no pairs, or fewer than a batch holds.
    """

    def __init__(
        self,
        groups: Sequence[RankedGroup],
        *,
        batch_size: int,
        batching: Literal["groups", "pairs"] = "groups",
        ties: bool = False,
        seed: int = 0,
    ) -> None:
        rows = [
            (number, first, second, label)
            for number, group in enumerate(groups)
            for pairs, label in ((group.pairs(), SURE), (group.ties() if ties else [], TIE))
            for first, second in pairs
        ]
        if len(rows) < batch_size:
            raise ValueError(
                f"{len(groups)} groups have {len(rows)} pairs of images of different rank, fewer "
                f"than one batch of {batch_size}; give more data or a smaller batch_size"
            )
        self.pairs = np.array([row[:3] for row in rows], dtype=np.int64)
        self.labels = np.array([row[3] for row in rows], dtype=np.float32)
        self.batch_size = batch_size
        self.batching = batching
        self.seed = seed
        self._order = lru_cache(maxsize=2)(self._shuffled)

    def __len__(self) -> int:
        """Number of pairs in an epoch."""
        return len(self.pairs)

    def __getitem__(self, step: int) -> Batch:
        """The batch of a step, from 0."""
        start = step * self.batch_size
        positions = range(start, start + self.batch_size)
        rows = np.array([self._order(p // len(self))[p % len(self)] for p in positions])
        return collate(self.pairs[rows], self.labels[rows])

    def _shuffled(self, epoch: int) -> NDArray[np.int64]:
        generator = np.random.default_rng([self.seed, epoch])
        order = generator.permutation(len(self))
        if self.batching == "pairs":
            return order
        place = generator.permutation(int(self.pairs[-1, 0]) + 1)
        return order[np.argsort(place[self.pairs[order, 0]], kind="stable")]


def collate(pairs: NDArray[np.int64], labels: NDArray[np.float32]) -> Batch:
    """The batch of pairs `(pairs, 3)`: group, place of the better image, place of the worse."""
    images = sorted({(int(g), int(i)) for g, *two in pairs for i in two})
    place = {image: number for number, image in enumerate(images)}
    better, worse = ([place[int(row[0]), int(row[c])] for row in pairs] for c in (1, 2))
    return Batch(images, torch.tensor(better), torch.tensor(worse), torch.from_numpy(labels))


def every_batch(groups: Sequence[RankedGroup], batch_size: int) -> list[Batch]:
    """All untied pairs once, group by group, for validation; the last batch may be smaller."""
    rows = [(g, i, j) for g, group in enumerate(groups) for i, j in group.pairs()]
    pairs = np.array(rows, dtype=np.int64).reshape(-1, 3)
    labels = np.ones(len(pairs), dtype=np.float32)
    starts = range(0, len(pairs), batch_size)
    return [collate(pairs[s : s + batch_size], labels[s : s + batch_size]) for s in starts]


def name_of(groups: Sequence[RankedGroup], image: tuple[int, int]) -> str:
    """How messages name an image: its group, its place there, and its path or what it is."""
    group, place = image
    known = f" ({groups[group].id})" if groups[group].id else ""
    return f"group {group}{known}, image {place}: {describe(groups[group].images[place])}"


def fingerprint(groups: Sequence[RankedGroup]) -> str:
    """A hash of the prompts, ranks and images; of files the name, of others the content."""
    digest = hashlib.sha256()
    for group in groups:
        digest.update(repr((group.prompt, group.ranks, len(group.images))).encode())
        for image in group.images:
            digest.update(_identity(image))
    return digest.hexdigest()[:16]


def _identity(image: object) -> bytes:
    if isinstance(image, Mapping):
        image = image.get("bytes") or image.get("path")
    if isinstance(image, str | os.PathLike):
        return os.fsencode(Path(image).name)  # the data may be moved
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, torch.Tensor):
        # numpy has no bfloat16
        return image.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    if hasattr(image, "read"):
        try:
            return read_file(cast("BinaryIO", image))
        except UnusableImageError:
            return b""
    array = np.asarray(image)
    # numpy keeps what it cannot read as an object, by its address, which changes with every run.
    return type(image).__qualname__.encode() if array.dtype == object else array.tobytes()
