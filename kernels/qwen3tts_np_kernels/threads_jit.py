"""Threads that go through one compiled function together, and the barrier at which they wait for each other.

Every thread of a team runs the same function with the same arguments and its own :class:`Member`, which tells it
which share of the work is its own. A step that needs what the others wrote stands behind a :func:`barrier`. Inside a
call nothing sleeps, for a step takes microseconds; between calls the threads sleep in the operating system.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future, wait
from queue import SimpleQueue
from typing import Any, NamedTuple, ParamSpec, TypeVar

import numpy as np
from llvmlite import binding
from numba import types
from numpy.typing import NDArray

from .cpu import compile_function, inner
from .simd.ops import atomic_add, atomic_load, pause
from .system import yield_address

P = ParamSpec("P")
R = TypeVar("R")

_LINE = 8  # int64 values in a cache line: counters of different threads lie on different lines
_SPINS = 2000  # looks at the counter before the thread lets others have the core


def team_kernel(function: Callable[P, R]) -> Callable[P, R]:
    """A kernel that a team runs. It can make no arrays, and counts no references to those it has.

    Counting is a write to memory; threads that count on the same array wait for each other all the time.
    """
    return compile_function(function, cache=True, _nrt=False)


class Member(NamedTuple):
    """One thread of a team, as compiled functions see it."""

    index: int  # 0 .. count - 1
    count: int
    meeting: NDArray[np.int64]  # [0] arrivals at barriers so far; [_LINE * (1 + index)] those this thread waits for


def _let_others_run() -> Any:
    """The system's call, as a symbol that machine code read from the disk cache finds too."""
    binding.add_symbol("qwen3tts_np_let_others_run", yield_address())
    return types.ExternalFunction("qwen3tts_np_let_others_run", types.int32())


_yield = _let_others_run()


@inner
def barrier(me: Member) -> None:
    """Wait until all members are here. What each wrote before, all can read behind it."""
    if me.count == 1:
        return
    mine = _LINE * (1 + me.index)
    me.meeting[mine] += me.count
    atomic_add(me.meeting, 0, 1)
    spins = 0
    while atomic_load(me.meeting, 0) < me.meeting[mine]:
        pause()
        spins += 1
        if spins > _SPINS:
            _yield()


@inner
def share(me: Member, count: int) -> tuple[int, int]:
    """This member's part of 0 .. count - 1: (first, end). The parts differ by at most one."""
    return count * me.index // me.count, count * (me.index + 1) // me.count


class Team:
    """``size`` threads that wait for work: ``run(f, a, b)`` is f(member, a, b) in each of them at once.

    The caller only waits, so Ctrl-C reaches it at once while the threads finish their call. A team of one has no
    thread: the caller does the work. Threads start at the first run, again in a forked child, and stop with the team.
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"a team of {size} threads must have at least 1")
        self.size = size
        self._one_call = threading.Lock()
        self._crew: _Crew | None = None

    def run(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call ``function`` in all threads and wait. An exception of one of them is raised here."""
        if self.size == 1:
            function(_members(1)[0], *arguments)
            return
        with self._one_call:
            if self._crew is None or self._crew.process != os.getpid():
                self._crew = _Crew(self.size)
                weakref.finalize(self, self._crew.stop)  # also when the interpreter ends
            self._crew.run(function, arguments)

    def close(self) -> None:
        """Stop the threads, after the call they are in. A later run starts them again."""
        with self._one_call:
            if self._crew is not None:
                self._crew.stop()
            self._crew = None


class _Crew:
    """The threads of a team in one process. They hold no reference to the team, so that it can go."""

    def __init__(self, size: int) -> None:
        self.process = os.getpid()
        self._todo: list[SimpleQueue[Any]] = [SimpleQueue() for _ in range(size)]
        self._calls: list[Future[None]] = []  # of the last run, one a thread; after an interrupt not all are done
        self._threads = [
            threading.Thread(target=_work, args=(member, todo), daemon=True, name=f"qwen3tts-{member.index}")
            for member, todo in zip(_members(size), self._todo, strict=True)
        ]
        for thread in self._threads:
            thread.start()

    def run(self, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        wait(self._calls)
        self._calls = [Future() for _ in self._todo]
        for todo, call in zip(self._todo, self._calls, strict=True):
            todo.put((call, function, arguments))
        wait(self._calls)
        for call in self._calls:
            call.result()

    def stop(self) -> None:
        for todo in self._todo:
            todo.put(None)
        if self.process == os.getpid():
            for thread in self._threads:
                if thread is not threading.current_thread():  # which may be the one that drops the last reference
                    thread.join()


def _work(member: Member, todo: SimpleQueue[Any]) -> None:
    while (task := todo.get()) is not None:
        call, function, arguments = task
        try:
            function(member, *arguments)
        except BaseException as failure:
            call.set_exception(failure)
        else:
            call.set_result(None)
        del task, call, function, arguments  # a sleeping thread must not keep a model's weights alive


def _members(size: int) -> list[Member]:
    meeting = np.zeros(_LINE * (1 + size), np.int64)
    return [Member(index, size, meeting) for index in range(size)]
