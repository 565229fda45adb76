"""Table 6 of *Stable Preference*: text-to-image models as SP (CLIP-H†) scores them, as printed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

STYLES: Final = {
    "Photo": "photo",
    "Concept-art": "concept-art",
    "Animation": "anime",
    "Painting": "paintings",
}
"""The table's columns, and what HPD v2's prompt files call the styles."""


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
