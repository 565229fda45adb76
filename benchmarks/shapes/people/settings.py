"""The laboratory's two kinds of preference data: who draws, who ranks, and how noisily."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, final

from ..world.scenes import Split
from .generators import GENERATORS

SettingName = Literal["hpdv2", "imagereward"]


@final
@dataclass(frozen=True)
class Setting:
    """One kind of preference data.

    Attributes:
        name: Its name.
        generators: Names of the generators that a group's pictures come from: different ones as
            far as there are enough, else any of them each time.
        sizes: Numbers of pictures that a group can have, with their relative frequencies.
        people: Number of people in all; a group is ranked by some of them.
        annotators: How many people rank a group, by split.
        spread: Of their tastes, see `draw_tastes`.
        noise: Of their choices in units of utility, see `annotate`. Found by
            `stablepref.benchmarks.shapes.people.calibrate`.
        grid: Of their ties, see `annotate`; found by the same command.
        lapse: Of their attention, see `annotate`.
        target: Agreement of one person with another that ``noise`` was found for, over the pairs
            that neither ties, from 0 to 1.
        tied: Share of pairs that a person ties that ``grid`` was found for.
    """

    name: SettingName
    generators: tuple[str, ...]
    sizes: Mapping[int, int]
    people: int
    annotators: Mapping[Split, int]
    spread: float
    noise: float
    grid: float
    lapse: float
    target: float
    tied: float


_BY_SPLIT: Mapping[Split, int] = {"train": 1, "validation": 10, "test": 10}

HPDV2 = Setting(
    name="hpdv2",
    generators=tuple(GENERATORS),
    sizes={9: 1},
    people=50,
    annotators=_BY_SPLIT,
    spread=0.5,
    noise=0.5,
    grid=0.0,
    lapse=0.02,
    target=0.7957,
    tied=0.0,
)
"""Nine pictures by nine generators, ranked by ten people, as in HPD v2's test split; in training by
one. The target is measured on 40 groups of that split's public gallery (docs/data.md), in which
nobody ties."""

IMAGEREWARD = Setting(
    name="imagereward",
    generators=("level-5", "level-6", "level-7"),
    sizes={4: 194, 5: 2, 6: 45, 7: 159, 8: 43, 9: 23},
    people=50,
    annotators=_BY_SPLIT,
    spread=0.5,
    noise=0.99,
    grid=0.67,
    lapse=0.02,
    target=0.653,
    tied=831 / 7230,
)
"""Four to nine pictures by much the same generator, as in ImageReward, whose images all come from
one family of models. The target is that data set's agreement of single people (Stable Preference,
Table 4); sizes and ties are those of its test split."""

SETTINGS: Mapping[str, Setting] = {setting.name: setting for setting in (HPDV2, IMAGEREWARD)}
"""By name."""
