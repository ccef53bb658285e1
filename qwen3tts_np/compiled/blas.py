"""The thread limit of NumPy's matrix products: one setting per process, shared by all its callers.

Trap: saving, changing and restoring the setting per call leaves it changed permanently if two calls overlap and the
first to start is the first to end. So one owner counts the callers: the first to enter saves the setting, the last to
leave restores it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from qwen3tts_np_kernels.system import at_fork
from threadpoolctl import ThreadpoolController


@contextmanager
def limited_blas(threads: int | None) -> Iterator[None]:
    """Limit NumPy's products to ``threads`` threads inside the context; None leaves the setting unchanged.

    While calls overlap, concurrently or nested, the lowest of their limits applies to all.
    """
    if threads is None:
        yield
        return
    me = object()
    try:
        _owner.enter(me, threads)
        yield
    finally:
        _owner.leave(me)


class _Owner:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._limits: dict[object, int] = {}  # of the callers inside
        self._before: list[tuple[Any, int]] = []  # each library and its saved setting, while any caller is inside

    def enter(self, who: object, threads: int) -> None:
        with self._lock:
            if not self._limits:
                self._before = [(library, library.num_threads) for library in _libraries()]
            self._limits[who] = threads
            self._apply()

    def leave(self, who: object) -> None:
        """Leave; valid also for a caller that an interrupt kept from entering."""
        with self._lock:
            if self._limits.pop(who, None) is not None:
                self._apply()

    def _apply(self) -> None:
        lowest = min(self._limits.values(), default=None)
        for library, before in self._before:
            library.set_num_threads(before if lowest is None else lowest)

    def in_child(self) -> None:
        """After a fork: the threads that were inside do not exist in this process, and one may have held the lock."""
        self._lock = threading.Lock()
        if self._limits:
            self._limits.clear()
            self._apply()


_owner = _Owner()
at_fork(after_in_child=_owner.in_child)


@cache
def _libraries() -> list[Any]:
    """The BLAS libraries of this process, found once: importing NumPy has loaded its own."""
    return list(ThreadpoolController().select(user_api="blas").lib_controllers)
