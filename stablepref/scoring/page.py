"""A self-contained page of pictures in an order, best first, with the pictures inside it."""

from __future__ import annotations

import base64
import io
from pathlib import PurePath
from typing import TYPE_CHECKING, final

from PIL import Image

from stablepref.images.decoding import decode
from stablepref.images.sources import Source
from stablepref.output.pages import write_template

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from stablepref.scoring.items import Outcome

THUMBNAIL = 512
SMALL = 128
QUALITY = 85


def write_page(
    path: Path,
    ranked: Mapping[str, Sequence[Outcome]],
    failed: Sequence[Outcome],
    *,
    model: str,
    unit: str,
    tied: int | None = None,
    kept: Collection[int] = (),
) -> None:
    """Write an HTML page of pictures, best first, with the pictures inside it.

    Args:
        path: Where; written under a temporary name first.
        ranked: The scored images of each prompt, best first.
        failed: Those that could not be scored; listed with their reasons.
        model: Name of the scorer.
        unit: Of its scores.
        tied: How many of the first of each prompt are tied for the best, where that is known; None
            finds it by the spreads of the outcomes, where they have them.
        kept: Indices of the outcomes that are marked as kept.

    Raises:
        ImageError: A picture that was scored can no longer be read.
        OSError: The page cannot be written.
    """
    several = f"{len(ranked)} prompts"
    write_template(
        path,
        "pictures.html.j2",
        title=f"Ranked: {next(iter(ranked)) if len(ranked) == 1 else several}",
        heading=next(iter(ranked)) if len(ranked) == 1 else f"Pictures for {several}",
        about=f"{_counted(sum(map(len, ranked.values())))}, best first, scored by {model} "
        f"({unit}). The bars run from the lowest score shown to the highest.",
        sections=[
            (prompt if len(ranked) > 1 else "", _cards(outcomes, tied, kept))
            for prompt, outcomes in ranked.items()
        ],
        failed="Not scored",
        failures=[(outcome.item.name, outcome.error) for outcome in failed],
    )


def _counted(number: int) -> str:
    return f"{number} picture" if number == 1 else f"{number} pictures"


def tied_first(outcomes: Sequence[Outcome]) -> int:
    """How many of the first are tied for the best: 0, or 2 and more.

    A margin within the spread over weak views is no preference: the mean of the two images'
    spreads, as in `Scorer.compare`.

    Args:
        outcomes: Best first. Without spreads nothing is known of ties but of equal scores.
    """
    if not outcomes or outcomes[0].score is None:
        return 0
    first = outcomes[0]
    count = 0
    for one in outcomes:
        if one.score is None or first.score is None:
            break
        spread = ((first.spread or 0.0) + (one.spread or 0.0)) / 2
        if first.score - one.score > spread:
            break
        count += 1
    return count if count > 1 else 0


def _cards(
    outcomes: Sequence[Outcome], tied: int | None, kept: Collection[int]
) -> list[dict[str, object]]:
    """What the template shows of each picture of one prompt."""
    ties = tied_first(outcomes) if tied is None else tied
    scores = [outcome.score for outcome in outcomes if outcome.score is not None]
    assert len(scores) == len(outcomes), "failed outcomes are listed apart"
    low, high = min(scores, default=0.0), max(scores, default=0.0)
    cards = []
    for place, (outcome, score) in enumerate(zip(outcomes, scores, strict=True), start=1):
        source = Source(outcome.index, outcome.item.name, outcome.item.image)
        shown = card(
            outcome.item.name, Thumbnail(source), place=place, best=place == 1 and not ties
        )
        shown |= {"tie": place <= ties, "kept": outcome.index in kept}
        shown["score"] = f"{score:.4f}"
        shown["spread"] = None if outcome.spread is None else f"{outcome.spread:.4f}"
        shown["share"] = round(100 * (score - low) / (high - low)) if high > low else 100
        cards.append(shown)
    return cards


def card(path: str, thumbnail: Thumbnail, *, place: float, best: bool) -> dict[str, object]:
    """What the template shows of a picture that has no score.

    Args:
        path: Its path, URL or description.
        thumbnail: The picture.
        place: Its rank.
        best: Whether it is outlined.
    """
    return {
        "place": place,
        "path": path,
        "name": PurePath(path).name or path,
        "best": best,
        "tie": False,
        "kept": False,
        "score": None,
        "spread": None,
        "share": None,
        "thumbnail": thumbnail,
    }


@final
class Thumbnail:
    """A picture, at most 512 pixels a side; a small one, which is shown enlarged, without loss.

    Attributes:
        width: In pixels.
        height: In pixels.
        uri: The picture itself as a data URI.
    """

    def __init__(self, source: Source) -> None:
        picture = decode(source)
        assert isinstance(picture, Image.Image), "paths, URLs and bytes are decoded by Pillow"
        # `thumbnail` would change a picture that its owner still uses, and never enlarges.
        small = picture.copy()
        small.thumbnail((THUMBNAIL, THUMBNAIL))
        buffer = io.BytesIO()
        small.save(buffer, "WEBP", quality=QUALITY, lossless=max(small.size) <= SMALL)
        self.width, self.height = small.size
        self.uri = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
