"""The threads of training: those of BLAS for matrix products, and as many of Python's for parts of everything else.

What is not a product is bound by memory, or by one core; NumPy and the kernels leave the GIL to others while they run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import pairwise
from typing import NamedTuple, TypeVar

from ..compiled.blas import limited_blas
from ..compiled.engine import started

T = TypeVar("T")
R = TypeVar("R")
LEAST = 1 << 16  # values that are worth a thread


class _Pool(NamedTuple):
    executor: ThreadPoolExecutor
    size: int


_POOL: ContextVar[_Pool | None] = ContextVar("_POOL", default=None)


@contextmanager
def training_threads(threads: int | None) -> Iterator[None]:
    """Inside, everything runs on so many threads; None: as many as there are cores. Outside, parts are not shared."""
    size = started(threads)
    with limited_blas(threads and size), ThreadPoolExecutor(size) as executor:
        before = _POOL.set(_Pool(executor, size))
        try:
            yield
        finally:
            _POOL.reset(before)


def side_by_side(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """``function`` of each, in order, on the threads."""
    pool = _POOL.get()
    return list(map(function, items) if pool is None else pool.executor.map(function, items))


def parts(count: int, values: int) -> list[slice]:
    """0 .. count - 1 in as many parts as there are threads; whole where ``values``, those of all, are too few."""
    pool = _POOL.get()
    wanted = 1 if pool is None or values < 2 * LEAST else min(pool.size, count)
    ends = [count * i // wanted for i in range(wanted + 1)]
    return [slice(*pair) for pair in pairwise(ends)]
