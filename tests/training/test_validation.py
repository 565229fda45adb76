"""Accuracy of a model in training: NaN of the model is no broken picture."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from helpers.ranked import ranked_groups
from helpers.tiny import tiny_clip

from stablepref.data.groups import RankedGroup
from stablepref.models.clip import CLIPScorer
from stablepref.training.guards import LeftOut, Watch
from stablepref.training.loader import ShareReader
from stablepref.training.step import ViewScores
from stablepref.training.validation import validation_accuracy, validation_groups


@pytest.fixture
def accelerator() -> Accelerator:
    return Accelerator(cpu=True)


def accuracy(
    accelerator: Accelerator,
    groups: list[RankedGroup],
    *,
    scorer: CLIPScorer | None = None,
    left_out: LeftOut | None = None,
    **options: Any,  # noqa: ANN401 (passed through)
) -> float:
    return validation_accuracy(
        accelerator,
        accelerator.prepare(ViewScores(scorer or tiny_clip())),
        ShareReader(groups, process=0, processes=1, workers=0),
        watch=Watch(groups, Path("nowhere")),
        left_out=left_out or LeftOut(groups),
        step=7,
        batch_size=4,
        **options,
    )


def naive(groups: list[RankedGroup]) -> float:
    """Every untied pair of arrays, one after the other."""
    scorer, found = tiny_clip(), []
    for group in groups:
        usable = {i: image for i, image in enumerate(group.images) if not isinstance(image, str)}
        scores = {
            i: scorer.score(torch.from_numpy(image).permute(2, 0, 1) / 255, group.prompt)
            for i, image in usable.items()
        }
        found += [
            float(scores[i] > scores[j])
            for i in usable
            for j in usable
            if group.ranks[i] < group.ranks[j]
        ]
    return sum(found) / len(found)


@pytest.mark.parametrize("micro_batch_size", [None, 2])
def test_it_is_the_share_of_pairs_in_order(
    accelerator: Accelerator, micro_batch_size: int | None
) -> None:
    groups = ranked_groups(9, seed=3)
    expected = naive(groups)
    assert 0 < expected < 1
    found = accuracy(accelerator, groups, micro_batch_size=micro_batch_size)
    assert found == pytest.approx(expected)


def test_equal_scores_count_one_half(accelerator: Accelerator) -> None:
    image = ranked_groups(1)[0].images[0]
    assert accuracy(accelerator, [RankedGroup("a", (image, image), (1, 2))]) == 0.5


def test_pairs_of_broken_images_are_left_out_and_told_once(
    accelerator: Accelerator, caplog: pytest.LogCaptureFixture
) -> None:
    groups = ranked_groups(6, seed=3)
    groups[5] = RankedGroup("a", ("nowhere.png", *groups[5].images[1:]), groups[5].ranks)
    left_out = LeftOut(groups)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            found = accuracy(accelerator, groups, left_out=left_out)
    assert found == pytest.approx(naive(groups))
    assert left_out.images == {(5, 0)}
    assert caplog.text.count("nowhere.png") == 1


def test_scores_that_are_not_finite_are_the_models_fault(accelerator: Accelerator) -> None:
    groups = ranked_groups(3)
    groups[0] = RankedGroup("a", (groups[0].images[0], "nowhere.png"), (1, 2))
    scorer = tiny_clip()
    with torch.no_grad():
        scorer.model.visual.proj.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="after step 7 scores are not finite") as error:
        accuracy(accelerator, groups, scorer=scorer)
    assert "group 1, image 0" in str(error.value)
    assert "nowhere.png" not in str(error.value)


def test_no_image_that_can_be_read_is_an_error_that_names_some(accelerator: Accelerator) -> None:
    groups = [RankedGroup("a", ("nowhere.png", "gone.png"), (1, 2))]
    with pytest.raises(ValueError, match=r"no untied pair of the validation .*nowhere.png"):
        accuracy(accelerator, groups)


def test_a_validation_without_an_untied_pair_is_refused() -> None:
    assert validation_groups(None) == []
    fine = ranked_groups(2)
    assert validation_groups(iter(fine)) == fine
    with pytest.raises(ValueError, match="the validation has 0 groups and no pair"):
        validation_groups([])
    with pytest.raises(ValueError, match="the validation has 1 groups and no pair"):
        validation_groups([RankedGroup("a", ("x.png", "y.png"), (1, 1))])
