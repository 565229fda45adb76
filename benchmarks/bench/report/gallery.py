"""What the gallery of a report knows of each prompt, as plain values for the page's script."""

from __future__ import annotations

import math
from itertools import combinations
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from stablepref.evaluation.means import Array

    from ..score_table import ScoreTable

_TWO: Final = 2
_DIGITS: Final = 9
"""Enough to tell any two float32 numbers apart, so that the page counts the same ties."""


def gallery_data(
    table: ScoreTable, addresses: Mapping[tuple[str, int, int], tuple[str | None, str | None]]
) -> dict[str, object]:
    """All that the gallery shows and sorts by, ready for JSON.

    Args:
        table: The scores.
        addresses: URL or reason of every picture by its key, see `page_addresses`.

    Returns:
        `models` and `scorers`, names; `prompts`, words, and `keys`, in the set's order; `labels`,
        places of the prompts as in `ScoreTable.labels`; `pictures[model][prompt][image]`, a URL or
        None; `scores[model][scorer][prompt][image]`, a number or None; `reasons`, why there is no
        picture or score, by "model prompt image" as places; `disagreement[prompt]`, see
        `scorer_disagreement`, a number or None.
    """
    models = {name: place for place, name in enumerate(table.models)}
    prompts = {one.key: place for place, one in enumerate(table.prompts)}
    pictures: list[list[list[str | None]]] = [[[] for _ in prompts] for _ in models]
    reasons: dict[str, dict[str, None]] = {}
    for (model, place, number), (address, reason) in sorted(addresses.items()):
        row = pictures[models[model]][place]
        row += [None] * (number + 1 - len(row))
        row[number] = address
        if reason is not None:
            reasons.setdefault(f"{models[model]} {place} {number}", {})[reason] = None
    for one in table.failures:
        key = f"{models[one.model]} {prompts[one.prompt]} {one.image}"
        known = reasons.setdefault(key, {})
        if one.reason not in known:
            known[f"{one.scorer}: {one.reason}"] = None
    return {
        "models": list(table.models),
        "scorers": list(table.scorers),
        "prompts": [one.prompt for one in table.prompts],
        "keys": list(prompts),
        "labels": table.labels(),
        "pictures": pictures,
        "scores": [
            [
                [
                    [_number(table.scores[m, s, p, i]) for i in range(len(pictures[m][p]))]
                    for p in range(len(prompts))
                ]
                for s in range(len(table.scorers))
            ]
            for m in range(len(models))
        ],
        "reasons": {key: "; ".join(known) for key, known in reasons.items()},
        "disagreement": [_number(value) for value in scorer_disagreement(table)],
    }


def scorer_disagreement(table: ScoreTable) -> Array:
    """How differently the scorers see the models' images of each prompt, `(prompts,)`.

    For two scorers, each model's mean score less the prompt's mean over models, divided by the root
    mean square of these over all prompts, so that units do not count; then the root mean square of
    the two scorers' differences over models. For more scorers, the mean over pairs of them. It is 0
    where all see the same, and about the square root of 2 where they see unrelated things. NaN with
    fewer than two scorers or models that have scores.
    """
    found = []
    means = {name: table.means(name) for name in table.scorers}
    for one, other in combinations(table.scorers, _TWO):
        there = ~np.isnan(means[one]) & ~np.isnan(means[other])
        enough = there.sum(axis=0) >= _TWO
        there &= enough
        gap = _scaled(means[one], there) - _scaled(means[other], there)
        squares = np.divide(
            (gap**2).sum(axis=0),
            there.sum(axis=0),
            out=np.full(len(enough), np.nan),
            where=enough,
        )
        found.append(np.sqrt(squares))
    if not found:
        return np.full(len(table.prompts), np.nan)
    stacked = np.stack(found)
    known = ~np.isnan(stacked)
    nothing = np.full(stacked.shape[1], np.nan)
    sums = np.where(known, stacked, 0).sum(axis=0)
    return np.divide(sums, known.sum(axis=0), out=nothing, where=known.any(axis=0))


def centred(values: Array, there: NDArray[np.bool_]) -> Array:
    """Values less their prompt's mean over the models that are there, 0 where they are not.

    Args:
        values: `(models, prompts)`.
        there: Which of them count.
    """
    kept = np.where(there, values, 0)
    counts = there.sum(axis=0)
    means = np.divide(kept.sum(axis=0), counts, out=np.zeros(len(counts)), where=counts > 0)
    return np.where(there, kept - means, 0)


def _scaled(values: Array, there: NDArray[np.bool_]) -> Array:
    around = centred(values, there)
    count = there.sum()
    scale = math.sqrt((around**2).sum() / count) if count else 0.0
    return np.asarray(around / scale) if scale else around


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(f"{value:.{_DIGITS}g}")
