"""Threads that run one compiled function together, and the barrier at which they wait for each other.

Every thread of a team (``team.py``) runs the same function with the same arguments and its own :class:`Member`, which
determines its share of the work. A step that reads what other threads wrote comes after a :func:`barrier`. A step takes
microseconds, so a waiting thread spins for some time before it sleeps.
"""

from __future__ import annotations

import weakref
from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numpy.typing import NDArray

from .cpu import CPU, inlined, inner, kernel
from .locks import ACQUIRE, RELEASE, free_locks, new_lock
from .machine_code import add_symbol
from .simd.llvm import I32, INT64, VOID, Builder, Value, call, operation
from .simd.ops import atomic_add, atomic_exchange, atomic_load, pause

team_kernel = kernel  # a kernel that a team runs: its first argument is a Member

_LINE = CPU.cache_line // 8  # int64 values: counters of different threads are on different lines
_SPINS = 2000  # reads of the counter (some tens of microseconds) before the thread sleeps


class Member(NamedTuple):
    """One thread of a team, as compiled functions see it."""

    index: int  # 0 .. count - 1
    count: int
    meeting: NDArray[np.int64]
    """[0] arrivals at barriers so far; [_LINE] sleepers; behind [_LINE * (2 + index)] what follows, of each thread.

    Behind all of these, in a line for each thread: how many times a part of its share has been asked for.
    """


_EXPECTED, _ASLEEP, _LOCK = 0, 1, 2  # the arrivals that a thread waits for; whether it sleeps; the lock it sleeps at
_ASKED = 3  # how many times a part of any share will have been asked for once nothing is left
PARTS = 5  # of a share: a half, a quarter, an eighth and two sixteenths


add_symbol("qwen3tts_np_acquire", ACQUIRE)
add_symbol("qwen3tts_np_release", RELEASE)


@operation(VOID, INT64)
def _acquire(b: Builder, lock: Value) -> None:
    """nothing; waits until the lock is released"""
    call(b, "qwen3tts_np_acquire", I32, lock, ir.Constant(I32, 1))


@operation(VOID, INT64)
def _release(b: Builder, lock: Value) -> None:
    """nothing; whoever waits for the lock goes on"""
    call(b, "qwen3tts_np_release", ir.VoidType(), lock)


@inner
def barrier(me: Member) -> None:
    """Wait until all members have arrived. Whatever a member wrote before the barrier is visible to all after it.

    Trap: a thread registers as a sleeper before it reads the arrivals a last time, and the last to arrive counts
    itself before it looks for sleepers. Otherwise both could look too early, and the sleeper would never wake.
    """
    if me.count == 1:
        return
    mine = _LINE * (2 + me.index)
    me.meeting[mine + _EXPECTED] += me.count
    if atomic_add(me.meeting, 0, 1) + 1 == me.meeting[mine + _EXPECTED]:
        if atomic_add(me.meeting, _LINE, 0):
            _wake(me)
        return
    spins = 0
    while atomic_load(me.meeting, 0) < me.meeting[mine + _EXPECTED]:
        pause()
        spins += 1
        if spins > _SPINS:
            _sleep(me)


@inner
def _sleep(me: Member) -> None:
    """Sleep until all have arrived; the caller must expect to be woken early, for the barrier before.

    Who clears the mark of a sleeper, itself or another, decides whether its lock is released, which it then waits for.
    """
    mine = _LINE * (2 + me.index)
    atomic_exchange(me.meeting, mine + _ASLEEP, 1)
    atomic_add(me.meeting, _LINE, 1)
    arrived = atomic_load(me.meeting, 0) >= me.meeting[mine + _EXPECTED]
    if not arrived or not atomic_exchange(me.meeting, mine + _ASLEEP, 0):
        _acquire(me.meeting[mine + _LOCK])
    atomic_add(me.meeting, _LINE, -1)


@inner
def _wake(me: Member) -> None:
    """Wake all sleepers."""
    for index in range(me.count):
        other = _LINE * (2 + index)
        if atomic_exchange(me.meeting, other + _ASLEEP, 0):
            _release(me.meeting[other + _LOCK])


@inner
def share(me: Member, count: int) -> tuple[int, int]:
    """This member's part of 0 .. count - 1: (first, end). The sizes of the parts differ by at most one."""
    return count * me.index // me.count, count * (me.index + 1) // me.count


class Part(NamedTuple):
    """What a member has taken of 0 .. count - 1."""

    first: int
    end: int  # equal to first if nothing was left
    behind: int  # how many members behind this one its owner is
    fresh: bool  # whether it is the first part that the member has taken


@inlined
def first_part(me: Member, count: int) -> Part:
    """Take a part of 0 .. count - 1; :func:`next_part` takes another, until nothing is left.

    A member begins with its own share and then helps the others, so a slow one does not set the pace. All members go on
    until nothing is left, and there is a barrier before the next time.
    """
    if me.count == 1:
        return Part(0, count, 1, True)
    me.meeting[_LINE * (2 + me.index) + _ASKED] += PARTS + me.count
    first, end, behind = _take(me, count, 0)
    return Part(first, end, behind, True)


@inlined
def next_part(me: Member, count: int, last: Part) -> Part:
    """Take another part, after the last one."""
    first, end, behind = _take(me, count, last.behind)
    return Part(first, end, behind, False)


@inner
def _take(me: Member, count: int, behind: int) -> tuple[int, int, int]:
    """(first, end, behind) of a part.

    Each part of a share is asked for once, and each member asks once more, in vain. So all know how many times that was
    before, and nobody has to reset a counter.
    """
    before = me.meeting[_LINE * (2 + me.index) + _ASKED] - (PARTS + me.count)
    while behind < me.count:
        owner = Member((me.index + behind) % me.count, me.count, me.meeting)
        number = atomic_add(me.meeting, _LINE * (2 + me.count + owner.index), 1) - before
        first, end = _part(owner, count, number)
        if first < end:
            return first, end, behind
        if number >= PARTS:
            behind += 1
    return count, count, behind


@inlined
def _part(owner: Member, count: int, number: int) -> tuple[int, int]:
    """(first, end) of a part of a share: half of it, a quarter ... and the last two alike; empty beyond the last."""
    begin, end = share(owner, count)
    if number >= PARTS:
        return end, end
    left = (end - begin) >> number
    return end - left, end - (left >> 1 if number < PARTS - 1 else 0)


def members(size: int) -> list[Member]:
    """Those of a new team."""
    room = np.zeros(_LINE * (3 + 2 * size), np.int64)
    start = -room.ctypes.data // 8 % _LINE
    meeting = room[start : start + _LINE * (2 + 2 * size)]
    if size > 1:
        locks = [new_lock() for _ in range(size)]
        meeting[2 * _LINE + _LOCK : (2 + size) * _LINE : _LINE] = locks
        weakref.finalize(room, free_locks, locks).atexit = False
    return [Member(index, size, meeting) for index in range(size)]
