"""The numbers that *Stable Preference* (Li, Niu and Zhao) prints, and where they contradict.

Everything stands here as it is printed, misprints included; what its own numbers give is computed
from them and shown beside.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from collections.abc import Iterator

HPDV2: Final = "HPD v2"
IMAGEREWARD: Final = "ImageReward"
DECIMALS: Final = 1


@final
@dataclass(frozen=True)
class Published:
    """A printed number.

    Attributes:
        value: The number.
        printed: How it is printed, with what stands beside it; and, where that contradicts the
            paper's other numbers, what these give.
    """

    value: float
    printed: str


@final
@dataclass(frozen=True)
class Sensitivity:
    """A row of Table 1.

    Attributes:
        method: As printed.
        dataset: `HPDV2` or `IMAGEREWARD`.
        original: Accuracy in per cent.
        disturbed: Under each disturbance the accuracy, and its change as printed.
    """

    method: str
    dataset: str
    original: float
    disturbed: tuple[tuple[float, float], ...]

    def own_change(self, place: int) -> float:
        """The change under a disturbance that the row's own accuracies give, in points."""
        return round(self.disturbed[place][0] - self.original, DECIMALS)

    def published(self) -> tuple[Published, ...]:
        """The row's cells in order."""
        cells = [Published(self.original, f"{self.original:.1f}")]
        for place, (value, change) in enumerate(self.disturbed):
            own = self.own_change(place)
            told = "" if own == change else f", printed; {own:+.1f} by its own numbers"
            cells.append(Published(value, f"{value:.1f} ({change:+.1f}{told})"))
        return tuple(cells)


SIDE_RATIOS: Final = ("0.97", "0.95", "0.93", "0.90")
TABLE_1: Final = (
    Sensitivity("HPS v2", HPDV2, 83.3, ((82.2, -1.1), (82.2, -1.1), (81.8, -1.5), (81.7, -1.6))),
    Sensitivity(
        "ImageReward", HPDV2, 74.2, ((73.7, -0.5), (73.6, -0.6), (73.6, -0.6), (74.0, -0.2))
    ),
    Sensitivity(
        "SP (CLIP-L)", HPDV2, 77.2, ((77.3, 0.1), (77.0, -0.2), (76.9, -0.3), (77.0, -0.2))
    ),
    Sensitivity("SP (CLIP-H)", HPDV2, 80.7, ((81.4, 0.7), (80.3, 0.4), (80.4, 0.3), (80.7, 0.0))),
    Sensitivity(
        "HPS v2", IMAGEREWARD, 65.7, ((64.8, -0.9), (63.8, -1.9), (64.2, -1.5), (63.9, -1.8))
    ),
    Sensitivity(
        "ImageReward", IMAGEREWARD, 65.2, ((64.5, -0.7), (64.8, -0.4), (64.8, -0.4), (65.3, 0.1))
    ),
    Sensitivity(
        "SP (CLIP-L)", IMAGEREWARD, 66.3, ((65.7, -0.6), (65.6, -0.7), (65.9, -0.4), (66.0, -0.3))
    ),
    Sensitivity(
        "SP (CLIP-H)", IMAGEREWARD, 66.8, ((67.4, 0.6), (66.4, -0.4), (66.5, -0.3), (66.7, -0.1))
    ),
)

TABLE_2: Final = (
    ("CLIP-L", False, False, 63.1),
    ("CLIP-L", True, False, 64.0),
    ("CLIP-L", False, True, 65.8),
    ("CLIP-L", True, True, 66.3),
    ("CLIP-H", False, False, 63.9),
    ("CLIP-H", True, False, 64.5),
    ("CLIP-H", False, True, 66.2),
    ("CLIP-H", True, True, 66.8),
)
"""Model, anti-interference loss, Stable Preference, per cent on ImageReward."""

TABLE_3: Final = (
    ("inverse", "exp(-ΔS_j) / Σ exp(-ΔS_i)", 79.5, 66.2),
    ("uniform", "1 / N", 80.1, 65.8),
    ("softmax", "exp(ΔS_j) / Σ exp(ΔS_i)", 80.7, 66.8),
)
"""Name of `TrainConfig.margin_weighting`, formula, per cent on HPD v2 and on ImageReward."""

SINGLE: Final = "Single Human vs. Single Human"
AVERAGED: Final = "Single Human vs. Averaged Human"
TABLE_4: Final = (
    ("CLIP-L", 54.8),
    ("CLIP-H", 57.1),
    ("Aesthetic Score Predictor", 57.4),
    ("HPS v1", 61.2),
    ("PickScore", 62.9),
    ("ImageReward", 65.1),
    ("HPS v2", 65.7),
    (SINGLE, 65.3),
    (AVERAGED, 53.9),
    ("Stable Preference (CLIP-L)", 66.3),
    ("Stable Preference (CLIP-H)", 66.8),
    ("Stable Preference (CLIP-H†)", 68.0),
)
"""Per cent on ImageReward."""

TABLE_5: Final = (
    ("CLIP-L", 72.8),
    ("CLIP-H", 74.8),
    ("BLIP", 74.2),
    (SINGLE, 78.1),
    (AVERAGED, 85.0),
    ("Stable Preference (CLIP-L)", 77.2),
    ("Stable Preference (CLIP-H)", 80.7),
    ("Stable Preference (CLIP-H†)", 82.5),
)
"""Per cent on HPD v2."""

FIGURE_4: Final = (0.1, 0.05)
"""b and τ of Figure 4's curve, 1 / (1 + exp((ΔS - b) / τ))."""


def misprints() -> Iterator[str]:
    """Where Table 1 prints another change than its accuracies give, and 4 another accuracy."""
    for row in TABLE_1:
        for place, (value, change) in enumerate(row.disturbed):
            own = row.own_change(place)
            if own != change:
                yield (
                    f"misprint: {row.method} on {row.dataset}, crop {SIDE_RATIOS[place]}: printed "
                    f"is {change:+.1f}, but {value:.1f} less {row.original:.1f} is {own:+.1f}"
                )
    for name, value in TABLE_4:
        for row in TABLE_1:
            if (row.method, row.dataset) == (name, IMAGEREWARD) and row.original != value:
                yield (
                    f"the paper contradicts itself: {name} on {IMAGEREWARD} has {row.original:.1f} "
                    f"in Table 1 and {value:.1f} in Table 4"
                )


def human_order() -> Iterator[str]:
    """Where a person agrees less with the average of people than with one of them."""
    for table, rows in (("Table 4", dict(TABLE_4)), ("Table 5", dict(TABLE_5))):
        if rows[AVERAGED] < rows[SINGLE]:
            yield (
                f"as printed: in {table} a person agrees less with the average of people "
                f"({rows[AVERAGED]:.1f}) than with a single one ({rows[SINGLE]:.1f}); elsewhere an "
                "average is the easier one to agree with"
            )
