"""Shares of batches: the same ones however many threads decode ahead, and only so far ahead."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import count, islice

import numpy as np
import pytest
import torch
from helpers.ranked import ranked_groups

from stablepref.data.groups import RankedGroup
from stablepref.training import loader
from stablepref.training.loader import Share, ShareReader, shares
from stablepref.training.pairs import Batch, PairBatches, every_batch

GROUPS = ranked_groups()


def reader(
    groups: list[RankedGroup] = GROUPS, *, workers: int, process: int = 0, processes: int = 1
) -> ShareReader:
    return ShareReader(groups, process=process, processes=processes, workers=workers)


def numbered(steps: int, batch_size: int = 5) -> Iterator[tuple[int, Batch]]:
    batches = PairBatches(GROUPS, batch_size=batch_size)
    return ((step, batches[step]) for step in range(steps))


def assert_same(one: Share, other: Share) -> None:
    assert one.batch.images == other.batch.images
    assert (one.prompts, one.largest, one.errors) == (other.prompts, other.largest, other.errors)
    for left, right in zip(one.pixels, other.pixels, strict=True):
        assert torch.equal(left, right)
    for name in ("usable", "boxes", "flips"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name


@pytest.mark.parametrize("workers", [1, 3, 16])
def test_threads_change_nothing(workers: int) -> None:
    options = {"views": 2, "seed": 4, "ratio": (0.8, 1.2), "hflip": True}
    plain = list(reader(workers=0).read(numbered(7), **options))
    ahead = list(reader(workers=workers).read(numbered(7), **options))
    assert [step for step, _ in ahead] == [step for step, _ in plain] == list(range(7))
    for (_, one), (_, other) in zip(ahead, plain, strict=True):
        assert_same(one, other)


def test_pixels_and_prompts_are_those_of_the_images() -> None:
    ((_, share),) = reader(workers=2).read(numbered(1))
    for (group, place), pixels, prompt in zip(
        share.batch.images, share.pixels, share.prompts, strict=True
    ):
        assert np.array_equal(pixels.permute(1, 2, 0).numpy(), GROUPS[group].images[place])
        assert prompt == GROUPS[group].prompt
    assert torch.equal(share.boxes, torch.tensor([0.0, 0, 1, 1]).expand(len(share.pixels), 1, 4))
    assert not share.flips.any()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_process_without_images_keeps_its_steps(workers: int) -> None:
    """One pair has two images: of three processes the last has none."""
    found = [
        list(reader(workers=workers, process=process, processes=3).read(numbered(3, 1)))
        for process in range(3)
    ]
    assert [[len(share.pixels) for _, share in steps] for steps in found] == [
        [1, 1, 1], [1, 1, 1], [0, 0, 0],
    ]  # fmt: skip
    assert [step for step, _ in found[2]] == [0, 1, 2]
    assert {share.largest for steps in found for _, share in steps} == {1}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_is_an_error_of_its_own_share(workers: int) -> None:
    groups = list(GROUPS)
    groups[2] = replace(groups[2], images=("gone.png", *groups[2].images[1:]))
    for _, share in reader(groups, workers=workers).read(enumerate(every_batch(groups, 2))):
        broken = [image == (2, 0) for image in share.batch.images]
        assert share.usable.tolist() == [not odd for odd in broken]
        assert list(share.errors) == [(2, 0)] * sum(broken)
        assert all("gone.png" in error for error in share.errors.values())
        assert all(
            pixels.shape == (3, 1, 1)
            for pixels, odd in zip(share.pixels, broken, strict=True)
            if odd
        )


def test_only_a_few_steps_are_read_ahead_and_the_rest_is_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At any time the share that is used, and `STEPS_AHEAD` more; the batches are endless."""
    batch = PairBatches(GROUPS, batch_size=5)[0]
    size = len(batch.images)
    begun: list[float] = []
    decode = loader.decode

    def counted(source: object) -> object:
        begun.append(time.monotonic())
        return decode(source)  # type: ignore[arg-type] # passed through

    monkeypatch.setattr(loader, "decode", counted)
    steps = reader(workers=4).read((step, batch) for step in count())
    for taken in range(1, 4):
        next(steps)
        time.sleep(0.1)
        assert taken * size <= len(begun) <= (taken + loader.STEPS_AHEAD) * size
    assert len(begun) > 3 * size, "nothing was read ahead"
    steps.close()
    after = len(begun)
    time.sleep(0.1)
    assert len(begun) == after
    assert not [t for t in threading.enumerate() if t.name.startswith("stablepref-ahead")]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_of_the_batches_comes_after_those_before(workers: int) -> None:
    def failing() -> Iterator[tuple[int, Batch]]:
        yield from numbered(3)
        raise RuntimeError("no more")

    steps = reader(workers=workers).read(failing())
    assert [step for step, _ in islice(steps, 3)] == [0, 1, 2]
    with pytest.raises(RuntimeError, match="no more"):
        next(steps)


def test_without_batches_there_is_nothing() -> None:
    assert list(reader(workers=2).read([])) == []


@pytest.mark.parametrize(("items", "processes"), [(10, 1), (10, 3), (2, 3), (0, 2), (9, 9)])
def test_shares_are_consecutive_and_as_equal_as_can_be(items: int, processes: int) -> None:
    found = shares(items, processes)
    assert [i for share in found for i in share] == list(range(items))
    sizes = [len(share) for share in found]
    assert len(sizes) == processes
    assert sizes == sorted(sizes, reverse=True)
    assert max(sizes) - min(sizes) <= 1
