"""Self-contained pages that show pictures in an order: ranked by a model, or by people."""

from __future__ import annotations

import base64
import io
from pathlib import PurePath
from typing import TYPE_CHECKING, final

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from stablepref.images.decoding import decode
from stablepref.images.sources import ImageError, Source, describe
from stablepref.output.durable import replacing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from stablepref.data.report import DataReport
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
    several = f"{len(ranked)} prompts"
    write_template(
        path,
        "pictures.html.j2",
        title=f"Ranked: {next(iter(ranked)) if len(ranked) == 1 else several}",
        heading=next(iter(ranked)) if len(ranked) == 1 else f"Pictures for {several}",
        told=f"{_counted(sum(map(len, ranked.values())))}, best first, scored by {model} ({unit}). "
        "The bars run from the lowest score shown to the highest.",
        sections=[
            (prompt if len(ranked) > 1 else "", _cards(outcomes))
            for prompt, outcomes in ranked.items()
        ],
        failed="Not scored",
        failures=[(outcome.item.name, outcome.error) for outcome in failed],
    )


def write_examples(path: Path, report: DataReport) -> None:
    """Write an HTML page of the example groups of checked data, in the order of their ranks.

    Args:
        path: Where; written under a temporary name first.
        report: Of `stablepref.data.check.check_data`. Images of the examples that cannot be used
            are listed below, with the reasons.

    Raises:
        OSError: The page cannot be written.
    """
    sections, failures = [], []
    for split in report.splits:
        for number, group in enumerate(split.examples, start=1):
            cards = []
            for index in sorted(range(len(group.images)), key=group.ranks.__getitem__):
                image, rank = group.images[index], group.ranks[index]
                name = str(image) if isinstance(image, str | PurePath) else describe(image)
                try:
                    thumbnail = Thumbnail(Source(index, name, image))
                except ImageError as error:
                    failures.append((name, error.reason))
                    continue
                cards.append(_card(name, thumbnail, place=rank, best=rank == min(group.ranks)))
            label = group.id or f"example {number}"
            sections.append((f"{split.name}, {label}: {group.prompt}", cards))
    write_template(
        path,
        "pictures.html.j2",
        title="Examples of preference data",
        heading="Examples of preference data",
        told=f"{len(sections)} groups, lower ranks first. The best are outlined.",
        sections=sections,
        failed="Cannot be used",
        failures=failures,
    )


def write_template(path: Path, template: str, **values: object) -> None:
    """Fill one of the package's templates; the file appears whole or not at all.

    Args:
        path: Where; written under a temporary name first.
        template: Its name in `stablepref/templates`.
        values: For it; text in them is escaped.

    Raises:
        OSError: The page cannot be written.
    """
    environment = Environment(
        loader=PackageLoader("stablepref"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template(template).render(values)
    with replacing(path) as staging:
        # File names need not be valid text, and a page has to be.
        staging.write_text(text, encoding="utf-8", errors="replace")


def _counted(number: int) -> str:
    return f"{number} picture" if number == 1 else f"{number} pictures"


def _cards(outcomes: Sequence[Outcome]) -> list[dict[str, object]]:
    """What the template shows of each picture of one prompt."""
    scores = [outcome.score for outcome in outcomes if outcome.score is not None]
    assert len(scores) == len(outcomes), "failed outcomes are listed apart"
    low, high = min(scores, default=0.0), max(scores, default=0.0)
    cards = []
    for place, (outcome, score) in enumerate(zip(outcomes, scores, strict=True), start=1):
        source = Source(outcome.index, outcome.item.name, outcome.item.image)
        card = _card(outcome.item.name, Thumbnail(source), place=place, best=place == 1)
        card["score"] = f"{score:.4f}"
        card["spread"] = None if outcome.spread is None else f"{outcome.spread:.4f}"
        card["share"] = round(100 * (score - low) / (high - low)) if high > low else 100
        cards.append(card)
    return cards


def _card(path: str, thumbnail: Thumbnail, *, place: float, best: bool) -> dict[str, object]:
    """A picture without a score."""
    return {
        "place": place,
        "path": path,
        "name": PurePath(path).name or path,
        "best": best,
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
