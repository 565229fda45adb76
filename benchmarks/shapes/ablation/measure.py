"""What is measured of a model in the ablations, on cached tokens, by the library's agreement."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from stablepref.evaluation.agreement import flip_share, pairwise_accuracy

from .cells import mean_values
from .towers import image_features, plain_attention, prompt_features

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stablepref.data.groups import RankedGroup
    from stablepref.evaluation.means import Array
    from stablepref.models.clip import CLIPScorer

    from .features import Cached

_TOGETHER = 256


class Data(NamedTuple):
    """What a training reads.

    Attributes:
        train: Training groups with their pool of views.
        validation: Validation groups.
        tests: Test groups of each setting; the variants after the image itself are `perturbations`.
        perturbations: Names of those that were cached, in the variants' order.
    """

    train: Cached
    validation: Cached
    tests: Mapping[str, Cached]
    perturbations: Sequence[str]


@torch.inference_mode()
def variant_scores(
    model: CLIPScorer, cached: Cached, *, variant: int = 0, groups: int | None = None
) -> list[Array]:
    """Scores of each group's images.

    Args:
        model: The model.
        cached: Groups.
        variant: Which variant of the images.
        groups: Number of groups, from the first on; None for all.
    """
    groups = len(cached.groups) if groups is None else min(groups, len(cached.groups))
    first = cached.first[: groups + 1]
    owner = np.repeat(np.arange(groups), np.diff(first))
    parts = []
    with plain_attention(model.device):
        prompts = prompt_features(model, cached.texts, trained=cached.trained[1])
        for start in range(0, len(owner), _TOGETHER):
            rows = slice(start, min(start + _TOGETHER, len(owner)))
            tokens = torch.from_numpy(np.array(cached.tokens[rows, variant])).to(model.device)
            images = image_features(model, tokens, trained=cached.trained[0])
            parts.append(model.match(images, prompts[torch.from_numpy(owner[rows])]).cpu())
    return np.split(torch.cat(parts).double().numpy(), first[1:-1])


def validation_measures(model: CLIPScorer, data: Data) -> tuple[dict[str, float], int]:
    """Agreement on the validation groups, and how many images that encoded.

    Returns:
        "people", with the annotators' mean ranks, which is what methods are chosen by, and
        "oracle", with the truth.
    """
    held_out = data.validation
    scores = variant_scores(model, held_out)
    found = {
        "people": pairwise_accuracy(scores, _ranks(held_out.groups)).value,
        "oracle": pairwise_accuracy(scores, _ranks(held_out.truth)).value,
    }
    return found, int(held_out.first[-1])


def tested_measures(model: CLIPScorer, data: Data) -> tuple[dict[str, object], int]:
    """Agreement on test groups, prompt by prompt, and how many images that encoded.

    Returns:
        By setting "oracle" and "people", as sums and counts; and "fit": with the single
        annotators of as many training groups as there are validation groups.
    """
    found: dict[str, object] = {}
    count = 0
    for setting, cached in data.tests.items():
        scores = variant_scores(model, cached)
        found[setting] = {
            "people": mean_values(pairwise_accuracy(scores, _ranks(cached.groups))),
            "oracle": mean_values(pairwise_accuracy(scores, _ranks(cached.truth))),
        }
        count += int(cached.first[-1])
    some = min(len(data.validation.groups), len(data.train.groups))
    scores = variant_scores(model, data.train, groups=some)
    fit = pairwise_accuracy(scores, _ranks(data.train.groups[:some]))
    return found | {"fit": mean_values(fit)}, count + int(data.train.first[some])


def disturbed_measures(
    model: CLIPScorer, data: Data, setting: str
) -> tuple[dict[str, object], int]:
    """Agreement with the truth under perturbations, and pairs that change their order.

    Returns:
        By name of the perturbation "oracle", "people" and "flips", as sums and counts; flips of
        the pairs that the oracle does not tie.
    """
    cached = data.tests[setting]
    truth, people = _ranks(cached.truth), _ranks(cached.groups)
    before = variant_scores(model, cached)
    found: dict[str, object] = {}
    for variant, name in enumerate(data.perturbations, start=1):
        after = variant_scores(model, cached, variant=variant)
        found[name] = {
            "oracle": mean_values(pairwise_accuracy(after, truth)),
            "people": mean_values(pairwise_accuracy(after, people)),
            "flips": mean_values(flip_share(before, after, truth)),
        }
    return found, int(cached.first[-1]) * (1 + len(data.perturbations))


def _ranks(groups: Sequence[RankedGroup]) -> list[Array]:
    return [np.asarray(group.ranks, dtype=np.float64) for group in groups]
