"""A self-contained page that shows ranked pictures in their order."""

from __future__ import annotations

import base64
import io
from pathlib import PurePath
from typing import TYPE_CHECKING, final

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from stablepref.images import Source, decode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from stablepref.items import Outcome

THUMBNAIL = 512
QUALITY = 85


def write_page(
    path: Path,
    ranked: Mapping[str, Sequence[Outcome]],
    failed: Sequence[Outcome],
    *,
    model: str,
    unit: str,
) -> None:
    """Write an HTML page of pictures, best first, with the pictures inside it.

    Args:
        path: Where; written under a temporary name first.
        ranked: The scored images of each prompt, best first.
        failed: Those that could not be scored; listed with their reasons.
        model: Name of the scorer.
        unit: Of its scores.

    Raises:
        ImageError: A picture that was scored cannot be read any more.
        OSError: The page cannot be written.
    """
    environment = Environment(
        loader=PackageLoader("stablepref"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("rank.html.j2").render(
        sections=[(prompt, _cards(outcomes)) for prompt, outcomes in ranked.items()],
        failures=[(outcome.item.name, outcome.error) for outcome in failed],
        model=model,
        unit=unit,
    )
    staging = path.with_name(path.name + ".tmp")
    # File names need not be valid text, and a page has to be.
    staging.write_text(text, encoding="utf-8", errors="replace")
    staging.replace(path)


def _cards(outcomes: Sequence[Outcome]) -> list[dict[str, object]]:
    """What the template shows of each picture of one prompt."""
    scores = [outcome.score for outcome in outcomes if outcome.score is not None]
    assert len(scores) == len(outcomes), "failed outcomes are listed apart"
    low, high = min(scores, default=0.0), max(scores, default=0.0)
    return [
        {
            "place": place,
            "path": outcome.item.name,
            "name": PurePath(outcome.item.name).name or outcome.item.name,
            "score": f"{score:.4f}",
            "spread": None if outcome.spread is None else f"{outcome.spread:.4f}",
            "share": round(100 * (score - low) / (high - low)) if high > low else 100,
            "thumbnail": Thumbnail(outcome),
        }
        for place, (outcome, score) in enumerate(zip(outcomes, scores, strict=True), start=1)
    ]


@final
class Thumbnail:
    """A picture, at most 512 pixels a side.

    Attributes:
        width: In pixels.
        height: In pixels.
        uri: The picture itself as a data URI.
    """

    def __init__(self, outcome: Outcome) -> None:
        picture = decode(Source(outcome.index, outcome.item.name, outcome.item.image))
        assert isinstance(picture, Image.Image), "paths, URLs and bytes are decoded by Pillow"
        # `thumbnail` would change a picture that its owner still uses, and never enlarges.
        small = picture.copy()
        small.thumbnail((THUMBNAIL, THUMBNAIL))
        buffer = io.BytesIO()
        small.save(buffer, "WEBP", quality=QUALITY)
        self.width, self.height = small.size
        self.uri = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
