"""A team of threads that run one compiled function together, and the barrier at which they wait for each other.

Every thread of a team runs the same function with the same arguments and its own :class:`Member`, which determines its
share of the work. A step that reads what other threads wrote comes after a :func:`barrier`. A step takes microseconds,
so a waiting thread spins for some time before it sleeps; between calls all threads sleep.
"""

from __future__ import annotations

import os
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Hashable
from concurrent.futures import Future, wait
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from .cpu import CPU, Bound, Kernel, inner, kernel
from .machine_code import add_symbol
from .pace import Pace
from .simd.llvm import I32, I64, INT64, VOID, Builder, Value, call, operation
from .simd.ops import atomic_add, atomic_load, pause
from .system import at_fork, futex, yield_address

team_kernel = kernel  # a kernel that a team runs: its first argument is a Member

_LINE = CPU.cache_line // 8  # int64 values: counters of different threads are on different lines
_SPINS = 2000  # reads of the counter (some tens of microseconds) before the thread yields its core


class Member(NamedTuple):
    """One thread of a team, as compiled functions see it."""

    index: int  # 0 .. count - 1
    count: int
    meeting: NDArray[np.int64]
    """[0] arrivals at barriers so far; [_LINE] sleepers; [_LINE * (2 + index)] arrivals that this thread waits for."""
    address: int
    """The address of ``meeting``."""


_WAIT, _WAKE, _ALL = 128, 129, (1 << 31) - 1  # FUTEX_WAIT_PRIVATE, FUTEX_WAKE_PRIVATE, and how many to wake


_SYSCALL, _FUTEX = futex() or (yield_address(), 0)  # 0: no futex on this system; threads yield instead of sleeping
add_symbol("qwen3tts_np_let_others_run", yield_address())
add_symbol("qwen3tts_np_syscall", _SYSCALL)


@operation(VOID)
def _yield(b: Builder) -> None:
    """nothing; another thread may run"""
    call(b, "qwen3tts_np_let_others_run", I32)


@operation(INT64, INT64, INT64, INT64, INT64, INT64)
def _syscall(b: Builder, number: Value, address: Value, operation: Value, value: Value, timeout: Value) -> Value:
    """the result of a call of Linux"""
    return call(b, "qwen3tts_np_syscall", I64, number, address, operation, value, timeout)


@inner
def barrier(me: Member) -> None:
    """Wait until all members have arrived. Whatever a member wrote before the barrier is visible to all after it.

    Trap: a thread registers as a sleeper before it reads the arrivals a last time, and the last to arrive counts
    itself before it looks for sleepers. Otherwise both could look too early, and the sleeper would never wake.
    """
    if me.count == 1:
        return
    mine = _LINE * (2 + me.index)
    me.meeting[mine] += me.count
    if atomic_add(me.meeting, 0, 1) + 1 == me.meeting[mine]:
        if _FUTEX and atomic_add(me.meeting, _LINE, 0):
            _syscall(_FUTEX, me.address, _WAKE, _ALL, 0)
        return
    spins = 0
    while atomic_load(me.meeting, 0) < me.meeting[mine]:
        pause()
        spins += 1
        if spins > _SPINS:
            if _FUTEX:
                _sleep(me, me.meeting[mine])
            else:
                _yield()


@inner
def _sleep(me: Member, arrivals: int) -> None:
    """Sleep until ``seen`` changes; the caller must expect spurious wake-ups."""
    atomic_add(me.meeting, _LINE, 1)
    seen = atomic_load(me.meeting, 0)
    if seen < arrivals:
        _syscall(_FUTEX, me.address, _WAIT, seen & 0xFFFFFFFF, 0)  # returns at once if the number has changed
    atomic_add(me.meeting, _LINE, -1)


@inner
def share(me: Member, count: int) -> tuple[int, int]:
    """This member's part of 0 .. count - 1: (first, end). The sizes of the parts differ by at most one."""
    return count * me.index // me.count, count * (me.index + 1) // me.count


starting = threading.Lock()  # threads of a team start once


def _in_child() -> None:
    """After a fork: replace the lock, since a thread that held it does not exist in this process."""
    global starting
    starting = threading.Lock()


at_fork(after_in_child=_in_child)


class Team:
    """``size`` threads that wait for work: ``run(f, a, b)`` executes f(member, a, b) in all of them at once.

    The caller only waits, so Ctrl-C reaches it at once while the threads finish their call. A team of one has no
    thread: the caller does the work. Threads start at the first run, again in a forked child, and stop with the team.
    Concurrent calls are serialised. Where other programs keep the cores busy, a kernel may be run by one thread, as the
    only member, which gives the same results in less time (``pace.py``). Where the system does not start so many
    threads, fewer do the work, with a warning, and the caller where it starts none.
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"a team of {size} threads must have at least 1")
        self.size = size
        self.paces: dict[Hashable, Pace] = {}
        """Of work that one of its threads leads (``together_jit.py``)."""
        self._crew: _Crew | None = None

    def __reduce__(self) -> NoReturn:
        """Trap: what the threads work on is known by addresses, which mean nothing in a copy or in another process."""
        raise TypeError("a compiled model is neither copied nor pickled: it works on memory of its own; load it again")

    def run(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call ``function`` in all threads and wait. Raises the exception of a thread that failed."""
        crew = self._started() if self.size > 1 else None
        if crew is None:
            function(members(1)[0], *arguments)
        else:
            crew.run(function, arguments)

    def _started(self) -> _Crew | None:
        """The threads of this process; None where the system starts none.

        Trap: an interrupt may come after any line, so no lock is held while they work; nor could a fork copy a held
        lock that no thread would release in the child.
        """
        crew = self._crew
        if crew is None or crew.process != os.getpid():
            with starting:
                crew = self._crew
                if crew is None or crew.process != os.getpid():
                    crew = self._crew = _largest_crew(self.size)
        return crew

    def close(self) -> None:
        """Stop the threads once their pending calls are done. A later run starts them again."""
        crew, self._crew = self._crew, None
        if crew is not None:
            crew.stop()


class _Crew:
    """The threads of a team in one process. They hold no reference to it, so it can be collected, which stops them.

    A task is handed over by a single ``put`` to the leading thread, which passes it on to the others. Signals interrupt
    the main thread only, so either all threads receive a task or none does.
    """

    def __init__(self, size: int) -> None:
        self.process = os.getpid()
        queues: list[SimpleQueue[_Task | None]] = [SimpleQueue() for _ in range(size)]
        self._todo, (leader, *others) = queues[0], members(size)
        work: list[tuple[Callable[..., None], Any, Any]] = [(_lead, leader, queues)]
        work += [(_follow, member, todo) for member, todo in zip(others, queues[1:], strict=True)]
        self._threads = [
            threading.Thread(target=function, args=arguments, daemon=True, name=f"qwen3tts-{i}")
            for i, (function, *arguments) in enumerate(work)
        ]
        self.stop = weakref.finalize(self, _stop, self.process, self._todo, self._threads)
        self.started = 0
        with suppress(RuntimeError):  # the system starts no more threads
            for thread in self._threads:
                thread.start()
                self.started += 1

    def run(self, function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        task = _Task(function, arguments)
        self._todo.put(task)
        task.done.result()


def _largest_crew(size: int) -> _Crew | None:
    """``size`` threads, or as many as the system starts (reported); None where it starts none."""
    most = size
    while most:
        crew = _Crew(most)
        if crew.started == most:
            break
        crew.stop()
        most = min(crew.started, most - 1)
    if most < size:
        limit = "limits of the system (ulimit -u, or a container's) allow no more"
        warnings.warn(f"{most} of {size} threads were started: {limit}; speech is the same, and slower", stacklevel=2)
    return crew if most else None


class _Task:
    """One call of a function by some threads."""

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.done: Future[None] = Future()
        if isinstance(function, Kernel):
            function, arguments = function.bound(*arguments), ()
        self.kernel = function.kernel if isinstance(function, Bound) else None
        self.running = 0.0  # seconds, summed over its threads
        self.members = 0  # that it is run by
        self._call: Callable[[Member], Any] = function if not arguments else lambda me: function(me, *arguments)
        self._lock, self._over = threading.Lock(), 0
        self._failure: BaseException | None = None

    def can_run(self, member: Member) -> bool:
        """Whether its machine code is there. If not, the task has failed.

        Trap: were that found out by each thread, one could fail alone, and the others wait for it at a barrier forever.
        """
        try:
            if isinstance(self._call, Bound):
                self._call.load(member)
        except BaseException as caught:
            self._failure = caught
            self._end()
            return False
        return True

    def run(self, member: Member) -> None:
        failure: BaseException | None = None
        start = time.thread_time()
        try:
            self._call(member)
        except BaseException as caught:
            failure = caught
        with self._lock:
            self.running += time.thread_time() - start
            self._over += 1
            self._failure = self._failure or failure
            last = self._over == self.members
        if last:
            self._end()

    def _end(self) -> None:
        del self._call  # a caller may keep the task alive longer than the model
        if self._failure is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(self._failure)


def _lead(member: Member, queues: list[SimpleQueue[_Task | None]]) -> None:
    """The leading thread: it hands tasks to the others, or does them alone."""
    (alone,), pace = members(1), Pace()
    todo, *others = queues
    while (task := todo.get()) is not None:
        if not task.can_run(member):
            del task
            continue
        by_one = task.kernel is not None and pace.alone(task.kernel)
        task.members = 1 if by_one else len(queues)
        start = time.perf_counter()
        for other in [] if by_one else others:
            other.put(task)
        task.run(alone if by_one else member)
        wait([task.done])  # the next task starts when all have finished this one
        if task.kernel is not None:
            seconds = time.perf_counter() - start
            pace.note(by_one, seconds, task.running / (task.members * seconds))
        del task  # a sleeping thread must not keep a model's weights alive
    for other in others:
        other.put(None)


def _follow(member: Member, todo: SimpleQueue[_Task | None]) -> None:
    while (task := todo.get()) is not None:
        task.run(member)
        del task


def _stop(process: int, todo: SimpleQueue[_Task | None], threads: list[threading.Thread]) -> None:
    """End the threads after their pending tasks, and wait for that, unless the caller is one of them."""
    if process != os.getpid():
        return
    todo.put(None)
    if threading.current_thread() not in threads:
        for thread in threads:
            if thread.ident is not None:  # otherwise an interrupt came before it was started
                thread.join()


def members(size: int) -> list[Member]:
    """Those of a new team."""
    room = np.zeros(_LINE * (3 + size), np.int64)
    start = -room.ctypes.data // 8 % _LINE
    meeting = room[start : start + _LINE * (2 + size)]
    return [Member(index, size, meeting, meeting.ctypes.data) for index in range(size)]
