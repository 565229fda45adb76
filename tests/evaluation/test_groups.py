"""Images that occurred before are recognised."""

from pathlib import Path

import numpy as np

from stablepref.evaluation.groups import ImageKeys


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
