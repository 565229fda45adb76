"""What the ablations compare: each method as the fields of `TrainConfig` in which it differs."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, final

from stablepref.recipes import TrainConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .suite import Precision

Margins = Literal["none", "own", "sp", "fixed"]
Model = Literal["small", "large"]

ORDER_SHARE: Final = 0.1
"""Share of the steps in step 1: 3,000 of the paper's 30,000."""
WARMUP_SHARE: Final = 0.05
"""Share of the steps over which the learning rate rises: 1,500 of 30,000."""
PAPER_MARGINS: Final = (0.3, 0.2)
"""b and τ of the paper (section 4.1)."""


@final
@dataclass(frozen=True)
class Method:
    """A way to train.

    Attributes:
        name: In commands and files.
        title: In tables.
        values: Fields of `TrainConfig` that are its own.
        margins: Where b and τ come from: "none" has no step 1 to use them in, "own" tunes them,
            "sp" takes those tuned for `sp`, "fixed" has them among its values.
        order_share: Share of the steps in step 1.
        fewer_pairs: Batches have as many images as those of "groups", and therefore fewer pairs.
        rate_of: The method whose rate it takes; "" tunes its own.
    """

    name: str
    title: str
    values: Mapping[str, Any] = field(default_factory=dict)
    margins: Margins = "none"
    order_share: float = 0.0
    fewer_pairs: bool = False
    rate_of: str = ""


_NO_VIEWS: dict[str, Any] = {"anti_interference": False, "views": 0}
_CE: dict[str, Any] = {"loss": "cross-entropy"}


def _sp(
    name: str,
    title: str,
    *,
    margins: Margins = "sp",
    order_share: float = ORDER_SHARE,
    fewer_pairs: bool = False,
    rate_of: str = "",
    **values: Any,  # noqa: ANN401 (fields have many types)
) -> Method:
    """Stable Preference with some of its values replaced."""
    return Method(name, title, values, margins, order_share, fewer_pairs, rate_of)


_METHODS = (
    Method("ce", "cross-entropy", _CE | _NO_VIEWS),
    Method("ce-augmented", "cross-entropy on weak views", _CE | _NO_VIEWS | {"augment": True}),
    Method("ce-ai", "cross-entropy + anti-interference", _CE),
    _sp("sp-no-ai", "Stable Preference, no anti-interference", margins="own", **_NO_VIEWS),
    _sp("sp", "Stable Preference", margins="own"),
    # Table 3.
    _sp("sp-inverse", "step 2 weighs small margins more", margin_weighting="inverse"),
    _sp("sp-uniform", "step 2 weighs all pairs alike", margin_weighting="uniform"),
    # Overfitting: a lower rate alone overfits less.
    _sp("sp-at-ce-rate", "Stable Preference at cross-entropy's rate", rate_of="ce"),
    # What the paper leaves open.
    _sp("sp-through", "gradients through the weights", detach_weights=False),
    _sp("sp-step1-none", "no step 1", order_share=0.0),
    _sp("sp-step1-30", "step 1 takes 30 % of the steps", order_share=0.3),
    _sp("sp-step1-all", "step 1 alone", order_share=1.0),
    _sp("sp-figure4", "b = 0.1, tau = 0.05 (Figure 4)", margins="fixed", b=0.1, tau=0.05),
    _sp("sp-paper", "b = 0.3, tau = 0.2 (the paper's)", margins="fixed", b=0.3, tau=0.2),
    _sp("sp-wide", "b = 2, tau = 1", margins="fixed", b=2.0, tau=1.0),
    _sp("sp-k1", "k = 1", views=1),
    _sp("sp-k7", "k = 7", views=7),
    Method(
        "ce-pairs",
        "cross-entropy, pairs, equal pairs",
        _CE | _NO_VIEWS | {"batching": "pairs"},
    ),
    Method(
        "ce-pairs-images",
        "cross-entropy, pairs, equal images",
        _CE | _NO_VIEWS | {"batching": "pairs"},
        fewer_pairs=True,
    ),
    _sp("sp-pairs", "pairs, equal pairs", batching="pairs"),
    _sp("sp-pairs-images", "pairs, equal images", batching="pairs", fewer_pairs=True),
)

METHODS: Final[Mapping[str, Method]] = MappingProxyType({each.name: each for each in _METHODS})
"""By name."""


@final
@dataclass(frozen=True)
class Table:
    """Which methods a question needs, on what.

    Attributes:
        methods: Names; the others are compared with the first.
        models: Sizes.
        settings: Kinds of preference data.
        seeds: "many" or "few".
        lengthened: Trained far past the optimum, with the truth measured all along.
        disturbed: Measured under perturbations.
    """

    methods: tuple[str, ...]
    models: tuple[Model, ...] = ("large",)
    settings: tuple[str, ...] = ("hpdv2", "imagereward")
    seeds: Literal["many", "few"] = "few"
    lengthened: bool = False
    disturbed: bool = False


_TABLE_2 = ("ce", "ce-ai", "sp-no-ai", "sp")
_SMALL: tuple[Model, ...] = ("small",)
TABLES: Final[Mapping[str, Table]] = MappingProxyType(
    {
        "table2": Table(_TABLE_2, models=("small", "large"), seeds="many"),
        "table1": Table(("ce-augmented", "ce", "ce-ai", "sp"), disturbed=True),
        "table3": Table(("sp", "sp-uniform", "sp-inverse")),
        "table5": Table(_TABLE_2, seeds="many"),
        "open": Table(
            (
                "sp", "sp-through", "sp-step1-none", "sp-step1-30", "sp-step1-all", "sp-figure4",
                "sp-paper", "sp-wide", "sp-k1", "sp-k7", "sp-pairs", "sp-pairs-images",
            ),
            models=_SMALL,
            settings=("hpdv2",),
        ),
        "batching": Table(
            ("ce", "ce-pairs", "ce-pairs-images"), models=_SMALL, settings=("hpdv2",)
        ),
        "overfitting": Table(("ce", "sp", "sp-at-ce-rate"), models=_SMALL, lengthened=True),
        "surface": Table(_TABLE_2, models=()),
    }
)  # fmt: skip
"""The questions by name. "surface" trains nothing of its own: it is what rates are chosen from."""


def method_config(
    method: Method,
    *,
    rate: float,
    margins: tuple[float, float],
    steps: int,
    batch_size: int,
    seed: int,
    image_blocks: int,
    text_blocks: int,
    mixed_precision: Precision = "no",
) -> TrainConfig:
    """The library's configuration of one training.

    Args:
        method: What to train by.
        rate: Peak of the learning rate.
        margins: b and τ, unless the method has its own.
        steps: In all.
        batch_size: Pairs of a batch.
        seed: Of order and views.
        image_blocks: Trained ones.
        text_blocks: Trained ones.
        mixed_precision: Of the trained blocks; weights, scores and losses are in float32.
    """
    values: dict[str, Any] = {
        "name": method.name,
        "model": "shapes-clip",
        "hflip": False,  # a mirrored picture makes "left of" wrong
        "learning_rate": rate,
        "steps": steps,
        "order_steps": round(method.order_share * steps),
        "warmup_steps": round(WARMUP_SHARE * steps),
        "batch_size": batch_size,
        "seed": seed,
        "image_blocks": image_blocks,
        "text_blocks": text_blocks,
        "mixed_precision": mixed_precision,
    }
    if method.margins in ("own", "sp"):
        values |= {"b": margins[0], "tau": margins[1]}
    return TrainConfig(**values | dict(method.values))
