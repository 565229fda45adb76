"""Images met before are known again, and features stay while there is room or need."""

from pathlib import Path

import numpy as np
import torch

from stablepref.evaluation.repeats import FeatureMemory, ImageKeys


def test_what_counts_as_the_same_image() -> None:
    keys = ImageKeys()
    assert keys("a/b.png") == keys(Path("a/b.png"))
    assert keys("a/b.png") != keys("b.png")
    assert keys(b"12") == keys(bytes([49, 50]))
    first, second = np.zeros(3), np.zeros(3)
    assert keys(first) == keys(first) != keys(second)
    row: dict[str, bytes] = {"bytes": b"12"}
    assert keys(row) != keys(row)  # cannot be recognised, and so counts as another


def test_an_object_that_died_is_not_taken_for_a_new_one() -> None:
    keys = ImageKeys()
    met = set()
    for _ in range(100):  # places in memory are used again, keys are not
        image = np.zeros(1000)
        met.add(keys(image))
        del image
    assert len(met) == 100


def row(value: float) -> torch.Tensor:
    return torch.full((4,), value, dtype=torch.float32)  # 16 bytes


def test_the_oldest_features_go_first() -> None:
    memory = FeatureMemory(room=32)
    for key in "abc":
        memory.put(key, row(ord(key)))
    assert [memory.holds(key) for key in "abc"] == [False, True, True]
    memory.put("b", row(0))  # put anew, not twice
    assert memory.holds("c")


def test_features_that_are_waited_for_stay() -> None:
    memory = FeatureMemory(room=16)
    memory.wait("a")
    memory.wait("a")
    for key in "abc":
        memory.put(key, row(ord(key)))
    assert [memory.holds(key) for key in "abc"] == [True, False, False]
    assert memory.take("a").tolist() == row(ord("a")).tolist()
    memory.put("d", row(0))
    assert memory.holds("a")  # one still waits
    memory.take("a")
    memory.put("e", row(0))
    assert not memory.holds("a")
