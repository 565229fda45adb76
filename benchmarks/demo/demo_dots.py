"""Where the dots of a plot of scores lie: one for each candidate, stacked like a histogram."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from collections.abc import Sequence

_LEAST_COLUMNS: Final = 8
_MOST_COLUMNS: Final = 40
_COLUMNS: Final = 2.4  # for each square root of the number of scores
_SMALLEST_STACK: Final = 4  # dots of few scores stay small


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
