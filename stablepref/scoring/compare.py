"""Which image people would prefer: an order of many, or a choice between two that may be a tie."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Unpack, final

import torch

from stablepref.output.tables import Table
from stablepref.output.text import shorten
from stablepref.scoring.ranking import Ranking
from stablepref.scoring.stream import stream, warn_of_nan
from stablepref.scoring.uncertainty import preference_probability

if TYPE_CHECKING:
    from stablepref.scoring.contract import BatchScorer, ScoreOptions

TIE_VIEWS = 8


@final
@dataclass(frozen=True)
class Comparison:
    """The choice between images a and b.

    Attributes:
        preferred: "a", "b" or "tie": a margin within the spread that harmless disturbances cause is
            no preference.
        probability: That a person prefers a, by the model's own training objective; None for
            models that were not trained on preferences, with the reason in `note`. It is
            sigmoid(preference_scale x margin), and for models that predict standard deviations
            the mean of that over a normal margin; see `preference_probability`.
        margin: Score of a minus score of b, in the model's unit.
        spread: The paper's intra-image distance (equation 6) over weak views: the mean over both
            images of their largest minus smallest score.
        scores: The scores of a and b.
        note: Why there is no probability, else empty.
        uncertainty: Standard deviation of the margin, by models that predict those of their
            scores; else None.
    """

    preferred: Literal["a", "b", "tie"]
    probability: float | None
    margin: float
    spread: float
    scores: tuple[float, float]
    note: str = ""
    uncertainty: float | None = None

    def _repr_html_(self) -> str:
        choice = "a tie" if self.preferred == "tie" else f"{self.preferred} is preferred"
        columns = ["score of a", "score of b", "margin", "spread", "probability of a"]
        row = [*self.scores, self.margin, self.spread, self.probability]
        return Table(columns=columns, rows=[row], title=choice, note=self.note).html()


def rank(
    scorer: BatchScorer,
    images: object,
    prompt: str | None = None,
    **options: Unpack[ScoreOptions],
) -> Ranking:
    """The images from best to worst; see `Scorer.rank`."""
    _require_one(scorer, prompt)
    scored = list(stream(scorer, images, prompt, **options))
    warn_of_nan([item.error for item in scored if item.error is not None], len(scored))
    ordered = sorted(scored, key=lambda item: (math.isnan(item.score), -item.score))
    return Ranking(ordered, model=scorer.name, unit=scorer.unit, images=images)


def compare(
    scorer: BatchScorer, a: object, b: object, prompt: str | None = None, *, views: int = 0
) -> Comparison:
    """Compare two images under one prompt.

    Args:
        scorer: The model that judges.
        a: One image, in any form that `stablepref.images` knows.
        b: The other.
        prompt: The prompt of both; None for scorers that use none.
        views: With k > 0, margin and spread are those of the mean over the image and k weak views.
            With 0 the margin is that of the images themselves, and the spread is measured on 8
            views. Views are the same on every call and are not mirrored when the prompt names a
            side.

    Raises:
        ImageError: An image cannot be used, or its score or that of a weak view is not finite.
        TypeError: `prompt` is not a string.
        ValueError: `a` or `b` is not exactly one image.
    """
    _require_one(scorer, prompt)
    results = list(stream(scorer, [a, b], prompt, views=views or TIE_VIEWS, on_error="raise"))
    if len(results) != 2:
        msg = f"compare takes one image for a and one for b, got {len(results)} images in all"
        raise ValueError(msg)
    first, second = ((r.score if views else r.view_scores[0]) for r in results)
    margin = first - second
    spread = sum(r.spread for r in results) / 2
    preferred: Literal["a", "b", "tie"] = "tie"
    if abs(margin) > spread:
        preferred = "a" if margin > 0 else "b"
    scale, deviation = scorer.preference_scale, None
    if scorer.predicts_uncertainty:
        own = [r.uncertainty if views else r.view_uncertainties[0] for r in results]
        deviation = math.hypot(*(one or 0.0 for one in own))
    return Comparison(
        preferred=preferred,
        probability=None if scale is None else _probability(scale, margin, deviation or 0.0),
        margin=margin,
        spread=spread,
        scores=(first, second),
        note=(
            f"{scorer.name} was not trained on preferences, so its margin is no probability"
            if scale is None
            else ""
        ),
        uncertainty=deviation,
    )


def _require_one(scorer: BatchScorer, prompt: object) -> None:
    """Refuse several prompts: scores under different ones say nothing about an order."""
    if prompt is None and not scorer.needs_prompt:
        return
    if not isinstance(prompt, str):
        msg = (
            "images are ordered under one prompt, a string; got "
            f"{type(prompt).__name__}: {shorten(repr(prompt))}"
        )
        raise TypeError(msg)


def _probability(scale: float, margin: float, deviation: float) -> float:
    """That the first is preferred, given the mean and the standard deviation of the margin."""
    if not deviation:
        return (1 + math.tanh(scale * margin / 2)) / 2
    values = (torch.tensor(scale * value, dtype=torch.float64) for value in (margin, deviation))
    return preference_probability(*values).item()
