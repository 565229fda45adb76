"""What all trainings of the ablations share: their data, their budget, and what they tune over."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Final, Literal, final, get_args

Precision = Literal["no", "bf16"]

_SEVERAL: Final = ("rates", "bs", "taus")
_FROM_ZERO: Final = ("image_blocks", "text_blocks", "data_seed")
_DATA: Final = ("groups", "validation", "test", "pool", "data_seed")
_SHARES: Final = (1 / 32, 1 / 16, 1 / 8, 3 / 16, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1)


@final
@dataclass(frozen=True, kw_only=True)
class Suite:
    """Sizes of the suite; each field's annotation says what it means.

    Raises:
        ValueError: A value is not a number of its kind, or out of range.
    """

    steps: Annotated[int, "optimiser steps of each training"] = 300
    long_steps: Annotated[int, "steps of those far past the optimum"] = 1200
    batch_size: Annotated[int, "pairs of a batch"] = 32
    rates: Annotated[tuple[float, ...], "learning rates that every method is tuned over"] = (
        1e-5,
        3e-5,
        1e-4,
        3e-4,
        1e-3,
    )
    bs: Annotated[tuple[float, ...], "values of b that methods with a step 1 are tuned over"] = (
        0.3,
        1.0,
        3.0,
    )
    taus: Annotated[tuple[float, ...], "values of tau that they are tuned over"] = (0.2, 0.7, 2.0)
    seeds: Annotated[int, "trainings of each cell of Tables 2 and 5"] = 5
    other_seeds: Annotated[int, "trainings of each cell elsewhere"] = 3
    groups: Annotated[int, "training groups of each kind of data"] = 200
    validation: Annotated[int, "validation groups, and training groups to measure the fit on"] = 100
    test: Annotated[int, "test groups"] = 200
    pool: Annotated[int, "weak views cached of each image, from which every step takes some"] = 8
    image_blocks: Annotated[int, "last image blocks that are trained, in both models"] = 2
    text_blocks: Annotated[int, "last text blocks that are trained, in both models"] = 2
    data_seed: Annotated[int, "seed of the data and of the pool of views"] = 0
    mixed_precision: Annotated[
        Precision, "no, or bf16 where units multiply it; measurements are in float32"
    ] = "no"

    def __post_init__(self) -> None:
        """Check every value; a single number stands for several."""
        for field in fields(self):
            name, value = field.name, getattr(self, field.name)
            if name == "mixed_precision":
                if value not in get_args(Precision):
                    raise ValueError(f"{name} is {value!r}; expected no or bf16")
                continue
            if name in _SEVERAL:
                values = value if isinstance(value, tuple) else (value,)
                if not values or not all(_is_number(each) and each > 0 for each in values):
                    raise ValueError(f"{name} is {value!r}; expected numbers above 0")
                # A frozen dataclass sets its fields this way.
                object.__setattr__(self, name, tuple(sorted(set(map(float, values)))))
                continue
            least = 0 if name in _FROM_ZERO else 1
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} is {value!r}; expected a whole number, {least} or more")

    def described(self) -> dict[str, object]:
        """What a training's result depends on, in addition to its cell."""
        return {name: getattr(self, name) for name in _DATA}


def watch_steps(steps: int) -> tuple[int, ...]:
    """After which steps a training is looked at: early ones more densely, and the last."""
    return tuple(sorted({max(1, round(share * steps)) for share in _SHARES}))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
