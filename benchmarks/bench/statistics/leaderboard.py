"""How models score on average: over all prompts, and over those of each category or style."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Unpack, final

import numpy as np

from .resampling import mean_intervals

if TYPE_CHECKING:
    from stablepref.evaluation.means import BootstrapOptions

    from ..score_table import ScoreTable


@final
@dataclass(frozen=True)
class Standing:
    """A model's mean score.

    Attributes:
        model: The model.
        scorer: The scorer.
        label: The label that prompts are grouped by, such as "category"; "" for all prompts.
        value: The label's value; "" for all prompts.
        mean: Mean over prompts of the mean over each prompt's images, in the scorer's unit; NaN
            where nothing could be scored.
        low: Lower bound of the bootstrap interval over prompts; NaN with fewer than two.
        high: Upper bound.
        prompts: How many prompts have a score.
        images: How many images have a score.
        failed: Images without one.
    """

    model: str
    scorer: str
    label: str
    value: str
    mean: float
    low: float
    high: float
    prompts: int
    images: int
    failed: int


def standings(table: ScoreTable, **options: Unpack[BootstrapOptions]) -> tuple[Standing, ...]:
    """Every model's mean under every scorer over all prompts, the best first.

    Args:
        table: The scores.
        options: Of the intervals, see `BootstrapOptions`. All models share the drawn prompts.

    Returns:
        Rows scorer by scorer in the table's order; in each, models by their means.
    """
    rows: list[Standing] = []
    everything = list(range(len(table.prompts)))
    for scorer in table.scorers:
        found = _standings(table, scorer, ("", ""), everything, options)
        rows += sorted(found, key=lambda row: -np.nan_to_num(row.mean, nan=-np.inf))
    return tuple(rows)


def category_standings(
    table: ScoreTable, **options: Unpack[BootstrapOptions]
) -> tuple[Standing, ...]:
    """Every model's mean over the prompts of each category, style or other label of the set.

    Args:
        table: The scores.
        options: Of the intervals, see `BootstrapOptions`. All models share the drawn prompts.

    Returns:
        Rows scorer by scorer, label by label, value by value, in the order of the prompts, and then
        model by model in the table's order.
    """
    rows: list[Standing] = []
    for scorer in table.scorers:
        for label, values in table.labels().items():
            for value, places in values.items():
                rows += _standings(table, scorer, (label, value), places, options)
    return tuple(rows)


def _standings(
    table: ScoreTable,
    scorer: str,
    group: tuple[str, str],
    places: list[int],
    options: BootstrapOptions,
) -> list[Standing]:
    """Each model's standing over the prompts of these places."""
    means = table.means(scorer)[:, places]
    images = (~np.isnan(table.of(scorer)[:, places])).sum(axis=(1, 2))
    keys = {table.prompts[place].key for place in places}
    failed = Counter(
        one.model for one in table.failures if one.scorer == scorer and one.prompt in keys
    )
    intervals = mean_intervals(means, [table.words[place] for place in places], **options)
    return [
        Standing(
            model=model,
            scorer=scorer,
            label=group[0],
            value=group[1],
            mean=intervals[row].value,
            low=intervals[row].low,
            high=intervals[row].high,
            prompts=int((~np.isnan(means[row])).sum()),
            images=int(images[row]),
            failed=failed[model],
        )
        for row, model in enumerate(table.models)
    ]
