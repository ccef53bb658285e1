"""Causal layers applied to signals in blocks, by several threads at once, with the result of a single pass.

A causal layer needs only the last rows before a block. It keeps those of each block for the next one. So blocks may be
of any length (short ones stay in the cache), and a stream may stop and continue. Several streams go through together,
one after another: a block that holds rows of several reads every weight once for all of them.

Each thread takes a block, and the blocks of a stream enter every layer in order. There is no other synchronisation.
Where there are too few rows for that, all threads compute a single block together, kernel by kernel (``passes.py``), so
that its weights are read once and no thread is idle.

Since every result is the same sum whatever block it is in, the number of threads, the length of the blocks and the
other streams do not change a single bit.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from qwen3tts_np_kernels.arrays import I64
from qwen3tts_np_kernels.conv_jit import signal_slices
from qwen3tts_np_kernels.rows_jit import copy_rows, pass_on
from qwen3tts_np_kernels.team import Team
from qwen3tts_np_kernels.threads_jit import Member
from qwen3tts_np_kernels.together_jit import ALONE, Runner

from ...ops import F32, AnyArray

TURN_THREADS = 4
"""At most, of a complete signal. Its layers are short calls of NumPy and kernels, between which a thread holds Python's
lock: on 16 cores eight threads took 1.2 times as long as four, and sixteen 2.3 times."""


class Kept(NamedTuple):
    """Rows that a layer keeps."""

    rows: int
    values: F32  # of all rows, flat
    address: int  # of values


class Stream:
    """The past rows kept by the layers, and in a run the progress of each layer."""

    def __init__(self) -> None:
        self.position = 0  # rows processed
        self.failed: bool = False  # an earlier run was interrupted: the rows kept by the layers are inconsistent
        self._kept: dict[str, Kept] = {}
        self._entered: dict[str, int] = {}  # layer -> the block of this run that may enter it
        self._moved = threading.Condition()

    @property
    def lengths(self) -> dict[str, int]:
        """The number of rows kept, by layer."""
        return {layer: kept.rows for layer, kept in self._kept.items()}

    def kept(self, layer: str, rows: int, width: int) -> Kept:
        """What ``layer`` keeps, zeros at first: so many rows of this width."""
        if layer not in self._kept:
            values = np.zeros(rows * width, np.float32)
            self._kept[layer] = Kept(rows, values, values.ctypes.data)
        return self._kept[layer]

    def begin(self) -> None:
        """A run begins: its blocks are numbered from 0."""
        self._entered.clear()

    def run(
        self,
        team: Team,
        x: AnyArray,
        y: AnyArray,
        block_rows: int,
        work: Callable[[Any, Block], AnyArray],
        most: int | None = None,
    ) -> None:
        """:func:`run` for this stream alone."""
        run([self], [len(x)], team, x, y, block_rows, work, most=most)

    def enter(self, layer: str, block: int, x: F32, past: int, runner: Runner) -> None:
        """:meth:`Block.after_past` of one part, once the block ahead of it has entered ``layer``."""
        with self._moved:
            self._moved.wait_for(lambda: self._entered.get(layer, 0) == block or self.failed)
            if self.failed:
                raise _Stopped
            if past:
                rows = layer, past, x[0].size
                pass_on(x, past, runner.kept(self.kept(*rows).values, (self, rows)), runner)
            self._entered[layer] = block + 1
            self._moved.notify_all()

    def fail(self) -> None:
        """End all threads that are at work on it."""
        with self._moved:
            self.failed = True
            self._moved.notify_all()


class Part(NamedTuple):
    """Consecutive rows of one stream."""

    stream: Stream
    block: int  # number of the block among those of the stream, in this run
    position: int  # rows of the stream before these
    rows: int


class Block:
    """Consecutive rows of a stream, or of several streams, one after another; ``run`` runs the kernels on them."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = parts
        self.run: Runner = ALONE

    def __len__(self) -> int:
        """Rows, of all parts."""
        return sum(part.rows for part in self.parts)

    @property
    def position(self) -> int:
        """Rows of the first stream before this block."""
        return self.parts[0].position

    @cached_property
    def rows(self) -> I64:
        """[parts] rows of each part."""
        return np.array([part.rows for part in self.parts], np.int64)

    def signals(self, rows: int) -> I64:
        """[parts] rows of each part in a layer where all have ``rows`` together, the same number for each of ours."""
        return self.rows * (rows // int(self.rows.sum()))

    def split(self, x: F32, past: int = 0) -> list[F32]:
        """The rows of each part: views of x, in which ``past`` rows come before those of each part."""
        if len(self.parts) == 1:
            return [x]
        return [x[here] for here, _ in signal_slices(self.signals(len(x) - past * len(self.parts)), past)]

    def after_past(self, layer: str, x: F32, past: int) -> F32:
        """x with the ``past`` rows before those of each part filled with the last that ``layer`` read of its stream.

        They are zeros at first; the last rows of x are kept. Call it once per block and layer, when all other rows of x
        are written.
        """
        for part, rows in zip(self.parts, self.split(x, past), strict=True):
            part.stream.enter(layer, part.block, rows, past, self.run)
        return x

    def known(self, of: Callable[[Block], Sequence[AnyArray]]) -> Sequence[AnyArray]:
        """The arrays ``of(block)``: what follows from where a block is, whatever its rows hold.

        Trap: a pass that is recorded calls ``of`` again for later blocks of as many rows, so ``of`` must not hold on to
        what they belong to.
        """
        return self.run.given(of(self), of)

    def room(self, past: int, rows: int, *row: int, behind: int = 0) -> Room:
        """An array for ``rows`` rows of this shape, which a layer will read after ``past`` others.

        ``behind``: rows without meaning that follow in memory.
        """
        return Room(self, past, rows, row, behind)


class Room:
    """Rows to be written to ``rows``, and then read by a layer after the past ones of each part."""

    def __init__(self, block: Block, past: int, rows: int, row: tuple[int, ...], behind: int) -> None:
        self.past: int = past
        self._block = block
        parts = len(block.parts)
        self._whole = block.run.empty(parts * past + rows + behind, *row)[: parts * past + rows]
        self.rows: F32 = self._whole[past:] if parts == 1 else block.run.empty(rows, *row)

    def read(self, layer: str) -> F32:
        """The rows of each part after those that ``layer`` read before."""
        if len(self._block.parts) > 1:
            for whole, rows in zip(
                self._block.split(self._whole, self.past), self._block.split(self.rows), strict=True
            ):
                copy_rows(rows, whole[self.past :], self._block.run)
        return self._block.after_past(layer, self._whole, self.past)


def run(
    streams: Sequence[Stream],
    lengths: Sequence[int],
    team: Team,
    x: AnyArray,
    y: AnyArray,
    block_rows: int,
    work: Callable[[Any, Block], AnyArray],
    most: int | None = None,
) -> None:
    """Fill y with work(x) in blocks of about ``block_rows`` rows, as many at once as there are threads.

    ``most`` threads work. x [T, ...] and y [T, ...] hold the next rows of each stream, as many as ``lengths`` says, one
    after another; ``work`` may return the rows of a block in any shape. Raises RuntimeError for a stream of which an
    earlier run was interrupted.
    """
    threads = min(team.size, most or team.size)
    blocks = min(-(-len(x) // (block_rows * threads)) * threads, len(x))
    edges = [len(x) * i // max(blocks, 1) for i in range(blocks + 1)]
    slices = [slice(*edge) for edge in itertools.pairwise(edges)]

    def follow(me: Member) -> None:
        try:
            at_work = min(me.count, threads)
            for now, block in ahead[me.index :: at_work] if me.index < at_work else ():
                y[now] = work(x[now], block).reshape(y[now].shape)
        except _Stopped:
            pass  # the thread that failed reports why
        except BaseException:
            _fail(streams)
            raise

    with failing(streams):
        ahead = list(zip(slices, blocks_of(streams, lengths, slices), strict=True))
        if ahead:
            team.run(follow)


@contextmanager
def failing(streams: Sequence[Stream]) -> Iterator[None]:
    """Whatever ends this early makes the streams unusable. RuntimeError if one of them is."""
    if any(stream.failed for stream in streams):
        raise RuntimeError("this stream has failed before; start a new one")
    try:
        yield
    except BaseException:
        _fail(streams)
        raise


def run_in_turns(team: Team, x: AnyArray, y: AnyArray, block_rows: int, work: Callable[[Any, Block], AnyArray]) -> None:
    """:func:`run` of a complete signal, some blocks at a time, so that others who use the team have their turns."""
    stream, rows = Stream(), block_rows * min(team.size, TURN_THREADS)
    for start in range(0, len(x), rows):
        stream.run(team, x[start : start + rows], y[start : start + rows], block_rows, work, TURN_THREADS)


def blocks_of(streams: Sequence[Stream], lengths: Sequence[int], slices: Sequence[slice]) -> list[Block]:
    """The blocks at these slices of all streams, one after another, in a new run; they are counted as processed."""
    ends = list(itertools.accumulate(lengths))
    blocks, begun = list[Block](), [0] * len(ends)
    for stream in streams:
        stream.begin()
    for now in slices:
        parts = []
        for i, (stream, start, end) in enumerate(zip(streams, [0, *ends], ends, strict=False)):
            rows = min(now.stop, end) - max(now.start, start)
            if rows > 0:
                parts.append(Part(stream, begun[i], stream.position, rows))
                begun[i] += 1
                stream.position += rows
        blocks.append(Block(parts))
    return blocks


def _fail(streams: Sequence[Stream]) -> None:
    for stream in streams:
        stream.fail()


class _Stopped(Exception):
    """Another thread failed."""
