"""The cache of frozen blocks holds what running them view by view gives, whole or not at all."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.ranked import ranked_groups
from helpers.tiny import tiny_clip
from PIL import Image

from stablepref.augment.perturbations import PERTURBATIONS
from stablepref.augment.views import weak_view_boxes
from stablepref.benchmarks.shapes.ablation import features as ablation_features
from stablepref.benchmarks.shapes.ablation.features import cache_groups, pool_boxes, pool_choice
from stablepref.benchmarks.shapes.ablation.towers import frozen_images

GROUPS = ranked_groups()
TRAINED = (1, 1)


def test_views_are_those_of_a_loop(tmp_path: Path) -> None:
    scorer = tiny_clip()
    told: list[int] = []
    cached = cache_groups(
        scorer, GROUPS, GROUPS, tmp_path / "a.npy", trained=TRAINED, pool=3, seed=5,
        advance=told.append,
    )  # fmt: skip
    images = [image for group in GROUPS for image in group.images]
    assert cached.tokens.shape[:2] == (len(images), 4)
    assert cached.first.tolist() == [0, 2, 5, 9, 11]
    assert (cached.pool, sum(told)) == (3, 4 * len(images))
    for item, image in enumerate(images):
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
        boxes, flips = weak_view_boxes([item], 3, seed=5, area=(0.85, 1.0), hflip=False)
        assert not flips.any()
        inputs = [
            scorer.preprocess(pixels),
            *(scorer.preprocess(pixels, box[None, None])[:, 0] for box in boxes[0]),
        ]
        for variant, one in enumerate(inputs):
            with torch.no_grad():
                (expected,) = frozen_images(scorer, one, trained=1)
            found = torch.tensor(cached.tokens[item, variant])
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_disturbed_images_are_prepared_exactly(tmp_path: Path) -> None:
    scorer, names = tiny_clip(), ["crop-0.9", "jpeg-50"]
    cached = cache_groups(
        scorer, GROUPS[:1], GROUPS[:1], tmp_path / "a.npy", trained=TRAINED, perturbations=names
    )
    for item, array in enumerate(GROUPS[0].images):
        image = Image.fromarray(array)
        for variant, one in enumerate([image, *(PERTURBATIONS[name](image) for name in names)]):
            with torch.no_grad():
                (expected,) = frozen_images(scorer, scorer.preprocess.exact(one)[None], trained=1)
            found = torch.tensor(cached.tokens[item, variant])
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="expected one"):
        cache_groups(
            scorer, GROUPS, GROUPS, tmp_path / "b.npy", trained=TRAINED, pool=1, perturbations=names
        )


def test_a_kill_leaves_no_file_and_a_file_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer, path = tiny_clip(), tmp_path / "deep" / "a.npy"
    real, calls = frozen_images, []

    def counted(*arguments: object, **named: object) -> torch.Tensor:
        calls.append(named)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments, **named)  # type: ignore[arg-type] # handed on

    monkeypatch.setattr(ablation_features, "frozen_images", counted)
    monkeypatch.setattr(ablation_features, "_TOGETHER", 8)
    with pytest.raises(KeyboardInterrupt):
        cache_groups(scorer, GROUPS, GROUPS, path, trained=TRAINED, pool=3)
    assert not path.exists()
    first = cache_groups(scorer, GROUPS, GROUPS, path, trained=TRAINED, pool=3)
    made = len(calls)
    again = cache_groups(scorer, GROUPS, GROUPS, path, trained=TRAINED, pool=3)
    assert len(calls) == made > 2
    assert np.array_equal(first.tokens, again.tokens)
    assert [each.name for each in path.parent.iterdir()] == ["a.npy"]


def test_a_step_takes_different_views_that_depend_on_nothing_else() -> None:
    chosen = pool_choice(range(50), 3, 8, seed=1, step=4)
    assert chosen.shape == (50, 3)
    assert all(len(set(row)) == 3 for row in chosen.tolist())
    assert np.array_equal(pool_choice([7, 3], 3, 8, seed=1, step=4), chosen[[7, 3]])
    # Fewer views are the first of more.
    assert np.array_equal(pool_choice(range(50), 2, 8, seed=1, step=4), chosen[:, :2])
    others = [pool_choice(range(50), 3, 8, seed=seed, step=step) for seed, step in ((1, 5), (2, 4))]
    assert not any(np.array_equal(one, other) for one, other in pairwise([chosen, *others]))
    # Each view as often as any: of 24,000 picks 3,000, with a standard deviation of 43.
    counts = np.bincount(pool_choice(range(8000), 3, 8, seed=0, step=0).ravel(), minlength=8)
    assert np.abs(counts - 3000).max() < 5 * 43
    assert pool_choice([1, 2], 0, 8, seed=0, step=0).shape == (2, 0)
    with pytest.raises(ValueError, match="9 weak views of each image, but its pool has 8"):
        pool_choice([0], 9, 8, seed=0, step=0)


def test_the_image_itself_comes_before_its_views() -> None:
    boxes = pool_boxes([3, 9], 2, seed=0)
    assert boxes[:, 0].tolist() == [[0, 0, 1, 1]] * 2
    area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    assert ((area[:, 1:] >= 0.85) & (area[:, 1:] < 1)).all()
