"""What a demonstration found: all that its page, its picture and its words are made of."""

from __future__ import annotations

import math
import statistics
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from stablepref.integrations.best_of_n.folder import Candidate
    from stablepref.integrations.best_of_n.selection import Selection

    from .finetune import Tuned
    from .stability import Perturbed
    from .truth import Truth


@final
@dataclass(frozen=True)
class Demo:
    """What a demonstration shows.

    Attributes:
        selection: The candidates, their scores, and the best one.
        order: Those with a score, best first.
        stability: The choice under each perturbation.
        truth: What the laboratory's oracle says of them.
        tuned: The fine-tuning; None without one.
        call: Arguments of the pipeline's call.
        page: The page about it all.
        picture: The picture to post.
    """

    selection: Selection
    order: Sequence[Candidate]
    stability: Sequence[Perturbed]
    truth: Truth
    tuned: Tuned | None
    call: Mapping[str, float]
    page: Path
    picture: Path

    @property
    def best(self) -> float:
        """The highest score."""
        return self.scores[0]

    @property
    def scores(self) -> list[float]:
        """Of the candidates that have one, best first."""
        return [candidate.score for candidate in self.order if candidate.score is not None]

    @property
    def average(self) -> float:
        """Mean of the scores."""
        return statistics.fmean(self.scores)

    @property
    def gain(self) -> float:
        """Best minus average."""
        return self.best - self.average

    @property
    def deviations(self) -> float:
        """The gain in standard deviations of the scores; 0 if they are equal."""
        deviation = statistics.pstdev(self.scores)
        return self.gain / deviation if deviation else 0.0

    @property
    def stays(self) -> int:
        """Under how many perturbations the best candidate stays so by more than the spread."""
        return sum(one.stays and not one.tie for one in self.stability)

    @property
    def ties(self) -> int:
        """Under how many the first two are within the spread, whichever of them leads."""
        return sum(one.tie for one in self.stability)

    def row(self) -> dict[str, object]:
        """All numbers, plain JSON values; what is not a number is None."""
        return {
            **self.selection.row(),
            "call": dict(self.call),
            "best": self.best,
            "average": self.average,
            "deviations": self.deviations,
            "correct": {str(index): known for index, known in self.truth.correct.items()},
            "correct_unknown": self.truth.unknown,
            "stability": [_row(one) for one in self.stability],
            "finetuning": None if self.tuned is None else self.tuned.row(),
        }


def _row(one: Perturbed) -> dict[str, object]:
    known = None if math.isnan(one.correlation) else one.correlation
    return asdict(one) | {"correlation": known}
