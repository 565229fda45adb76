"""Images are decoded ahead of the scorers: in order, and only so far ahead."""

import threading

import pytest

from stablepref.benchmarks.bench import score
from stablepref.benchmarks.bench.image_folders import Picture


def test_images_are_decoded_in_order_and_one_batch_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [Picture("model", number, 0, f"{number}.png") for number in range(200)]
    begun, lock = 0, threading.Lock()

    def decode(picture: Picture) -> str:
        nonlocal begun
        with lock:
            begun += 1
        return f"pixels of {picture.image}"

    monkeypatch.setattr(score, "_decode", decode)
    found = []
    for batch, images in score._decoded(pictures):
        found += batch
        assert images == [f"pixels of {picture.image}" for picture in batch]
        assert len(batch) <= score.BATCH
        assert begun <= len(found) + score.BATCH
    assert found == pictures
