"""A pass of kernels, recorded once, and from then on run by all threads of a team in one call.

A pass of the codec over a short packet is a hundred kernels of some ten microseconds each. Python between two of them
takes longer than many of them, and keeps the other threads waiting. So a pass goes through Python once. A
:class:`Recorder` notes the kernels and their arguments instead of running them, and gives it the memory it works in.
From then on the :class:`Program` runs them in compiled code, with a barrier behind each.

What differs from run to run are the contents of arrays that the pass was given (``Runner.given``), and the address of
memory that belongs to others (``Runner.kept``).
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Hashable, Sequence
from typing import Any, cast

import numpy as np
from llvmlite import ir
from numpy.typing import NDArray

from .arguments import flatten
from .arrays import F32, I64, AnyArray
from .cpu import Kernel, kernel
from .pack import LINE, aligned
from .simd.llvm import ARRAY, INT64, VOID, Builder, Value, operation
from .simd.llvm import I64 as WORD
from .team import Team
from .threads_jit import Member, barrier, members
from .together_jit import call_entry

_CHUNK = 8 << 20  # bytes that memory grows by, at least


class Memory:
    """Working memory of passes, of which one runs at a time: it grows, and is used again where no array is left."""

    def __init__(self) -> None:
        self._chunks: list[AnyArray] = []
        self._addresses: list[int] = []  # of each chunk
        self._free: list[list[tuple[int, int]]] = []  # of each chunk: the bytes from, and up to

    @property
    def nbytes(self) -> int:
        """Bytes taken so far; they are kept."""
        return sum(chunk.nbytes for chunk in self._chunks)

    def empty(self, *shape: int) -> F32:
        """An array in memory that no living array is in.

        Trap: a view of a NumPy array refers to the memory's owner, not to the array. A memoryview between them makes
        all views refer to ``array``, so it lives as long as any of them.
        """
        size = 4 * math.prod(shape)
        number, start, end = self._taken(-(-max(size, 1) // LINE) * LINE)
        chunk: Any = self._chunks[number]
        array = np.frombuffer(memoryview(chunk)[start : start + size], np.float32)
        weakref.finalize(array, self._give_back, number, start, end).atexit = False
        return array.reshape(shape)

    def has(self, address: int) -> bool:
        """Whether it is in this memory."""
        return any(
            0 <= address - first < len(chunk) for first, chunk in zip(self._addresses, self._chunks, strict=True)
        )

    def _taken(self, size: int) -> tuple[int, int, int]:
        """The first place for so many bytes: its chunk, where it begins, and where it ends."""
        for number, places in enumerate(self._free):
            for i, (start, end) in enumerate(places):
                if end - start >= size:
                    places[i : i + 1] = [(start + size, end)] if start + size < end else []
                    return number, start, start + size
        chunk = aligned(max(size, _CHUNK), np.dtype(np.uint8))
        self._chunks.append(chunk)
        self._addresses.append(chunk.ctypes.data)
        self._free.append([(0, len(chunk))])
        return self._taken(size)

    def _give_back(self, number: int, start: int, end: int) -> None:
        """Free a place, as one with those beside it that are."""
        merged = list[tuple[int, int]]()
        for place in sorted([*self._free[number], (start, end)]):
            if merged and merged[-1][1] == place[0]:
                place = merged.pop()[0], place[1]
            merged.append(place)
        self._free[number] = merged


class Recorder:
    """Notes kernels and their arguments, for a team of ``size`` threads that will work in this memory.

    Trap: what NumPy writes to an array while a pass is recorded is there in no later run. All that a pass computes is
    computed by kernels.
    """

    def __init__(self, size: int, memory: Memory) -> None:
        self.size = size
        self.labels_of_given: list[Any] = []
        self.labels_of_kept: list[Any] = []
        self._memory = memory
        self._given: list[Sequence[AnyArray]] = []
        (self._me,) = members(1)
        self._entries: list[int] = []
        self._starts: list[int] = []  # of the arguments of each kernel
        self._words = bytearray()
        self._places: list[tuple[int, int]] = []  # a word that is the address of something kept, and which
        self._strangers: dict[int, tuple[F32, int]] = {}  # the id of what is kept -> itself, so that it lives, which
        self._alive: list[Any] = []

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> None:
        start, words = len(self._words) // 8, list[Any]()
        kinds = [flatten(self._me, words)]
        for argument in arguments:
            at = len(words)
            kinds.append(flatten(argument, words))
            if id(argument) in self._strangers:
                self._places.append((start + at, self._strangers[id(argument)][1]))
            elif isinstance(argument, tuple):
                self._hold(argument)
            elif isinstance(argument, np.ndarray) and not self._memory.has(words[at]):
                self._alive.append(argument)
        entry = cast(Kernel, function).entry(tuple(kinds))
        self._entries.append(entry.address)
        self._starts.append(start)
        self._words += entry.pack(*words)

    def _hold(self, arguments: tuple[Any, ...]) -> None:
        """Keep the arrays of a tuple alive, but for those of the memory."""
        for argument in arguments:
            if isinstance(argument, tuple):
                self._hold(argument)
            elif isinstance(argument, np.ndarray) and not self._memory.has(argument.ctypes.data):
                self._alive.append(argument)

    def empty(self, *shape: int) -> F32:
        return self._memory.empty(*shape)

    def given(self, arrays: Sequence[AnyArray], label: Any) -> Sequence[AnyArray]:
        self.labels_of_given.append(label)
        self._given.append([array.copy() for array in arrays])
        return self._given[-1]

    def kept(self, array: F32, label: Any) -> F32:
        self._strangers[id(array)] = array, len(self.labels_of_kept)
        self.labels_of_kept.append(label)
        return array

    def program(self) -> Program:
        """What has been recorded."""
        line = LINE // 8
        words = np.frombuffer(bytes(self._words), np.int64)
        blocks = np.zeros((self.size, -(-len(words) // line) * line), np.int64)
        blocks[:, : len(words)] = words
        entries, starts = np.array(self._entries, np.int64), np.array(self._starts, np.int64)
        places = np.array(self._places, np.int64).reshape(-1, 2)
        return Program(self._given, entries, starts, blocks, places, (self._alive, self._memory))


class Program:
    """A recorded pass. One thread at a time may prepare and run it, and none while another of its memory runs."""

    def __init__(
        self, given: Sequence[Sequence[AnyArray]], entries: I64, starts: I64, blocks: I64, places: I64, alive: object
    ) -> None:
        self._given, self._blocks, self._alive = given, blocks, alive
        self._words, self._which = places.T
        self._run = cast(Kernel, _run).bound(entries, starts, blocks)

    def prepare(self, contents: Sequence[Sequence[AnyArray]], addresses: Sequence[int]) -> None:
        """State what the given arrays hold, and where that which is kept is, in the order of the recorder's labels."""
        for given, arrays in zip(self._given, contents, strict=True):
            for own, array in zip(given, arrays, strict=True):
                own[...] = array
        if len(self._words):
            self._blocks[:, self._words] = np.array(addresses, np.int64)[self._which]

    def run(self, team: Team, about: Hashable) -> None:
        """Run all of it. ``about`` names passes that take the same time (``Team.lead``)."""
        team.lead(lambda run: run(self._run), about)


@operation(VOID, ARRAY, INT64, INT64, ARRAY, INT64)
def _state(b: Builder, words: Value, index: Value, count: Value, meeting: Value, size: Value) -> None:
    """nothing; writes the words of a Member to the begin of this array"""
    for i, word in enumerate((index, count, b.ptrtoint(meeting, WORD), size)):
        b.store(word, b.gep(words, [ir.Constant(WORD, i)]))


@kernel
def _run(me: Member, entries: I64, starts: I64, blocks: NDArray[np.int64]) -> None:
    """Kernel after kernel, each with this member as its first argument. blocks [threads, words]."""
    for step in range(entries.size):
        block = blocks[me.index, starts[step] :]
        _state(block, me.index, me.count, me.meeting, me.meeting.size)
        call_entry(entries[step], block)
        barrier(me)
