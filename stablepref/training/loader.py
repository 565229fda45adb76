"""One process's share of a batch: its images decoded, and where their weak views lie.

Shares are cut by image, not by pair, so that no image is encoded twice. Threads decode the next
steps' images while the model works on this one's.
"""

from __future__ import annotations

from contextlib import closing
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Final, NamedTuple, final

import numpy as np
import torch
from torch import Tensor

from stablepref.augment.views import weak_view_boxes
from stablepref.images.decoding import decode
from stablepref.images.sources import ImageError, Source
from stablepref.runtime.ahead import ahead
from stablepref.training.pairs import name_of

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence

    from stablepref.data.groups import RankedGroup
    from stablepref.training.pairs import Batch

STEPS_AHEAD: Final = 2
"""Steps whose images are in memory in advance; how many images that is, the first step says."""
WHOLE: Final = (0.0, 0.0, 1.0, 1.0)
"""The box of an image itself, as fractions of its sides."""


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


class _End(NamedTuple):
    """What follows the images of a batch."""

    step: int
    batch: Batch


@final
class ShareReader:
    """Reads the shares of one process, a few steps ahead.

    Args:
        groups: The data.
        process: This process's number.
        processes: How many there are.
        workers: Threads that decode; 0 decodes in the thread that reads.
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
            batches: The number of each step, which decides the views, and its batch.
            views: Weak views of each image beside the image itself.
            augment: A weak view takes the place of the image itself too.
            seed: Of the views; see `weak_view_boxes`.
            area: Bounds of the cropped part of the area.
            ratio: Bounds of the crop's own aspect ratio; None keeps the image's.
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

        found: list[Tensor | str] = []
        with closing(self._decoded(batches)) as results:
            for result in results:
                if isinstance(result, _End):
                    yield result.step, share(*result, found)
                    found = []
                else:
                    found.append(result)

    def _mine(self, batch: Batch) -> list[tuple[int, int]]:
        """This process's images, consecutive ones: the first processes may have one more."""
        return [batch.images[i] for i in shares(len(batch.images), self.processes)[self.process]]

    def _decoded(self, batches: Iterable[tuple[int, Batch]]) -> Generator[Tensor | str | _End]:
        """Of every batch this process's images, decoded in advance, and then its `_End`."""
        rest = iter(batches)
        first = next(rest, None)
        if first is None:
            return

        def items() -> Iterator[tuple[int, int] | _End]:
            for step, batch in chain([first], rest):
                yield from self._mine(batch)
                yield _End(step, batch)

        most = STEPS_AHEAD * (len(self._mine(first[1])) + 1)
        yield from ahead(self._decode, items(), workers=self.workers, most=most)

    def _decode(self, item: tuple[int, int] | _End) -> Tensor | str | _End:
        """Pixels `(3, H, W)` of an image, or what is wrong with it; the end of a batch as it is."""
        if isinstance(item, _End):
            return item
        group, place = item
        name = name_of(self.groups, item)
        try:
            decoded = decode(Source(place, name, self.groups[group].images[place]))
        except ImageError as error:
            return f"{name}: {error.reason}"
        if isinstance(decoded, Tensor):
            return decoded.detach().cpu()
        return torch.from_numpy(np.array(decoded)).permute(2, 0, 1)


def shares(count: int, processes: int) -> list[range]:
    """Consecutive shares of `count` items, as equal as possible, the larger ones first."""
    base, rest = divmod(count, processes)
    bounds = [process * base + min(process, rest) for process in range(processes + 1)]
    return [range(low, high) for low, high in pairwise(bounds)]
