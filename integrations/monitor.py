"""Signs of reward hacking during fine-tuning: a reward that rises while the images do not improve.

An optimiser finds what a reward model likes and people do not see: patterns that a slight crop
destroys, one image for all seeds, images that another model rates worse. Each has a number here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast, final

import torch
from torch import Tensor
from torch.nn import functional

from stablepref.images.sources import iter_sources
from stablepref.scoring.batching import BatchLimit, computed_rows, encode_prepared
from stablepref.scoring.prompts import check_prompts
from stablepref.weights.fingerprint import weights_digest

from .ensemble import Ensemble

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stablepref.scorer import Scorer

# Rules of thumb for `Report.signs`, in no paper: what counts as a change worth a look.
WIDER_GAP: Final = 1.0  # in spreads over views of the first report
LESS_DIVERSE: Final = 0.5  # of the first report's diversity
FALLEN: Final = 0.1  # standard deviations of the held-out scores of the first report


@final
@dataclass(frozen=True)
class Report:
    """What one batch of samples shows.

    Attributes:
        reward: Mean reward.
        robust: Mean reward averaged over weak views.
        gap: Mean of an image's reward minus the average over its weak views; it grows where the
            optimiser wins with what a slight crop destroys.
        spread: Mean over the images of largest minus smallest reward among image and views.
        diversity: Mean cosine distance, 0 to 2, between image features of one prompt, or of all
            images where no prompt has two; None where neither scorer has image features.
        held_out: Mean score of the second scorer, which nothing optimises; None without one.
        reward_std: Standard deviation of the rewards.
        held_out_std: Standard deviation of the held-out scores; None without one.
    """

    reward: float
    robust: float
    gap: float
    spread: float
    diversity: float | None
    held_out: float | None
    reward_std: float
    held_out_std: float | None

    def scalars(self) -> dict[str, float]:
        """The numbers by name, for a tracker."""
        return {name: value for name, value in vars(self).items() if value is not None}


@final
class RewardMonitor:
    """Watches samples of a model that is fine-tuned on a reward.

    The first report is the baseline of the later ones: take it before training, and always on the
    same prompts and seeds.

    Attributes:
        baseline: The first report; None before it.

    Args:
        scorer: The reward model that is optimised.
        held_out: A scorer that is not optimised, best of another family.
        views: Number of weak views of each image.

    Raises:
        ValueError: `views` is below 1, or `held_out` is the scorer itself or in its ensemble.
    """

    def __init__(self, scorer: Scorer, *, held_out: Scorer | None = None, views: int = 8) -> None:
        if views < 1:
            msg = f"views must be 1 or more, got {views}: the gap is measured on them"
            raise ValueError(msg)
        for one in _members(held_out):
            if any(_same(one, other) for other in _members(scorer)):
                msg = f"held_out {one.name} is optimised as well; pass another scorer, or none"
                raise ValueError(msg)
        self.scorer = scorer
        self.held_out = held_out
        self.views = views
        self.baseline: Report | None = None

    def report(self, images: Sequence[object] | Tensor, prompts: Sequence[str]) -> Report:
        """Measure a batch of samples.

        Args:
            images: A list of images in any form, or a batch.
            prompts: One each; several images of each prompt show diversity best.

        Raises:
            ImageError: An image cannot be used.
            ValueError: There are fewer than two images, or other numbers of images and prompts.
        """
        prompts = check_prompts(prompts, count=len(images))
        if len(prompts) < 2:
            msg = f"got {len(prompts)} image; a report needs at least two"
            raise ValueError(msg)
        rows = torch.tensor(
            [
                item.view_scores
                for item in self.scorer.stream(
                    images, prompts, views=self.views, on_error="raise", progress=False
                )
            ]
        )
        own, views = rows[:, 0], rows[:, 1:]
        held = None
        if self.held_out is not None:
            held = self.held_out.score(images, prompts, progress=False)
        seeing = self._seeing()
        report = Report(
            reward=own.mean().item(),
            robust=rows.mean().item(),
            gap=(own - views.mean(dim=1)).mean().item(),
            spread=(rows.amax(dim=1) - rows.amin(dim=1)).mean().item(),
            diversity=None if seeing is None else diversity(seeing, images, prompts),
            held_out=None if held is None else held.mean().item(),
            reward_std=own.std().item(),
            held_out_std=None if held is None else held.std().item(),
        )
        if self.baseline is None:
            self.baseline = report
        return report

    def _seeing(self) -> Scorer | None:
        """Whose features show how different images are: the held-out scorer's if it has any."""
        scorers = (self.held_out, self.scorer)
        return next((one for one in scorers if one is not None and not one.joint), None)

    def signs(self, report: Report) -> list[str]:
        """What in a report, beside the baseline, looks like hacking, in words; empty if nothing.

        By rules of thumb (`WIDER_GAP`, `LESS_DIVERSE`, `FALLEN`): look at the images.
        """
        first = self.baseline
        if first is None or report is first:
            return []
        found = []
        if report.gap - first.gap > WIDER_GAP * first.spread:
            found.append(
                f"the gap between reward and view-averaged reward grew from {first.gap:.3f} to "
                f"{report.gap:.3f}: the gain is in what a slight crop destroys"
            )
        less = (
            report.diversity is not None
            and first.diversity is not None
            and report.diversity < LESS_DIVERSE * first.diversity
        )
        if less:
            found.append(
                f"diversity fell from {first.diversity:.3f} to {report.diversity:.3f}: the images "
                "of a prompt become one"
            )
        if report.held_out is not None and first.held_out is not None:
            fall = first.held_out - report.held_out
            if report.reward > first.reward and fall > FALLEN * (first.held_out_std or 0.0):
                found.append(
                    f"the reward rose from {first.reward:.3f} to {report.reward:.3f} while the "
                    f"held-out score fell from {first.held_out:.3f} to {report.held_out:.3f}"
                )
        return found


def _members(scorer: Scorer | None) -> list[Scorer]:
    """The scorers of an ensemble, or the one itself."""
    if scorer is None:
        return []
    return cast("list[Scorer]", list(scorer.scorers)) if isinstance(scorer, Ensemble) else [scorer]


def _same(one: Scorer, other: Scorer) -> bool:
    """Whether two scorers are one object, or have weights, and equal ones."""
    if one is other:
        return True
    weighted = any(True for _ in one.parameters())
    return weighted and weights_digest(one) == weights_digest(other)


def diversity(scorer: Scorer, images: Sequence[object] | Tensor, prompts: Sequence[str]) -> float:
    """Mean cosine distance between a scorer's image features, over all pairs of one prompt.

    Pairs of different prompts count only where no prompt has two images.

    Args:
        scorer: Whose image features, flattened where they are several vectors.
        images: A list of images in any form, or a batch.
        prompts: One each.

    Returns:
        From 0, all alike, to 2.

    Raises:
        ValueError: The scorer's features differ in size between images.
    """
    if scorer.ragged:
        msg = (
            f"the image features of {scorer.name} differ in size, so there is no distance between "
            "them; take a scorer with one vector for each image, such as clip-vit-l-14"
        )
        raise ValueError(msg)
    features = []
    for item, row in computed_rows(
        scorer,
        ((source, "") for source in iter_sources(images)),
        limit=BatchLimit.of(scorer, None),
        function=lambda items: encode_prepared(scorer, items).flatten(1),
    ):
        if row is None:
            assert item.error is not None
            raise item.error
        features.append(row)
    unit = functional.normalize(torch.stack(features), dim=1)
    distances = 1 - unit @ unit.T
    number = {prompt: i for i, prompt in enumerate(dict.fromkeys(prompts))}
    group = torch.tensor([number[prompt] for prompt in prompts])
    pairs = (group[:, None] == group[None]).triu(diagonal=1)
    if not pairs.any():
        pairs = torch.ones_like(pairs).triu(diagonal=1)
    return distances[pairs].mean().item()
