"""One process's share of a batch: its images decoded, and where their weak views lie.

Shares are cut by image, not by pair, so that no image is encoded twice. Threads decode the next
steps' images while the model works on this one's.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, final

import numpy as np
import torch
from torch import Tensor

from stablepref.augment.views import weak_view_boxes
from stablepref.images.decoding import decode
from stablepref.images.sources import ImageError, Source
from stablepref.training.pairs import name_of

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence
    from concurrent.futures import Future

    from stablepref.data.groups import RankedGroup
    from stablepref.training.pairs import Batch

STEPS_AHEAD = 2
WHOLE = (0.0, 0.0, 1.0, 1.0)


class Share(NamedTuple):
    """What one process encodes of one batch.

    Attributes:
        batch: The global batch.
        pixels: uint8 or float `(3, H, W)` of each of this process's images; an image that cannot
            be used is one black pixel here and False in `usable`.
        usable: Bool `(images,)`.
        prompts: Their prompts.
        boxes: `(images, views, 4)`: the image itself first, then its weak views.
        flips: Bool `(images, views)`.
        largest: Images in the largest share of any process.
        errors: What is wrong with those of this process's images that cannot be used.
    """

    batch: Batch
    pixels: list[Tensor]
    usable: Tensor
    prompts: list[str]
    boxes: Tensor
    flips: Tensor
    largest: int
    errors: dict[tuple[int, int], str]


@final
class ShareReader:
    """Reads the shares of one process, a few steps ahead.

    Args:
        groups: The data.
        process: This process's number.
        processes: How many there are.
        workers: Threads that decode; 0 decodes in this one.
    """

    def __init__(
        self, groups: Sequence[RankedGroup], *, process: int, processes: int, workers: int
    ) -> None:
        self.groups = groups
        self.process = process
        self.processes = processes
        self.workers = workers
        counts = [len(group.images) for group in groups]
        self._first = np.cumsum([0, *counts])

    def read(
        self,
        batches: Iterable[tuple[int, Batch]],
        *,
        views: int = 0,
        augment: bool = False,
        seed: int = 0,
        area: tuple[float, float] = (0.85, 1.0),
        ratio: tuple[float, float] | None = None,
        hflip: bool = False,
    ) -> Generator[tuple[int, Share]]:
        """The share of each step's batch, with its weak views.

        Args:
            batches: Pairs of a step, which decides the views, and its batch.
            views: Weak views beside the image itself.
            augment: A weak view stands for the image itself too.
            seed: As in `weak_view_boxes`, as are `area`, `ratio` and `hflip`.
            area: Bounds of the cropped share of the area.
            ratio: Bounds of the crop's own aspect ratio.
            hflip: Whether half of the weak views are mirrored.
        """

        def share(step: int, batch: Batch, found: list[Tensor | str]) -> Share:
            mine = self._mine(batch)
            errors = {
                image: item
                for image, item in zip(mine, found, strict=True)
                if isinstance(item, str)
            }
            usable = torch.tensor([isinstance(item, Tensor) for item in found], dtype=torch.bool)
            black = torch.zeros(3, 1, 1, dtype=torch.uint8)
            pixels = [item if isinstance(item, Tensor) else black for item in found]
            boxes, flips = weak_view_boxes(
                [int(self._first[group]) + place for group, place in mine],
                views + augment,
                seed=seed,
                step=step,
                area=area,
                ratio=ratio,
                sizes=None if ratio is None else [list(p.shape[1:]) for p in pixels],
                hflip=hflip,
            )
            if not augment:
                whole = torch.tensor(WHOLE, dtype=boxes.dtype).expand(len(mine), 1, 4)
                boxes = torch.cat([whole, boxes], dim=1)
                flips = torch.cat([torch.zeros(len(mine), 1, dtype=torch.bool), flips], dim=1)
            prompts = [self.groups[group].prompt for group, _ in mine]
            largest = -(-len(batch.images) // self.processes)
            return Share(batch, pixels, usable, prompts, boxes, flips, largest, errors)

        decoded = self._decoded(batches)
        with closing(decoded):
            for step, batch, found in decoded:
                yield step, share(step, batch, found)

    def _mine(self, batch: Batch) -> list[tuple[int, int]]:
        """This process's images, consecutive ones: the first processes may have one more."""
        return [batch.images[i] for i in shares(len(batch.images), self.processes)[self.process]]

    def _decoded(
        self, batches: Iterable[tuple[int, Batch]]
    ) -> Generator[tuple[int, Batch, list[Tensor | str]]]:
        if not self.workers:
            for step, batch in batches:
                yield step, batch, [self._decode(image) for image in self._mine(batch)]
            return
        queue: deque[tuple[int, Batch, list[Future[Tensor | str]]]] = deque()
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="stablepref-decode")
        try:
            for step, batch in batches:
                images = [pool.submit(self._decode, image) for image in self._mine(batch)]
                queue.append((step, batch, images))
                if len(queue) > STEPS_AHEAD:
                    first, its, futures = queue.popleft()
                    yield first, its, [future.result() for future in futures]
            for step, batch, futures in queue:
                yield step, batch, [future.result() for future in futures]
        finally:
            pool.shutdown(cancel_futures=True)

    def _decode(self, image: tuple[int, int]) -> Tensor | str:
        """Pixels `(3, H, W)`, or what is wrong with the image."""
        group, place = image
        name = name_of(self.groups, image)
        try:
            decoded = decode(Source(place, name, self.groups[group].images[place]))
        except ImageError as error:
            return f"{name}: {error.reason}"
        if isinstance(decoded, Tensor):
            return decoded.detach().cpu()
        return torch.from_numpy(np.array(decoded)).permute(2, 0, 1)


def shares(count: int, processes: int) -> list[range]:
    """Consecutive shares of `count` items, as equal as can be, the larger ones first."""
    base, rest = divmod(count, processes)
    bounds = [process * base + min(process, rest) for process in range(processes + 1)]
    return [range(low, high) for low, high in pairwise(bounds)]
