"""Which pairs a step sees, and what the data's fingerprint depends on."""

import io
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.ranked import ranked_groups
from PIL import Image

from stablepref.data.groups import RankedGroup
from stablepref.recipes import Batching
from stablepref.training.pairs import Batch, PairBatches, collate, every_batch, fingerprint


def pairs_of(batch: Batch) -> list[tuple[int, int, int]]:
    """Group, place of the better image and of the worse, of each pair."""
    found = []
    for better, worse in zip(batch.better.tolist(), batch.worse.tolist(), strict=True):
        (group, one), (same, other) = batch.images[better], batch.images[worse]
        assert group == same
        found.append((group, one, other))
    return found


def all_pairs(groups: list[RankedGroup]) -> Counter[tuple[int, int, int]]:
    return Counter(
        (number, i, j)
        for number, group in enumerate(groups)
        for i, better in enumerate(group.ranks)
        for j, worse in enumerate(group.ranks)
        if better < worse
    )


@pytest.mark.parametrize("batching", ["groups", "pairs"])
def test_every_pair_comes_once_per_epoch(batching: Batching) -> None:
    groups = ranked_groups(7)
    batches = PairBatches(groups, batch_size=4, batching=batching)
    expected = all_pairs(groups)
    assert len(batches) == expected.total() == 17
    seen = [pair for step in range(17) for pair in pairs_of(batches[step])]  # 4 epochs of 17
    orders = []
    for epoch in range(4):
        part = seen[epoch * 17 : (epoch + 1) * 17]
        assert Counter(part) == expected
        orders.append(tuple(part))
    assert len(set(orders)) == 4


def test_groups_stay_together_and_pairs_do_not() -> None:
    groups = ranked_groups(12)
    changes = {}
    both: tuple[Batching, ...] = ("groups", "pairs")
    for batching in both:
        batches = PairBatches(groups, batch_size=1, batching=batching)
        order = [pairs_of(batches[step])[0][0] for step in range(len(batches))]
        changes[batching] = sum(a != b for a, b in pairwise(order))
    assert changes["groups"] == 11
    assert changes["pairs"] > 20


def test_ties_take_part_where_asked_for() -> None:
    groups = [RankedGroup("a", tuple(ranked_groups(3)[2].images), (1, 2, 2, 3))]
    labels = PairBatches(groups, batch_size=6, ties=True)[0].label
    assert sorted(labels.tolist()) == [0.5, 1, 1, 1, 1, 1]
    assert len(PairBatches(groups, batch_size=5)) == 5


def test_a_shared_image_is_listed_once() -> None:
    batch = collate(np.array([(3, 0, 1), (3, 0, 2), (5, 1, 0)]), np.ones(3, dtype=np.float32))
    assert batch.images == [(3, 0), (3, 1), (3, 2), (5, 0), (5, 1)]
    assert (batch.better.tolist(), batch.worse.tolist()) == ([0, 0, 4], [1, 2, 3])


def test_validation_sees_every_untied_pair_once() -> None:
    groups = ranked_groups(5)
    found = Counter(pair for batch in every_batch(groups, 4) for pair in pairs_of(batch))
    assert found == all_pairs(groups)


def one(image: object) -> str:
    return fingerprint([RankedGroup("a", (image, "other.png"), (1, 2))])


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (2, 2), (value, 0, 0)).save(file, "PNG")
    return file.getvalue()


def test_of_files_the_name_counts_and_of_others_the_content(tmp_path: Path) -> None:
    assert one("there/a.png") == one(tmp_path / "a.png") != one("b.png")
    assert one(png(1)) == one({"bytes": png(1), "path": None}) != one(png(2))
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert one(pixels) == one(Image.fromarray(pixels)) == one(torch.from_numpy(pixels))
    assert one(pixels) != one(pixels[::-1])


def test_open_files_count_by_their_content_and_stay_where_they_stand() -> None:
    file = io.BytesIO(png(1))
    file.seek(5)
    assert one(file) == one(io.BytesIO(png(1))) == one(png(1)) != one(io.BytesIO(png(2)))
    assert file.tell() == 5
    assert one(io.StringIO("no bytes")) == one(io.StringIO("no bytes"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_tensors_of_any_type_count_by_their_content(dtype: torch.dtype) -> None:
    pixels = (torch.arange(12) / 16).reshape(3, 2, 2).to(dtype)
    assert one(pixels) == one(pixels.clone().requires_grad_()) != one(pixels.flip(0))


def test_what_is_no_image_counts_by_its_kind() -> None:
    """By its address, which differs from run to run, resuming would be refused."""
    some, other = object(), object()
    assert one(some) == one(other) != one(None)


def test_prompts_ranks_and_order_count() -> None:
    group = RankedGroup("a", ("x.png", "y.png"), (1, 2))
    others = [
        RankedGroup("b", ("x.png", "y.png"), (1, 2)),
        RankedGroup("a", ("x.png", "y.png"), (2, 1)),
        RankedGroup("a", ("y.png", "x.png"), (1, 2)),
    ]
    assert len({fingerprint([g]) for g in (group, *others)}) == 4
