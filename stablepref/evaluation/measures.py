"""Every measure of a scorer's agreement with people, and of its stability, from its scores."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stablepref.augment.perturbations import MIRRORING
from stablepref.augment.views import mentions_side
from stablepref.evaluation.agreement import (
    flip_share,
    kendall_tau,
    pair_places,
    pair_signs,
    pairwise_accuracy,
    spearman,
    top1,
    untied_margins,
)
from stablepref.evaluation.annotators import accuracy_by_agreement, single_vs_rest, single_vs_single
from stablepref.evaluation.calibration import reliability

if TYPE_CHECKING:
    from stablepref.evaluation.agreement import TieRule
    from stablepref.evaluation.annotators import AgreementBin
    from stablepref.evaluation.calibration import Reliability
    from stablepref.evaluation.groups import ScoredGroup
    from stablepref.evaluation.means import Array, GroupMean, Interval


class ExcludedImage(NamedTuple):
    """An image that could not be scored, and counts in nothing.

    Attributes:
        group: The group's id, or its number in the data, from 1.
        image: Position in the group, from 0.
        name: Path, URL or short description.
        reason: Why.
    """

    group: str
    image: int
    name: str
    reason: str

    def __str__(self) -> str:
        """The image, its place and the reason in one line."""
        return f"{self.name} (image {self.image} of {self.group}): {self.reason}"


class Disturbed(NamedTuple):
    """A scorer under one perturbation: a row of Table 1 of *Stable Preference*.

    Attributes:
        name: The perturbation.
        accuracy: Pairwise accuracy on the perturbed images.
        before: On the images as they are, of the same groups.
        flips: Share of the pairs that people do not tie whose order changes; a pair that becomes
            tied, or stops being tied, counts one half.
        left_out: Groups that are not counted because the perturbation mirrors and their prompt
            names a side.
    """

    name: str
    accuracy: GroupMean
    before: GroupMean
    flips: GroupMean
    left_out: int

    @property
    def change(self) -> Interval:
        """The accuracy less that before, with a paired bootstrap interval over prompts."""
        return self.accuracy.difference(self.before)


@dataclass(frozen=True, eq=False)
class Measures:
    """What `stablepref.evaluation.report.EvaluationReport` holds, and what follows from it.

    A measure is a `GroupMean`: its ``value``, and its ``interval()`` by a bootstrap that draws
    whole prompts, with all groups that a prompt has. Images that could not be scored do not count,
    nor do groups of which fewer than two images are left.

    Attributes:
        model: The scorer's name.
        unit: The unit of its scores.
        preference_scale: What a difference of scores is multiplied with to be the log-odds of a
            preference; None for a scorer that was not trained on preferences.
        perturbations: Names of the perturbations, in the order of the rows of scores.
        scored: All groups with their scores.
        tie_rule: Of `accuracy`; see `stablepref.evaluation.agreement.pairwise_accuracy`.
        tie_margin: Scores that differ by at most this are tied.
        mirror_sided: Whether mirroring perturbations count for prompts that name a side too.
        mirroring: Names of the perturbations that mirror.
    """

    model: str
    unit: str
    preference_scale: float | None
    perturbations: tuple[str, ...]
    scored: tuple[ScoredGroup, ...]
    tie_rule: TieRule = "half"
    tie_margin: float = 0.0
    mirror_sided: bool = False
    mirroring: frozenset[str] = MIRRORING

    # What is counted.

    @cached_property
    def groups(self) -> list[ScoredGroup]:
        """The groups of which two or more images were scored, without the others."""
        return [left for left in (group.without_errors() for group in self.scored) if left]

    @cached_property
    def prompts(self) -> list[str]:
        """The prompt of each of these groups; several groups may share one."""
        return [group.prompt for group in self.groups]

    @cached_property
    def excluded(self) -> list[ExcludedImage]:
        """The images that could not be scored."""
        return [
            ExcludedImage(group.label, index, group.images[index], reason)
            for group in self.scored
            for index, reason in sorted(group.errors.items())
        ]

    @property
    def pairs(self) -> int:
        """How many pairs of images people do not tie."""
        return sum(int(np.count_nonzero(pair_signs(group.ranks))) for group in self.groups)

    @property
    def ties(self) -> int:
        """How many pairs they tie."""
        return sum(math.comb(len(group.ranks), 2) for group in self.groups) - self.pairs

    # Agreement with people.

    @property
    def accuracy(self) -> float:
        """Pairwise accuracy under `tie_rule`, from 0 to 1."""
        return self.pairwise.value

    @cached_property
    def pairwise(self) -> GroupMean:
        """Pairwise accuracy under `tie_rule`."""
        return self.by_rule(self.tie_rule)

    def by_rule(self, rule: TieRule) -> GroupMean:
        """Pairwise accuracy under another rule; `tie_margin` does not exist for "hpsv2"."""
        margin = 0.0 if rule == "hpsv2" else self.tie_margin
        found = pairwise_accuracy(self._scores(0), self._ranks, rule, tie_margin=margin)
        return found.by_prompt(self.prompts)

    @cached_property
    def kendall_tau(self) -> GroupMean:
        """Mean over groups of Kendall's tau-b."""
        return kendall_tau(self._scores(0), self._ranks).by_prompt(self.prompts)

    @cached_property
    def spearman(self) -> GroupMean:
        """Mean over groups of Spearman's rho."""
        return spearman(self._scores(0), self._ranks).by_prompt(self.prompts)

    @cached_property
    def top1(self) -> GroupMean:
        """Share of groups whose best-scored image people rank best."""
        return top1(self._scores(0), self._ranks).by_prompt(self.prompts)

    # Calibration.

    @property
    def note(self) -> str:
        """Why there is no calibration, else empty."""
        if self.preference_scale is None:
            return (
                f"{self.model} was not trained on preferences, so its margin is not a probability"
            )
        return "" if self.pairs else "people tie all pairs"

    @cached_property
    def calibration(self) -> Reliability | None:
        """The probability that `compare` states, against the order of the ranks, on untied pairs.

        Where ranks are averages over several people, they are surer than one person is, whose
        choice the probability is about: `calibration_single` is that.
        """
        if self.preference_scale is None or not self.pairs:
            return None
        return reliability(
            _sigmoid(self.preference_scale * untied_margins(self._scores(0), self._ranks))
        )

    @cached_property
    def calibration_single(self) -> Reliability | None:
        """The same against the choice of each annotator, where there are annotations.

        A pair that an annotator ties counts as one half.
        """
        chances, outcomes = [], []
        for group in self.groups:
            if self.preference_scale is None or not group.annotations:
                continue
            i, j = pair_places(len(group.images))
            margins = group.scores[0][i] - group.scores[0][j]
            preferred = (1 - pair_signs(group.annotations)) / 2  # (annotators, pairs)
            chances.append(np.tile(_sigmoid(self.preference_scale * margins), len(preferred)))
            outcomes.append(preferred.ravel())
        return reliability(np.concatenate(chances), np.concatenate(outcomes)) if chances else None

    # People, where single annotators' ranks are known.

    @cached_property
    def by_agreement(self) -> list[AgreementBin]:
        """Accuracy against the annotators' majority, by its size; empty without annotations."""
        annotated = [group for group in self.groups if len(group.annotations) >= 2]
        if not annotated:
            return []
        scores = [group.scores[0] for group in annotated]
        prompts = [group.prompt for group in annotated]
        bins = accuracy_by_agreement(scores, [group.annotations for group in annotated])
        return [one._replace(accuracy=one.accuracy.by_prompt(prompts)) for one in bins]

    @cached_property
    def human(self) -> dict[str, GroupMean]:
        """How well people agree with each other on the same images; empty without annotations."""
        annotated = [group for group in self.groups if len(group.annotations) >= 2]
        if not annotated:
            return {}
        annotations = [group.annotations for group in annotated]
        prompts = [group.prompt for group in annotated]
        return {
            "single against single": single_vs_single(annotations).by_prompt(prompts),
            "single against the average of the others": single_vs_rest(annotations).by_prompt(
                prompts
            ),
        }

    # Stability.

    @cached_property
    def disturbed(self) -> list[Disturbed]:
        """The scorer under each perturbation."""
        return [self._disturbed(place, name) for place, name in enumerate(self.perturbations, 1)]

    def _disturbed(self, place: int, name: str) -> Disturbed:
        mirrors = name in self.mirroring and not self.mirror_sided
        out = [mirrors and mentions_side(group.prompt) for group in self.groups]
        # Groups stay in their places, empty, so that differences are paired.
        before, after, ranks = (
            [values[:0] if left else values for values, left in zip(column, out, strict=True)]
            for column in (self._scores(0), self._scores(place), self._ranks)
        )
        margin, prompts = self.tie_margin, self.prompts
        accuracy, unchanged = (
            pairwise_accuracy(scores, ranks, self.tie_rule, tie_margin=margin).by_prompt(prompts)
            for scores in (after, before)
        )
        return Disturbed(
            name=name,
            accuracy=accuracy,
            before=unchanged,
            flips=flip_share(before, after, ranks).by_prompt(prompts),
            left_out=sum(out),
        )

    def _scores(self, row: int) -> list[Array]:
        return [group.scores[row] for group in self.groups]

    @cached_property
    def _ranks(self) -> list[Array]:
        return [np.asarray(group.ranks, dtype=np.float64) for group in self.groups]


def _sigmoid(x: Array) -> Array:
    return (1 + np.tanh(x / 2)) / 2
