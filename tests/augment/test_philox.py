"""The generator against the published test vectors of Random123 (kat_vectors, philox4x32 10)."""

import numpy as np
import pytest

from stablepref.augment.philox import philox, uniform

LOW = np.uint64(2**32 - 1)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ([0] * 4, 0, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([2**32 - 1] * 4, 2**64 - 1, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            0x299F31D0A4093822,
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_published_vectors(counter: list[int], key: int, expected: list[int]) -> None:
    counters = np.array([counter, [1, 2, 3, 4]], dtype=np.uint64)
    assert philox(counters, key)[0].tolist() == expected


def test_numpys_generator_of_this_name_gives_other_numbers() -> None:
    """It is the variant of 64-bit words, whatever of its first blocks one looks at."""
    words = set(philox(np.array([[0, 0, 0, 0], [1, 0, 0, 0]], dtype=np.uint64), 0).ravel().tolist())
    theirs = np.random.Philox(counter=0, key=0).random_raw(4096)
    halves = {int(half) for word in theirs for half in (word >> np.uint64(32), word & LOW)}
    assert len(halves) > 8000
    assert not words & halves


def test_key_counts_modulo_two_to_the_64() -> None:
    counters = np.array([[5, 6, 7, 8]], dtype=np.uint64)
    assert np.array_equal(philox(counters, -1), philox(counters, 2**64 - 1))


def test_uniform_is_open_and_even() -> None:
    counters = np.zeros((4000, 4), dtype=np.uint64)
    counters[:, 0] = np.arange(4000)
    numbers = uniform(counters, 3)
    assert numbers.min() > 0
    assert numbers.max() < 1
    # Standard error of a mean of 4000 is 0.0046, of 16000 deciles' shares 0.0024.
    assert np.abs(numbers.mean(axis=0) - 0.5).max() < 0.02
    assert np.abs(np.histogram(numbers, 10, (0, 1))[0] / numbers.size - 0.1).max() < 0.01
    assert np.abs(np.corrcoef(numbers.T) - np.eye(4)).max() < 0.07
