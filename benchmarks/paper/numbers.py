"""The numbers that *Stable Preference* (Li, Niu and Zhao) prints, and where they contradict.

Everything is given as printed, misprints included; what follows from its other numbers is computed
and shown beside.
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
        printed: How it is printed, with what is printed beside it and, where that contradicts the
            paper's other numbers, what follows from these.
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
        perturbed: Under each perturbation the accuracy, and its change as printed.
    """

    method: str
    dataset: str
    original: float
    perturbed: tuple[tuple[float, float], ...]

    def own_change(self, place: int) -> float:
        """The change under a perturbation by the row's own accuracies, in percentage points."""
        return round(self.perturbed[place][0] - self.original, DECIMALS)

    def published(self) -> tuple[Published, ...]:
        """The row's cells in order."""
        cells = [Published(self.original, f"{self.original:.1f}")]
        for place, (value, change) in enumerate(self.perturbed):
            own = self.own_change(place)
            misprint = "" if own == change else f", printed; {own:+.1f} by its own numbers"
            cells.append(Published(value, f"{value:.1f} ({change:+.1f}{misprint})"))
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

STYLES: Final = {
    "Photo": "photo",
    "Concept-art": "concept-art",
    "Animation": "anime",
    "Painting": "paintings",
}
"""Columns of Table 6, and what HPD v2's prompt files call the styles."""


@final
@dataclass(frozen=True)
class System:
    """A row of Table 6.

    Attributes:
        name: As printed.
        styles: For each of `STYLES` the mean of ten groups' means and their standard deviation, in
            logit scale x cosine.
        drawbench: Mean over DrawBench's images.
    """

    name: str
    styles: tuple[tuple[float, float], ...]
    drawbench: float


def _row(line: str) -> System:
    name, *cells, drawbench = (part.strip() for part in line.split("|"))
    styles = [tuple(map(float, cell.split("±"))) for cell in cells]
    return System(name, tuple((mean, deviation) for mean, deviation in styles), float(drawbench))


_PRINTED = """\
GLIDE                 | 25.03±0.245 | 24.12±0.111 | 24.25±0.151 | 24.27±0.150 | 25.53
VQ-Diffusion          | 25.82±0.189 | 25.24±0.118 | 25.45±0.156 | 25.50±0.108 | 25.60
LAFITE                | 26.16±0.179 | 25.37±0.049 | 25.48±0.090 | 25.38±0.132 | 25.67
FuseDream             | 25.79±0.221 | 25.54±0.071 | 25.61±0.073 | 25.44±0.163 | 25.97
CogView2              | 26.29±0.227 | 26.66±0.092 | 26.58±0.106 | 26.51±0.091 | 26.10
Latent Diffusion      | 26.03±0.158 | 25.72±0.091 | 26.10±0.102 | 25.84±0.156 | 26.16
VQGAN + CLIP          | 25.90±0.185 | 26.15±0.077 | 26.13±0.121 | 26.04±0.116 | 26.18
DALL-E mini           | 26.16±0.206 | 25.94±0.114 | 26.32±0.103 | 25.97±0.101 | 26.33
Versatile Diffusion   | 26.59±0.202 | 26.07±0.121 | 26.40±0.124 | 26.21±0.108 | 26.44
Stable Diffusion v1.4 | 26.85±0.193 | 26.57±0.083 | 27.03±0.145 | 26.63±0.131 | 26.85
DALL-E 2              | 26.80±0.153 | 26.59±0.089 | 27.26±0.117 | 26.68±0.173 | 26.88
Epic Diffusion        | 26.98±0.152 | 26.79±0.073 | 27.27±0.141 | 26.89±0.098 | 26.91
Stable Diffusion v2.0 | 27.01±0.185 | 26.83±0.063 | 27.29±0.146 | 26.82±0.144 | 26.97
Openjourney           | 27.02±0.148 | 27.00±0.059 | 27.48±0.132 | 27.07±0.115 | 27.00
ChilloutMix           | 27.15±0.162 | 27.13±0.048 | 27.72±0.127 | 27.18±0.159 | 27.06
MajicMix Realistic    | 27.19±0.180 | 27.21±0.058 | 27.67±0.171 | 27.25±0.148 | 27.13
Dreamlike Photoreal 2.0 | 27.28±0.204 | 27.31±0.074 | 27.79±0.127 | 27.32±0.115 | 27.25
DeepFloyd-XL          | 27.16±0.147 | 26.91±0.080 | 27.49±0.084 | 26.90±0.120 | 27.26
Realistic Vision      | 27.24±0.184 | 27.38±0.068 | 27.93±0.110 | 27.44±0.123 | 27.31
Deliberate            | 27.23±0.172 | 27.40±0.061 | 27.92±0.127 | 27.39±0.101 | 27.33
"""

TABLE_6: Final = tuple(map(_row, _PRINTED.splitlines()))
"""Text-to-image models as SP (CLIP-H†) scores them."""

FIGURE_4: Final = (0.1, 0.05)
"""b and τ of Figure 4's curve, 1 / (1 + exp((ΔS - b) / τ))."""


def misprints() -> Iterator[str]:
    """Where Table 1 contradicts itself, and where it and Table 4 print different accuracies."""
    for row in TABLE_1:
        for place, (value, change) in enumerate(row.perturbed):
            own = row.own_change(place)
            if own != change:
                yield (
                    f"misprint: {row.method} on {row.dataset}, crop {SIDE_RATIOS[place]}: printed "
                    f"is {change:+.1f}, but {value:.1f} - {row.original:.1f} is {own:+.1f}"
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
