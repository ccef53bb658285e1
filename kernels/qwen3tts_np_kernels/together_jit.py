"""Kernels that one thread calls, one after another, and all of a team run.

A frame takes some milliseconds, so handing a kernel over must cost next to nothing. One thread, the leader, posts what
is to be run. The others stay in compiled code, without the GIL, at a barrier, where they meet the leader for every
kernel: they spin for a moment, and sleep if nothing comes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, cast

import numpy as np
from llvmlite import ir
from numpy.typing import NDArray

from .arrays import F32, I64, AnyArray
from .cpu import Bound, Kernel, inlined, kernel
from .simd.llvm import ARRAY, INT64, VOID, Builder, Value, operation
from .simd.llvm import I64 as WORD
from .threads_jit import Member, barrier, members

_WORDS = 512  # of the arguments of a kernel, at most


class Runner(Protocol):
    """Runs kernels whose first argument is a ``Member``, now or later (``program_jit.py``)."""

    @property
    def size(self) -> int:
        """Threads that run them."""
        ...

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> None:
        """function(member, *arguments), once for each member."""
        ...

    def empty(self, *shape: int) -> F32:
        """An array for kernels to write to."""
        ...

    def given(self, arrays: Sequence[AnyArray], label: Any) -> Sequence[AnyArray]:
        """Arrays with these contents, in later runs with others: those that ``label`` tells the caller to state."""
        ...

    def kept(self, array: F32, label: Any) -> F32:
        """This array, in later runs another of its size: the one that ``label`` tells the caller to state."""
        ...


class _Now:
    """What is alike in all that run kernels when they are called."""

    def empty(self, *shape: int) -> F32:
        return np.empty(shape, np.float32)

    def given(self, arrays: Sequence[AnyArray], label: Any) -> Sequence[AnyArray]:
        return arrays

    def kept(self, array: F32, label: Any) -> F32:
        return array


class Alone(_Now):
    """Runs kernels in this thread only."""

    size = 1

    def __init__(self) -> None:
        (self._me,) = members(1)

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> None:
        function(self._me, *arguments)


ALONE = Alone()


class Together(_Now):
    """Runs kernels in the thread that calls it, the leader, and in those that assist. One leader at a time.

    Trap: an interrupt may come after any line of Python, but not within a call of compiled code. So a kernel is handed
    over, run and finished by all in one such call.
    """

    def __init__(self, leader: Member) -> None:
        """The machine code that hands over is loaded here: whatever compiling and loading raise."""
        self._leader = leader
        self._post = np.zeros(2 + _WORDS, np.int64)
        self._words = self._post[2:].view(np.uint8).data
        blocks = np.zeros((leader.count, _WORDS), np.int64)
        entry, block = cast(Kernel, _hand_over).prepared(self._leader, self._post, blocks)
        self._hand_over = partial(entry.call, block)
        self.assist = cast(Kernel, _assist).bound(self._post, blocks)
        """What the others call."""
        self.assist.prepared(self._leader)

    @property
    def size(self) -> int:
        return self._leader.count

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> None:
        entry, block = cast("Kernel | Bound", function).prepared(self._leader, *arguments)
        self._words[: len(block)] = block
        self._post[0], self._post[1] = entry.address, len(block) // 8
        self._hand_over()

    def dismiss(self) -> None:
        """Let the others return."""
        self._post[0] = 0
        self._hand_over()


@operation(VOID, INT64, ARRAY)
def call_entry(b: Builder, address: Value, block: Value) -> None:
    """nothing; calls the entry of a kernel with the address of its arguments"""
    signature = ir.FunctionType(WORD, [WORD.as_pointer()])
    b.call(b.inttoptr(address, signature.as_pointer()), [block])


@inlined
def _run_posted(me: Member, post: I64, blocks: NDArray[np.int64]) -> None:
    """Call the entry at post[0] with the post[1] words behind, the first of which is the number of the member."""
    block = blocks[me.index]
    for i in range(post[1]):
        block[i] = post[2 + i]
    block[0] = me.index
    call_entry(post[0], block)


@kernel
def _hand_over(me: Member, post: I64, blocks: NDArray[np.int64]) -> None:
    """The leader's part: what it has posted is run by all, and finished; if nothing is posted, the others return."""
    barrier(me)
    if post[0]:
        _run_posted(me, post, blocks)
        barrier(me)


@kernel
def _assist(me: Member, post: I64, blocks: NDArray[np.int64]) -> None:
    """The part of the others, kernel after kernel."""
    barrier(me)
    while post[0]:
        _run_posted(me, post, blocks)
        barrier(me)  # all have finished
        barrier(me)  # the next one is posted
