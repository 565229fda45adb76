"""Images with their prompts on their way to a scorer, and what came of each."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, Unpack, final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from stablepref.scoring.contract import ScoreOptions
    from stablepref.scoring.stream import Scored


@final
@dataclass(frozen=True)
class Item:
    """One image to be scored.

    Attributes:
        name: Its whole path or URL; its place in the file for an image that has neither.
        image: What `stablepref.images.decode` takes; an `UnusableImageError` in its place says why
            there is none.
        prompt: Its prompt; None where there is none, which is an error of the image unless the
            scorer uses no prompt.
        others: What else its row holds, plain JSON values by column.
    """

    name: str
    image: object
    prompt: str | None
    others: Mapping[str, object] = field(default_factory=dict, hash=False)


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
        uncertainty: Standard deviation of the score; None where the model predicts none.
    """

    index: int
    item: Item
    score: float | None
    spread: float | None
    error: str | None
    uncertainty: float | None = None

    def row(self, *, views: bool, uncertain: bool = False) -> dict[str, object]:
        """The outcome as it is printed and written, plain JSON values.

        The item's other columns follow its own; none of them takes the place of one of these.

        Args:
            views: Whether the spread over views is a column.
            uncertain: Whether the score's standard deviation is one.
        """
        row: dict[str, object] = {
            "index": self.index,
            "image": self.item.name,
            "prompt": self.item.prompt,
            "score": self.score,
        }
        row |= {"uncertainty": self.uncertainty} if uncertain else {}
        row |= ({"spread": self.spread} if views else {}) | {"error": self.error}
        return row | {name: value for name, value in self.item.others.items() if name not in row}

    def without_image(self) -> Outcome:
        """The outcome without its image, which may be the bytes of a whole file."""
        return replace(self, item=replace(self.item, image=None))


class StreamScorer(Protocol):
    """What `score_items` asks of a scorer."""

    def stream(
        self,
        images: object,
        prompt: str | Iterable[str | None] | None = None,
        **options: Unpack[ScoreOptions],
    ) -> Iterator[Scored]:
        """One result for each image, in order; see `stablepref.Scorer.stream`."""


def score_items(
    scorer: StreamScorer, items: Iterator[Item], *, start: int, batch_size: int | None, views: int
) -> Iterator[Outcome]:
    """Outcomes in the order of the items, which are read only a little ahead.

    Args:
        scorer: The model.
        items: What to score; without any the result is empty.
        start: Index of the first item.
        batch_size: Images encoded at once; None chooses.
        views: Average over this many weak views beside the image itself.

    Raises:
        ValueError: As `Scorer.score` for its arguments; or as `items`, after the outcomes before.
    """
    first = next(items, None)
    if first is None:
        return
    given, images, prompts = itertools.tee(itertools.chain([first], items), 3)
    scored = scorer.stream(
        (item.image for item in images),
        (item.prompt for item in prompts),
        batch_size=batch_size,
        views=views,
        on_error="nan",
        progress=False,
    )
    for index, (result, item) in enumerate(zip(scored, given, strict=False), start):
        error = result.reason  # name and position are columns of their own
        bad = error is not None
        yield Outcome(
            index=index,
            item=item,
            score=None if bad else result.score,
            spread=None if bad or not views else result.spread,
            error=error,
            uncertainty=None if bad else result.uncertainty,
        )
