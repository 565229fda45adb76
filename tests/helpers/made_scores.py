"""Tables of made-up scores, whose statistics can be worked out by hand."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from stablepref.benchmarks.bench.score_table import Failure, ScoreTable
from stablepref.data.prompts import ListedPrompt


def made_table(
    scores: Mapping[str, ArrayLike],
    *,
    labels: Sequence[Mapping[str, str]] = (),
    failures: Sequence[Failure] = (),
    scorer: str = "made-up",
    words: Sequence[str] = (),
) -> ScoreTable:
    """A table of one scorer: for each model `(prompts,)` or `(prompts, images)`."""
    rows = [np.asarray(own, dtype=np.float64) for own in scores.values()]
    rows = [own[:, None] if own.ndim == 1 else own for own in rows]
    images = max(own.shape[1] for own in rows)
    padded = [
        np.pad(own, [(0, 0), (0, images - own.shape[1])], constant_values=np.nan) for own in rows
    ]
    count = len(rows[0])
    labelled = labels or [{}] * count
    prompts = tuple(
        ListedPrompt(f"{place:05d}", words[place] if words else f"prompt {place}", dict(own))
        for place, own in enumerate(labelled)
    )
    return ScoreTable(
        "made-up",
        prompts,
        tuple(scores),
        {scorer: {"unit": "points"}},
        np.stack(padded)[:, None],
        tuple(failures),
    )
