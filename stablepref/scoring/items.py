"""What a command was given, item by item, and what came of each."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, final

from stablepref.images.sources import count_sources, iter_sources
from stablepref.output.text import shorten
from stablepref.scoring.manifest import Item, count_rows, is_manifest, read_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stablepref.scorer import Scorer

NO_PROMPT = "-"  # goes to the scorer with an image that is an error already


@final
@dataclass(frozen=True)
class Outcome:
    """One item's result.

    Attributes:
        index: Position among all items, from 0.
        item: What was scored.
        score: In the model's unit; None if there is none.
        spread: Largest minus smallest score over the weak views; None without views.
        error: Why there is no score, else None.
    """

    index: int
    item: Item
    score: float | None
    spread: float | None
    error: str | None

    def row(self, *, views: bool) -> dict[str, object]:
        """The outcome as it is printed and written, plain JSON values."""
        row: dict[str, object] = {
            "index": self.index,
            "image": self.item.name,
            "prompt": self.item.prompt,
            "score": self.score,
        }
        return row | ({"spread": self.spread} if views else {}) | {"error": self.error}

    def without_image(self) -> Outcome:
        """The outcome without its image, which may be the bytes of a whole file."""
        return replace(self, item=replace(self.item, image=None))


def read_items(images: Sequence[str], prompt: str | None) -> Iterator[Item]:
    """Items of a manifest, or of files, folders, globs and URLs with one prompt, lazily.

    Raises:
        ValueError: At once: no prompt or an empty one, anything beside a manifest, or a manifest
            that has no rows or is none.
        OSError: At once: the manifest cannot be read.
    """
    if not any(map(is_manifest, images)):
        if prompt is None or not prompt.strip():
            wrong = "missing" if prompt is None else "empty"
            msg = f"--prompt is {wrong} (only a manifest brings prompts of its own)"
            raise ValueError(msg)
        return _file_items(images, prompt)
    if len(images) > 1 or prompt is not None:
        msg = "a manifest stands alone: no other images beside it, no --prompt"
        raise ValueError(msg)
    path = Path(images[0])
    items = read_manifest(path)
    first = next(items, None)
    if first is None:
        msg = f"{path} has no rows"
        raise ValueError(msg)
    return itertools.chain([first], items)


def count_items(images: Sequence[str]) -> int | None:
    """How many items `read_items` yields; None if that cannot be known beforehand."""
    return count_rows(Path(images[0])) if is_manifest(images[0]) else count_sources(list(images))


def score_items(
    scorer: Scorer, items: Iterator[Item], *, start: int, batch_size: int | None, views: int
) -> Iterator[Outcome]:
    """Outcomes in the order of the items, which are read only a little ahead.

    Args:
        scorer: The model.
        items: What to score; none is an empty result.
        start: Index of the first item.
        batch_size: As in `Scorer.score`.
        views: As in `Scorer.score`.

    Raises:
        ValueError: As `Scorer.score` for its arguments; or as `items`, after the outcomes before.
    """
    first = next(items, None)
    if first is None:
        return
    given, images, prompts = itertools.tee(itertools.chain([first], items), 3)
    scored = scorer.stream(
        (item.image for item in images),
        (NO_PROMPT if item.prompt is None else item.prompt for item in prompts),
        batch_size=batch_size,
        views=views,
        on_error="nan",
        progress=False,
    )
    for index, (result, item) in enumerate(zip(scored, given, strict=False), start):
        error = result.error
        if error is not None:  # name and position are columns of their own
            error = error.removeprefix(f"image {result.index} ({shorten(result.name)}): ")
        elif not math.isfinite(result.score):
            error = f"the model's score is {result.score}"
        bad = error is not None
        yield Outcome(
            index=index,
            item=item,
            score=None if bad else result.score,
            spread=None if bad or not views else result.spread,
            error=error,
        )


def _file_items(images: Sequence[str], prompt: str) -> Iterator[Item]:
    for source in iter_sources(list(images)):
        yield Item(source.name, source.value, prompt)
