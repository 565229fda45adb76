"""Work done ahead: order, bounds, errors in their places, and an early end."""

import threading
import time
from collections.abc import Iterator

import pytest

from stablepref.runtime.ahead import ahead


def slow_first(number: int) -> int:
    time.sleep(0.05 if number == 0 else 0)
    return number * number


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_come_in_the_order_of_the_items(workers: int) -> None:
    found = list(ahead(slow_first, range(20), workers=workers, most=4))
    assert found == [n * n for n in range(20)]


@pytest.mark.parametrize("most", [1, 3])
def test_items_are_read_only_so_far_ahead(most: int) -> None:
    read: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            read.append(number)
            yield number

    results = ahead(abs, items(), workers=2, most=most)
    for taken in range(1, 11):
        next(results)
        assert len(read) <= taken + most - 1
    results.close()


def test_several_threads_work_at_once() -> None:
    barrier = threading.Barrier(3, timeout=10)
    assert list(ahead(lambda _: barrier.wait() >= 0, range(3), workers=3, most=3)) == [True] * 3


def fail_at_three(number: int) -> int:
    if number == 3:
        raise ValueError("three")
    return number


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_comes_in_its_items_place(workers: int) -> None:
    results = ahead(fail_at_three, range(10), workers=workers, most=5)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_of_the_items_comes_after_the_results_before(workers: int) -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise OSError("gone")

    results = ahead(abs, items(), workers=workers, most=8)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="gone"):
        next(results)


def test_closing_early_cancels_what_has_not_begun() -> None:
    before = set(threading.enumerate())
    begun: list[int] = []
    gate = threading.Event()

    def wait(number: int) -> int:
        begun.append(number)
        if number:
            gate.wait(10)
        return number

    results = ahead(wait, range(50), workers=1, most=20)
    assert next(results) == 0
    gate.set()
    results.close()
    assert len(begun) < 20
    assert set(threading.enumerate()) <= before
