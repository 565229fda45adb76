"""Random numbers as a pure function of where they are used: the Philox 4x32-10 generator.

A generator that carries a state gives each picture numbers that depend on what was drawn before,
and so on batching, workers and processes. A counter-based one is a keyed hash: the number for
(seed, step, item, view) is the same wherever and whenever it is asked for.

From Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011), whose
Random123 library publishes the test vectors; cuRAND and torch use the same generator on GPUs.
numpy's own Philox is the variant of 64-bit words, 4x64-10, which gives other numbers, and as an
object for each counter it could not hash a whole array of them.
"""

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 10
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_KEY_STEPS = (np.uint64(0x9E3779B9), np.uint64(0xBB67AE85))
_LOW = np.uint64(0xFFFFFFFF)
_WORD = np.uint64(32)


def philox(counters: NDArray[np.uint64], key: int) -> NDArray[np.uint64]:
    """Hash counters to random bits.

    Args:
        counters: Four 32-bit words per counter, ``(..., 4)``.
        key: The 64-bit key; larger or negative values count modulo 2^64.

    Returns:
        Four random 32-bit words per counter, ``(..., 4)``.
    """
    a, b, c, d = (counters[..., i] & _LOW for i in range(4))
    key %= 1 << 64
    low, high = np.uint64(key) & _LOW, np.uint64(key) >> _WORD
    for _ in range(_ROUNDS):
        first, second = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        a, b, c, d = (
            (second >> _WORD) ^ b ^ low,
            second & _LOW,
            (first >> _WORD) ^ d ^ high,
            first & _LOW,
        )
        low, high = (low + _KEY_STEPS[0]) & _LOW, (high + _KEY_STEPS[1]) & _LOW
    return np.stack([a, b, c, d], axis=-1)


def uniform(counters: NDArray[np.uint64], key: int) -> NDArray[np.float64]:
    """Four numbers per counter, uniform in the open interval (0, 1); shapes as `philox`."""
    return (philox(counters, key).astype(np.float64) + 0.5) / 2.0**32
