"""How stable a choice is: does the best stay the best when all pictures change a little?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

import numpy as np

from stablepref.augment.perturbations import PERTURBATIONS, find_perturbation
from stablepref.augment.views import mentions_side
from stablepref.evaluation.agreement import spearman_rho
from stablepref.output.progress import progress_bar
from stablepref.scoring.compare import TIE_VIEWS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from PIL import Image

    from stablepref.evaluation.means import Array
    from stablepref.scorer import Scorer
    from stablepref.scoring.stream import Scored

WEAK_VIEWS: Final = "weak-views"
"""Name of the row in which each score is the mean over the picture and its weak views."""


@final
@dataclass(frozen=True)
class Perturbed:
    """The choice once all candidates are perturbed in the same way.

    Attributes:
        name: `WEAK_VIEWS`, or one of `stablepref.augment.perturbations.PERTURBATIONS`.
        place: Of the candidate that is best unperturbed, from 1.
        rival: Index of the best one among the others.
        margin: Score of the best unperturbed one minus score of the rival, both perturbed.
        spread: The mean over both of their largest minus smallest score over weak views
            (dist_intra, equation 6 of *Stable Preference*), as `Scorer.compare` measures it.
        correlation: Spearman's rho of all scores with those of the unperturbed pictures; NaN where
            all scores are equal.
    """

    name: str
    place: int
    rival: int
    margin: float
    spread: float
    correlation: float

    @property
    def stays(self) -> bool:
        """Whether the best candidate is the best here too."""
        return self.place == 1

    @property
    def tie(self) -> bool:
        """Whether the margin lies within the spread, which is no preference."""
        return abs(self.margin) <= self.spread


def in_words(name: str) -> str:
    """What a row does to the pictures."""
    if name == WEAK_VIEWS:
        return f"mean over {TIE_VIEWS} slight crops"
    return find_perturbation(name).words


def kept_perturbations(prompt: str) -> list[str]:
    """Names of the perturbations that leave a prompt as true as it was, in their order."""
    sided = mentions_side(prompt)
    return [name for name in PERTURBATIONS if not (sided and find_perturbation(name).mirrors)]


def stability(
    scorer: Scorer,
    prompt: str,
    indices: Sequence[int],
    picture: Callable[[int], Image.Image],
    *,
    progress: bool | None = None,
) -> list[Perturbed]:
    """Score candidates again under each perturbation, and see what becomes of the best one.

    Args:
        scorer: The model that chose.
        prompt: Of all candidates. If it names a side, no picture is mirrored.
        indices: Of the candidates, at least two, the best one first.
        picture: Gives a candidate's picture, RGB.
        progress: Show a progress bar; None shows one in a terminal once work takes seconds.

    Returns:
        `WEAK_VIEWS`, then each of `kept_perturbations(prompt)`.

    Raises:
        ValueError: A picture has no score.
    """
    names = kept_perturbations(prompt)
    total = len(indices) * (1 + len(names))
    with progress_bar("perturbing", total=total, show=progress) as advance:

        def scored(name: str, views: int) -> Iterator[Scored]:
            changed = None if name == WEAK_VIEWS else find_perturbation(name)
            pictures = (
                picture(index) if changed is None else changed(picture(index)) for index in indices
            )
            for one in scorer.stream(pictures, prompt, views=views, on_error="nan", progress=False):
                if one.error is not None:
                    msg = (
                        f"{scorer.name} has no score for candidate {indices[one.index]} under "
                        f"{name}: {one.reason}"
                    )
                    raise ValueError(msg)
                advance(1)
                yield one

        viewed = list(scored(WEAK_VIEWS, TIE_VIEWS))
        own = np.array([one.view_scores[0] for one in viewed])
        spreads = np.array([one.spread for one in viewed])
        changed = {WEAK_VIEWS: np.array([one.score for one in viewed])}
        changed |= {name: np.array([one.score for one in scored(name, 0)]) for name in names}
    return [_perturbed(name, indices, own, scores, spreads) for name, scores in changed.items()]


def _perturbed(
    name: str, indices: Sequence[int], own: Array, scores: Array, spreads: Array
) -> Perturbed:
    """What became of the first candidate, whose scores and spreads stand first."""
    rival = 1 + int(scores[1:].argmax())
    return Perturbed(
        name,
        place=1 + int((scores[1:] > scores[0]).sum()),
        rival=indices[rival],
        margin=float(scores[0] - scores[rival]),
        spread=float(spreads[[0, rival]].mean()),
        correlation=spearman_rho(own, scores),
    )
