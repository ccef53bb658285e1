"""Work on many items by several threads, whose results come in the order of the items."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(work: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[tuple[Item, Result]]:
    """Each item with work(item), in their order; ``threads`` items are in work at once, and as many wait.

    So memory does not grow with the number of items, which are taken from ``items`` in the caller's thread. What
    ``work`` raises is raised when the item's turn comes; what has not begun by then is dropped.
    """
    if threads == 1:
        for item in items:
            yield item, work(item)
        return
    pool, ahead = ThreadPoolExecutor(threads, thread_name_prefix="prepare"), deque[tuple[Item, Future[Result]]]()
    try:
        for item in items:
            ahead.append((item, pool.submit(work, item)))
            if len(ahead) == 2 * threads:
                yield _first(ahead)
        while ahead:
            yield _first(ahead)
    finally:
        pool.shutdown(cancel_futures=True)


def _first(ahead: deque[tuple[Item, Future[Result]]]) -> tuple[Item, Result]:
    item, result = ahead.popleft()
    return item, result.result()
