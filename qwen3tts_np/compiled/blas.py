"""How many threads NumPy's matrix products use: one setting of the process, shared by all who compute in it.

Trap: who saves the setting, changes it and restores what he saved leaves it changed for good if two such calls overlap
and the first to begin is the first to end. So there is one owner, which counts: whoever comes first saves the setting,
whoever leaves last restores it.
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
    """NumPy's products use at most ``threads`` threads inside; None leaves them as they are.

    While calls overlap, in several threads or one inside the other, the lowest of their limits holds for all.
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
        self._limits: dict[object, int] = {}  # of those inside
        self._before: list[tuple[Any, int]] = []  # each library and its own setting, while somebody is inside

    def enter(self, who: object, threads: int) -> None:
        with self._lock:
            if not self._limits:
                self._before = [(library, library.num_threads) for library in _libraries()]
            self._limits[who] = threads
            self._apply()

    def leave(self, who: object) -> None:
        """Also for one whom an interrupt kept from entering."""
        with self._lock:
            if self._limits.pop(who, None) is not None:
                self._apply()

    def _apply(self) -> None:
        lowest = min(self._limits.values(), default=None)
        for library, before in self._before:
            library.set_num_threads(before if lowest is None else lowest)

    def in_child(self) -> None:
        """After a fork: the threads that were inside are not in this process, and one may have held the lock."""
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
