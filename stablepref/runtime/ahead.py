"""Work done ahead by threads: results in order, and only a bounded number of them in memory."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from concurrent.futures import Future

T = TypeVar("T")
R = TypeVar("R")


def ahead(
    function: Callable[[T], R], items: Iterable[T], *, workers: int, most: int
) -> Generator[R]:
    """`function` of each item, in the order of the items, computed by threads in advance.

    Closing the generator early cancels what has not begun.

    Args:
        function: Called from several threads at once.
        items: Read lazily, at most `most` ahead of what was taken, by the thread that takes.
        workers: Threads; 0 computes each result when it is taken, in the thread that takes it.
        most: Results in memory or in progress at once, 1 or more.

    Raises:
        Exception: What `function` raises, in its item's place; what `items` itself raises, after
            the results of the items before.
    """
    if not workers:
        yield from map(function, items)
        return
    queue: deque[Future[R]] = deque()
    failure: Exception | None = None
    pool = ThreadPoolExecutor(workers, thread_name_prefix="stablepref-ahead")
    try:
        waiting = iter(items)
        while True:
            try:
                item = next(waiting)
            except StopIteration:
                break
            except Exception as error:  # whatever a user's generator raises
                failure = error
                break
            queue.append(pool.submit(function, item))
            if len(queue) >= most:
                yield queue.popleft().result()
        while queue:
            yield queue.popleft().result()
        if failure is not None:
            raise failure
    finally:
        pool.shutdown(cancel_futures=True)
