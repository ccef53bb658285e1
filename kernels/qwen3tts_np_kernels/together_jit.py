"""Kernels that are called one after another by one thread of a team, and run by all of them.

A pass of the codec over a short packet is a hundred kernels with a little Python between them. Handed to the team one
by one (``Team.run``) each would cost as much as it takes, and two threads in the same Python would wait for each other.
Here one thread, the leader, goes through the pass. The others stay in compiled code, at a barrier, where they meet the
leader for every kernel.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import Any, Protocol, cast

import numpy as np
from llvmlite import ir

from .arrays import I64
from .cpu import Kernel, compiled, kernel
from .pace import Pace
from .simd.llvm import I64 as WORD
from .simd.llvm import INT64, VOID, Builder, Value, operation
from .threads_jit import Member, Team, barrier, members

_WORDS = 128  # of the arguments of a kernel, at most


class Runner(Protocol):
    """Runs kernels whose first argument is a ``Member``."""

    @property
    def size(self) -> int:
        """Threads that run them."""
        ...

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> None:
        """function(member, *arguments), once for each member."""
        ...


class Alone:
    """Runs kernels in this thread only."""

    size = 1

    def __init__(self) -> None:
        (self._me,) = members(1)

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> None:
        function(self._me, *arguments)


ALONE = Alone()


def lead(team: Team, work: Callable[[Runner], None], about: Hashable) -> None:
    """work(run) in one thread of the team; what it passes to ``run`` is run by all. Raises what ``work`` raises.

    Where other programs use the cores it may run its kernels alone (``pace.py``); ``about`` names work that takes the
    same time at every call.
    """
    if team.size == 1 or not compiled():
        work(ALONE)
        return
    pace = team.paces.setdefault(about, Pace())
    alone = pace.alone(lead)
    post = np.zeros(1 + team.size, np.int64)
    for function in (_turn, _assist):  # load both now: a thread that failed to would leave the others waiting
        ALONE(function, post)

    def follow(me: Member) -> None:
        began = time.thread_time()
        if me.index:
            if not alone:
                _assist(me, post)
        elif alone or me.count == 1:
            work(ALONE)
        else:
            leader = _Leader(me, post)
            try:
                work(leader)
            finally:
                leader.end()
        running.append(time.thread_time() - began)

    start, running = time.perf_counter(), list[float]()
    team.run(follow)
    seconds = time.perf_counter() - start
    pace.note(alone, seconds, sum(running) / (len(running) * seconds))


class _Leader:
    """Runs kernels in its own thread and in those that assist."""

    def __init__(self, me: Member, post: I64) -> None:
        self._me, self._post = me, post
        self._members = [me._replace(index=index) for index in range(me.count)]
        self._blocks = np.zeros((me.count, _WORDS), np.int64)
        self._bytes = [block.view(np.uint8).data for block in self._blocks]
        post[1 : 1 + me.count] = [block.ctypes.data for block in self._blocks]

    @property
    def size(self) -> int:
        return self._me.count

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> None:
        address, blocks = cast(Kernel, function).prepared(self._members, *arguments)
        for room, block in zip(self._bytes, blocks, strict=True):
            room[: len(block)] = block
        self._post[0] = address
        _turn(self._me, self._post)

    def end(self) -> None:
        """Let the others go."""
        self._post[0] = 0
        _turn(self._me, self._post)


@operation(VOID, INT64, INT64)
def _call(b: Builder, address: Value, block: Value) -> None:
    """nothing; calls the entry of a kernel with the address of its arguments"""
    signature = ir.FunctionType(WORD, [WORD.as_pointer()])
    b.call(b.inttoptr(address, signature.as_pointer()), [b.inttoptr(block, WORD.as_pointer())])


@kernel
def _turn(me: Member, post: I64) -> None:
    """The leader's part of a kernel: post[0] is its entry, post[1 + index] the address of each member's arguments."""
    barrier(me)
    if post[0]:
        _call(post[0], post[1 + me.index])
        barrier(me)


@kernel
def _assist(me: Member, post: I64) -> None:
    """The part of the others, kernel after kernel, until none is posted."""
    barrier(me)
    while post[0]:
        _call(post[0], post[1 + me.index])
        barrier(me)  # all have finished
        barrier(me)  # the next one is posted
