"""Scores on disk: each image decoded once for all scorers, its row written as it is scored."""

from __future__ import annotations

import sys
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, Final, final

from stablepref.images.decoding import decode
from stablepref.images.sources import ImageError, Source
from stablepref.output.progress import progress_bar
from stablepref.output.text import shorten
from stablepref.runtime.ahead import ahead
from stablepref.runtime.threads import one_thread
from stablepref.scoring.batching import WORKERS

from .processes import own_part
from .run_files import check_score_row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from concurrent.futures import Future

    from accelerate import PartialState
    from PIL import Image
    from torch import Tensor

    from .image_folders import Picture
    from .judges import Judge
    from .row_files import RowFiles

BATCH: Final = 32
"""Images that are scored together; as many more are decoded ahead while the scorers work."""


def begin_scores(
    rows: RowFiles, state: PartialState, *, settings: Mapping[str, object], retry: bool
) -> set[tuple[str, int, int]]:
    """Check and mend the rows that there are; all processes call this together.

    Args:
        rows: Where rows are read from and written to.
        state: The processes.
        settings: What the scores depend on, plain JSON values.
        retry: Forget those that could not be scored.

    Returns:
        The keys of the images that have a row.

    Raises:
        ResumeError: There are rows that were made with other settings.
    """
    if state.is_main_process:
        rows.begin(settings, retry=lambda row: retry and bool(row["faults"]))
    state.wait_for_everyone()
    return _keys(rows)


def score_pictures(
    pictures: Sequence[Picture],
    prompts: Sequence[str],
    judges: Sequence[Judge],
    rows: RowFiles,
    state: PartialState,
    *,
    settings: Mapping[str, object],
    progress: bool | None = None,
) -> None:
    """Score the images that have no row yet; all processes call this together.

    A row is `{"model", "prompt", "image", "scores": {scorer: number}, "faults": {scorer: reason}}`;
    each scorer is in one of the two. An image that cannot be read has a reason for every scorer.

    Args:
        pictures: All images of the benchmark.
        prompts: All prompts; `Picture.prompt` is an index into them.
        judges: The scorers.
        rows: Where rows are read from and written to, after `begin_scores`.
        state: The processes.
        settings: What the scores depend on, plain JSON values.
        progress: Show a progress bar; None shows it in a terminal once work takes seconds.

    Raises:
        RuntimeError: Memory runs out for a single image.
    """
    state.wait_for_everyone()
    done = _keys(rows)
    mine = own_part([picture for picture in pictures if picture.key not in done], state)
    del done
    state.wait_for_everyone()
    show = progress if state.is_main_process else False
    with progress_bar("scoring", total=len(mine), show=show) as advance:
        for batch, images in _decoded(mine):
            scored = _verdicts(batch, images, prompts, judges)
            rows.write(state.process_index, settings, scored)
            advance(len(batch))
    state.wait_for_everyone()


@final
class Meanwhile:
    """Scores images in a thread of its own while others are drawn; what is left is left.

    Args:
        prompts: All prompts; `Picture.prompt` is an index into them.
        judges: The scorers.
        write: Keeps the rows of a batch, as `score_pictures` writes them.
        done: Keys of the images that have a row already.
    """

    def __init__(
        self,
        prompts: Sequence[str],
        judges: Sequence[Judge],
        write: Callable[[list[dict[str, object]]], None],
        done: set[tuple[str, int, int]],
    ) -> None:
        self._prompts = prompts
        self._judges = judges
        self._write = write
        self._done = done
        self._waiting: list[Picture] = []
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="stablepref-scores")
        self._running: deque[Future[None]] = deque()

    def add(self, pictures: Sequence[Picture]) -> None:
        """Score these, too, as soon as there are enough for a batch.

        Raises:
            Exception: What a scorer raised for a batch before.
        """
        while self._running and self._running[0].done():
            self._running.popleft().result()
        self._waiting += [picture for picture in pictures if picture.key not in self._done]
        while len(self._waiting) >= BATCH:
            batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            self._running.append(self._pool.submit(self._score, batch))

    def _score(self, batch: Sequence[Picture]) -> None:
        with one_thread():  # the other cores draw
            images = [_decode(picture) for picture in batch]
            self._write(_verdicts(batch, images, self._prompts, self._judges))

    def close(self) -> None:
        """Wait for the batch in progress; those that have not begun are left.

        Raises:
            Exception: What a scorer raised.
        """
        self._pool.shutdown(cancel_futures=True)
        for running in self._running:
            if not running.cancelled():
                running.result()


def _keys(rows: RowFiles) -> set[tuple[str, int, int]]:
    found = rows.rows(check_score_row)
    return {(sys.intern(row["model"]), row["prompt"], row["image"]) for row in found}


def _verdicts(
    batch: Sequence[Picture],
    images: Sequence[Image.Image | Tensor | str],
    prompts: Sequence[str],
    judges: Sequence[Judge],
) -> list[dict[str, object]]:
    """The row of each picture of a batch."""
    scores: list[dict[str, float]] = [{} for _ in batch]
    faults: list[dict[str, str]] = [{} for _ in batch]
    good = [place for place, image in enumerate(images) if not isinstance(image, str)]
    for judge in judges:
        usable = [image for image in images if not isinstance(image, str)]
        asked = [prompts[batch[i].prompt] for i in good]
        verdicts = judge(usable, asked, [batch[i].image for i in good]) if good else []
        for place, verdict in zip(good, verdicts, strict=True):
            if isinstance(verdict, str):
                faults[place][judge.name] = verdict
            else:
                scores[place][judge.name] = verdict
        for place, image in enumerate(images):
            if isinstance(image, str):
                faults[place][judge.name] = image
    return [
        {
            "model": picture.model,
            "prompt": picture.prompt,
            "image": picture.number,
            "scores": scores[place],
            "faults": faults[place],
        }
        for place, picture in enumerate(batch)
    ]


def _decoded(
    pictures: Sequence[Picture],
) -> Iterator[tuple[Sequence[Picture], list[Image.Image | Tensor | str]]]:
    """Batches of pictures, each decoded or with what is wrong with it."""
    with closing(ahead(_decode, pictures, workers=WORKERS, most=BATCH)) as images:
        for start in range(0, len(pictures), BATCH):
            batch = pictures[start : start + BATCH]
            yield batch, list(islice(images, len(batch)))


def _decode(picture: Picture) -> Image.Image | Tensor | str:
    """Pixels, or what is wrong with the image."""
    try:
        return decode(Source(0, str(picture.image), picture.image))
    except ImageError as error:
        return shorten(error.reason)
