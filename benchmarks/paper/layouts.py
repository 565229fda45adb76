"""Tables 1 to 5 of *Stable Preference*: their rows and columns, and what each cell measures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from stablepref.augment.perturbations import TABLE_1 as PERTURBATIONS

from .methods import METHODS
from .numbers import (
    AVERAGED,
    HPDV2,
    IMAGEREWARD,
    SIDE_RATIOS,
    SINGLE,
    TABLE_1,
    TABLE_2,
    TABLE_3,
    TABLE_4,
    TABLE_5,
    Published,
    human_order,
    misprints,
)

if TYPE_CHECKING:
    from .methods import Method

HUMANS: Final = (SINGLE, AVERAGED)


@final
@dataclass(frozen=True)
class Measure:
    """What a cell measures.

    Attributes:
        dataset: The data set whose test split it is measured on.
        perturbation: A name of `stablepref.augment.perturbations`; None for unchanged images.
    """

    dataset: str
    perturbation: str | None = None


@final
@dataclass(frozen=True)
class Line:
    """A row.

    Attributes:
        labels: Cells before its numbers.
        who: A key of `METHODS`, or one of `HUMANS`.
        published: The paper's numbers.
        measures: What they measure.
    """

    labels: tuple[str, ...]
    who: str
    published: tuple[Published, ...]
    measures: tuple[Measure, ...]

    @property
    def method(self) -> Method | None:
        """The model that scores; None where people do."""
        return METHODS.get(self.who)


@final
@dataclass(frozen=True)
class Layout:
    """A table of accuracies.

    Attributes:
        name: Such as "table4".
        title: A short form of the paper's title.
        labels: Names of the columns before the numbers.
        columns: Names of the columns with numbers.
        lines: All rows in the paper's order.
        notes: Misprints and contradictions.
    """

    name: str
    title: str
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()

    @property
    def datasets(self) -> tuple[str, ...]:
        """The test splits that are needed."""
        found = [measure.dataset for line in self.lines for measure in line.measures]
        return tuple(dict.fromkeys(found))

    def perturbations(self, dataset: str) -> tuple[str, ...]:
        """The perturbations that are needed on a test split."""
        found = [m for line in self.lines for m in line.measures if m.dataset == dataset]
        return tuple(dict.fromkeys(m.perturbation for m in found if m.perturbation is not None))

    def names(self) -> dict[str, tuple[str, ...]]:
        """For each model's key the names by which its row may be given."""
        found: dict[str, tuple[str, ...]] = {}
        for line in self.lines:
            if line.method is not None:
                found[line.who] = (line.labels[0],) if self.labels[0] == "method" else ()
        return found


_SP_KEYS: Final = {
    "SP (CLIP-L)": "sp-clip-l",
    "SP (CLIP-H)": "sp-clip-h",
    "Stable Preference (CLIP-L)": "sp-clip-l",
    "Stable Preference (CLIP-H)": "sp-clip-h",
    "Stable Preference (CLIP-H†)": "sp-clip-h-hps",
    "HPS v2": "hps-v2",
    "ImageReward": "imagereward",
    SINGLE: SINGLE,
    AVERAGED: AVERAGED,
}
_TABLE_4_KEYS: Final = _SP_KEYS | {
    "CLIP-L": "clip-l",
    "CLIP-H": "clip-h",
    "Aesthetic Score Predictor": "aesthetic",
    "HPS v1": "hps-v1",
    "PickScore": "pickscore",
}
# All models of Table 5 are trained on ImageReward, these by cross-entropy.
_TABLE_5_KEYS: Final = _SP_KEYS | {
    "CLIP-L": "ce-clip-l",
    "CLIP-H": "ce-clip-h",
    "BLIP": "ce-blip",
}
_TRAININGS: Final = {
    (False, False): "ce",
    (True, False): "ce-ai",
    (False, True): "sp-no-ai",
    (True, True): "sp",
}
_DAGGER: Final = "† CLIP-H starts from the weights of HPS v2"


def _number(value: float) -> Published:
    return Published(value, f"{value:.1f}")


def _mark(there: bool) -> str:
    return "yes" if there else "no"


LAYOUTS: Final = {
    layout.name: layout
    for layout in (
        Layout(
            "table1",
            "Table 1: accuracy under small visual perturbations",
            ("method", "dataset"),
            ("ORG", *(f"HP&CC ({ratio})" for ratio in SIDE_RATIOS)),
            tuple(
                Line(
                    (row.method, row.dataset),
                    _SP_KEYS[row.method],
                    row.published(),
                    tuple(Measure(row.dataset, name) for name in (None, *PERTURBATIONS)),
                )
                for row in TABLE_1
            ),
            tuple(misprints()),
        ),
        Layout(
            "table2",
            "Table 2: the anti-interference loss and the training in two steps",
            ("L_ai", "Stable Preference", "model"),
            (IMAGEREWARD,),
            tuple(
                Line(
                    (_mark(ai), _mark(sp), model),
                    f"{_TRAININGS[ai, sp]}-{model.lower()}",
                    (_number(value),),
                    (Measure(IMAGEREWARD),),
                )
                for model, ai, sp, value in TABLE_2
            ),
        ),
        Layout(
            "table3",
            "Table 3: the weights of step 2",
            ("weights",),
            (HPDV2, IMAGEREWARD),
            tuple(
                Line(
                    (formula,),
                    "sp-clip-h" if name == "softmax" else f"sp-clip-h-{name}",
                    tuple(map(_number, values)),
                    (Measure(HPDV2), Measure(IMAGEREWARD)),
                )
                for name, formula, *values in TABLE_3
            ),
        ),
        Layout(
            "table4",
            "Table 4: agreement with people on ImageReward",
            ("method",),
            (IMAGEREWARD,),
            tuple(
                Line((name,), _TABLE_4_KEYS[name], (_number(value),), (Measure(IMAGEREWARD),))
                for name, value in TABLE_4
            ),
            (_DAGGER, *(note for note in (*human_order(), *misprints()) if "Table 4" in note)),
        ),
        Layout(
            "table5",
            "Table 5: trained on ImageReward, tested on HPD v2",
            ("method",),
            (HPDV2,),
            tuple(
                Line((name,), _TABLE_5_KEYS[name], (_number(value),), (Measure(HPDV2),))
                for name, value in TABLE_5
            ),
            (_DAGGER, "CLIP-L, CLIP-H and BLIP are fine-tuned by cross-entropy on ImageReward"),
        ),
    )
}
"""Tables 1 to 5 by name."""
