"""The demonstration as one picture to post. Needs matplotlib, which is in the extra ``bench``."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

try:
    from matplotlib.figure import Figure
    from matplotlib.patches import Circle, Rectangle
except ImportError as error:
    msg = f"this needs matplotlib: pip install 'stablepref[diffusers,bench]' ({error})"
    raise ImportError(msg) from error

from stablepref.output.figures import save_figure
from stablepref.output.sheet import BEST, GROUND, INK
from stablepref.scoring.page import SMALL

from .words import number, signed, tied

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from PIL import Image

    from .result import Demo

SIZE: Final = (1200, 675)
"""Width and height in pixels, 16:9 as social sites show pictures whole."""
_DOTS_PER_INCH: Final = 100
_MARGIN: Final = 48
_BEST: Final = 392  # side of the best picture
_RIBBON: Final = 12  # pictures from the worst to the best
_TITLE: Final = 50  # characters
_LABEL: Final = 130  # room for the words at the mean
_SOFT: Final = "#5d5f58"
_PALE: Final = "#b9bab2"
_LEAST_COLUMNS: Final = 8  # of the plot of scores
_MOST_COLUMNS: Final = 40
_COLUMNS: Final = 2.4  # for each square root of the number of scores
_SMALLEST_STACK: Final = 4  # dots of few scores stay small


def draw_card(path: Path, demo: Demo) -> None:
    """Draw the best picture, the scores, the numbers that matter, and pictures from worst to best.

    Args:
        path: A .png file, written under a temporary name first.
        demo: What it shows.

    Raises:
        OSError: It cannot be written, or a picture's file is gone.
    """
    width, height = SIZE
    figure = Figure(
        figsize=(width / _DOTS_PER_INCH, height / _DOTS_PER_INCH), facecolor=_web(GROUND)
    )
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    _head(axes, demo)
    upper = height - 120
    _picture(
        axes,
        demo.selection.image,
        _MARGIN,
        upper - _BEST,
        _BEST,
        frame=True,
        tie=bool(demo.selection.tie),
    )
    left = _MARGIN + _BEST + 44
    _numbers(axes, demo, left, upper)
    _scores(axes, demo, left, upper - _BEST + 38)
    _ribbon(axes, demo)
    # Pictures change the limits and the aspect as they are drawn.
    axes.set(xlim=(0, width), ylim=(0, height), aspect="auto")
    save_figure(figure, path, dpi=_DOTS_PER_INCH)


@final
@dataclass(frozen=True)
class Dots:
    """Dots over an axis from the lowest to the highest score.

    Attributes:
        places: Centre of each score's dot: to the right of the left edge, and above the axis.
        radius: Of all dots.
        mean: Where the mean of the scores is, to the right of the left edge.
    """

    places: Sequence[tuple[float, float]]
    radius: float
    mean: float


def stacked_dots(scores: Sequence[float], *, width: float, height: float) -> Dots:
    """Stack a dot for each score in columns of equal width.

    Args:
        scores: Finite, at least one.
        width: Of the plot.
        height: Which the tallest stack does not exceed.
    """
    low, high = min(scores), max(scores)
    columns = round(_COLUMNS * math.sqrt(len(scores)))
    columns = min(_MOST_COLUMNS, max(_LEAST_COLUMNS, columns))

    def share(score: float) -> float:
        return (score - low) / (high - low) if high > low else 0.5

    column_of = [min(columns - 1, int(columns * share(score))) for score in scores]
    tallest = max(_SMALLEST_STACK, *Counter(column_of).values())
    side = min(width / columns, height / tallest)
    filled: Counter[int] = Counter()
    places = []
    for column in column_of:
        places.append(((column + 0.5) * width / columns, (filled[column] + 0.5) * side))
        filled[column] += 1
    return Dots(places, radius=0.44 * side, mean=width * share(sum(scores) / len(scores)))


def _head(axes: Axes, demo: Demo) -> None:
    prompt = " ".join(demo.selection.prompt.split())
    if len(prompt) > _TITLE:
        prompt = prompt[: _TITLE - 1] + "…"
    count = len(demo.selection.candidates)
    top = SIZE[1] - _MARGIN
    _text(axes, _MARGIN, top - 14, prompt, 22, weight="bold")
    _text(
        axes,
        _MARGIN,
        top - 46,
        f"{'a tie of the first two' if demo.selection.tie else 'the best'} of {count}, by "
        f"{demo.selection.model}",
        12,
        _SOFT,
    )
    _text(axes, SIZE[0] - _MARGIN, top - 46, "stablepref demo", 12, _SOFT, ha="right")


def _numbers(axes: Axes, demo: Demo, left: float, upper: float) -> None:
    """Three columns: a number and what it is."""
    right = demo.truth.count(candidate.index for candidate in demo.order)
    columns = [
        (signed(demo.gain), "best above average"),
        (f"{demo.stays} of {len(demo.stability)}", "perturbations keep the choice"),
    ]
    if right is not None:
        columns.insert(1, (f"{right} of {len(demo.order)}", "candidates are correct"))
    step = (SIZE[0] - _MARGIN - left) / len(columns)
    for place, (value, meaning) in enumerate(columns):
        _text(axes, left + place * step, upper - 28, value, 21, _web(BEST), weight="bold")
        _text(axes, left + place * step, upper - 58, meaning, 10, _SOFT)
    if demo.ties:  # below the last of them
        words = tied(demo).removeprefix("; ")
        _text(axes, left + (len(columns) - 1) * step, upper - 78, words, 10, _SOFT)


def _scores(axes: Axes, demo: Demo, left: float, base: float) -> None:
    """A dot for each candidate, stacked by score; the best one is marked."""
    width, height = SIZE[0] - _MARGIN - left, 210
    dots = stacked_dots(demo.scores, width=width, height=height)
    known = not demo.truth.unknown
    for (x, y), candidate in zip(dots.places, demo.order, strict=True):
        good = demo.truth.correct.get(candidate.index)
        colour = _web(BEST) if good or not known else _PALE
        axes.add_patch(Circle((left + x, base + y), dots.radius, color=colour, linewidth=0))
    x, y = dots.places[0]
    ring = Circle((left + x, base + y), dots.radius + 4, fill=False, color=_web(INK), linewidth=2)
    axes.add_patch(ring)
    axes.plot([left, left + width], [base, base], color=_PALE, linewidth=1)
    mean = left + dots.mean
    axes.plot([mean, mean], [base, base + height], color=_web(INK), linewidth=1, linestyle="--")
    under = base - 16
    _text(axes, left, under, number(demo.scores[-1]), 10, _SOFT)
    label = min(max(mean, left + _LABEL / 2), left + width - _LABEL / 2)
    _text(axes, label, base + height + 12, f"average {number(demo.average)}", 10, ha="center")
    _text(axes, left + width, under, f"best {number(demo.best)}", 10, ha="right")
    if known:
        meaning = "green: correct by the oracle"
        _text(axes, left + width / 2, under, meaning, 10, _web(BEST), ha="center")


def _ribbon(axes: Axes, demo: Demo) -> None:
    """Candidates at even steps of the order, from the worst to the best."""
    count = min(_RIBBON, len(demo.order))
    gap = 10
    side = (SIZE[0] - 2 * _MARGIN - (_RIBBON - 1) * gap) / _RIBBON
    last = len(demo.order) - 1
    for place in range(count):
        candidate = demo.order[round(last * (1 - place / (count - 1)))]
        left = _MARGIN + place * (side + gap)
        _picture(
            axes,
            demo.selection.picture(candidate),
            left,
            44,
            side,
            frame=place == count - 1,
            tie=bool(demo.selection.tie),
        )
    _text(axes, _MARGIN, 24, "lowest score", 10, _SOFT)
    _text(axes, _MARGIN + count * (side + gap) - gap, 24, "highest", 10, _SOFT, ha="right")


def _picture(
    axes: Axes,
    picture: Image.Image,
    left: float,
    lower: float,
    side: float,
    *,
    frame: bool,
    tie: bool = False,
) -> None:
    """The picture, as large as it can be in a square; the frame of a tie is grey and dashed."""
    scale = side / max(picture.size)
    width, height = (scale * length for length in picture.size)
    left, lower = left + (side - width) / 2, lower + (side - height) / 2
    axes.imshow(
        picture,
        extent=(left, left + width, lower, lower + height),
        interpolation="nearest" if max(picture.size) <= SMALL else "lanczos",
    )
    if frame:
        edge = Rectangle(
            (left, lower), width, height, fill=False, linewidth=3,
            edgecolor=_SOFT if tie else _web(BEST), linestyle="--" if tie else "-",
        )  # fmt: skip
        axes.add_patch(edge)


def _text(
    axes: Axes,
    x: float,
    y: float,
    text: str,
    size: float,
    colour: str | None = None,
    *,
    ha: str = "left",
    weight: str = "normal",
) -> None:
    """A line whose middle is at y; a dollar sign is a dollar sign."""
    axes.text(
        x, y, text, fontsize=size, color=colour or _web(INK), ha=ha, va="center", weight=weight,
        parse_math=False,
    )  # fmt: skip


def _web(colour: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
