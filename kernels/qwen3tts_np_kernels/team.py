"""A team of threads, and who leads them.

A kernel is led by the thread that calls it: it is the first member, and hands the kernel over to the others
(``together_jit.py``). Functions of Python are led by a thread of the team's own. Both begin with one step that no
interrupt divides, so either all threads receive a task or none does.
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
from typing import Any, NoReturn

from .cpu import Bound, Kernel, compiled
from .pace import Pace
from .system import at_fork, thread_clock
from .threads_jit import Member, members
from .together_jit import ALONE, Runner, Together

starting = threading.Lock()  # threads of a team start once


def _in_child() -> None:
    """After a fork: replace the lock, since a thread that held it does not exist in this process."""
    global starting
    starting = threading.Lock()


at_fork(after_in_child=_in_child)


class Team:
    """``size`` threads that work together: ``run(f, a, b)`` executes f(member, a, b) in all of them at once.

    The caller runs kernels as one of them, so Ctrl-C reaches it between two kernels. It waits for any other function,
    so Ctrl-C reaches it at once while the threads finish their call. A team of one has no thread: the caller does the
    work. Threads start at the first run, again in a forked child, and stop with the team. Concurrent calls are
    serialised. Where other programs keep the cores busy, kernels may be run by one thread, as the only member, which
    gives the same results in less time (``pace.py``). Where the system does not start so many threads, fewer do the
    work, with a warning, and the caller where it starts none.
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"a team of {size} threads must have at least 1")
        self.size = size
        self._pace, self._paces = Pace(), dict[Hashable, Pace]()
        self._crew: _Crew | None = None

    def __reduce__(self) -> NoReturn:
        """Trap: what the threads work on is known by addresses, which mean nothing in a copy or in another process."""
        raise TypeError("a compiled model is neither copied nor pickled: it works on memory of its own; load it again")

    def run(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call ``function`` in all threads and wait. Raises the exception of a thread that failed."""
        crew = self._started()
        if crew is None:
            ALONE(function, *arguments)
        elif isinstance(function, Kernel | Bound):
            kernel = function.kernel if isinstance(function, Bound) else function
            crew.lead(lambda run: run(function, *arguments), self._pace, kernel)
        else:
            crew.run(lambda me: function(me, *arguments))

    def lead(self, work: Callable[[Runner], None], about: Hashable) -> None:
        """work(run) in this thread; kernels that it passes to ``run`` are run by all. Raises what ``work`` raises.

        Where other programs use the cores ``run`` may run them alone; ``about`` names work that takes the same time at
        every call.
        """
        crew = self._started() if compiled() else None
        if crew is None:
            work(ALONE)
        else:
            crew.lead(work, self._paces.setdefault(about, Pace()), about)

    def _started(self) -> _Crew | None:
        """The threads of this process; None for a team of one, and where the system starts none.

        Trap: an interrupt may come after any line, so locks are held by ``with`` only; and a child that is forked while
        one is held has no thread that would release it, so it takes another.
        """
        if self.size == 1:
            return None
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


_Work = Callable[[Member], object]


class _Crew:
    """The threads of a team in one process. They hold no reference to it, so it can be collected, which stops them.

    The first of them leads functions of Python. Signals interrupt the main thread only, so whoever calls one hands it
    over by a single ``put``. The others assist whoever leads kernels, until they are called back for a function.
    """

    def __init__(self, size: int) -> None:
        self.process = os.getpid()
        self._todo, queues = SimpleQueue[_Task | None](), [SimpleQueue[_Work | None]() for _ in range(size - 1)]
        leader, *others = members(size)
        self._kernels, self._turn = Together(leader) if compiled() else None, threading.Lock()
        led = (leader, self._todo, queues, self._kernels, self._turn)
        work: list[tuple[Callable[..., None], tuple[Any, ...]]] = [(_lead, led)]
        work += [(_follow, follower) for follower in zip(others, queues, strict=True)]
        self._threads = [
            threading.Thread(target=function, args=arguments, daemon=True, name=f"qwen3tts-{i}")
            for i, (function, arguments) in enumerate(work)
        ]
        self.stop = weakref.finalize(self, _stop, self.process, self._todo, self._threads)
        self.started = 0
        with suppress(RuntimeError):  # the system starts no more threads
            for thread in self._threads:
                thread.start()
                self.started += 1
            self._clock = thread_clock(thread.ident for thread in self._threads[1:])
            self.run(lambda me: None)  # after which they assist

    def run(self, function: _Work) -> None:
        """Have a function run by all threads."""
        task = _Task(function, len(self._threads))
        self._todo.put(task)
        task.done.result()

    def lead(self, work: Callable[[Runner], None], pace: Pace, about: Hashable) -> None:
        """Have kernels run by this thread and all but the first of the others, or by this thread alone."""
        together = self._kernels
        assert together is not None  # there are no kernels otherwise
        with self._turn:
            alone = pace.alone(about)
            start, running = time.perf_counter(), self._clock()
            work(ALONE if alone else together)
            seconds, running = time.perf_counter() - start, self._clock() - running
            pace.note(alone, seconds, running / ((1 if alone else together.size) * seconds))


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
    """One call of a function by all threads."""

    def __init__(self, function: _Work, members: int) -> None:
        self.done: Future[None] = Future()
        self._function, self._left = function, members
        self._lock = threading.Lock()
        self._failure: BaseException | None = None

    def run(self, member: Member) -> None:
        failure: BaseException | None = None
        try:
            self._function(member)
        except BaseException as caught:
            failure = caught
        with self._lock:
            self._failure = self._failure or failure
            self._left -= 1
            last = self._left == 0
        if last:
            self._end()

    def _end(self) -> None:
        del self._function  # a caller may keep the task alive longer than the model
        if self._failure is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(self._failure)


def _lead(
    member: Member,
    todo: SimpleQueue[_Task | None],
    others: list[SimpleQueue[_Work | None]],
    kernels: Together | None,
    turn: threading.Lock,
) -> None:
    """The leading thread of functions: it hands them to the others."""
    assisting = False

    def hand_on(work: _Work | None) -> None:
        if kernels is not None and assisting:
            kernels.dismiss()
        for other in others:
            other.put(work)

    while (task := todo.get()) is not None:
        with turn:
            hand_on(task.run)
            task.run(member)
            wait([task.done])  # the next task starts when all have finished this one
            del task  # a sleeping thread must not keep a model's weights alive
            if kernels is not None:
                for other in others:
                    other.put(kernels.assist)
                assisting = True
    with turn:
        hand_on(None)


def _follow(member: Member, todo: SimpleQueue[_Work | None]) -> None:
    while (work := todo.get()) is not None:
        work(member)
        del work


def _stop(process: int, todo: SimpleQueue[_Task | None], threads: list[threading.Thread]) -> None:
    """End the threads after their pending tasks, and wait for that, unless the caller is one of them."""
    if process != os.getpid():
        return
    todo.put(None)
    if threading.current_thread() not in threads:
        for thread in threads:
            if thread.ident is not None:  # otherwise an interrupt came before it was started
                thread.join()
