"""Causal layers applied to a signal in blocks, by several threads at once, with the result of a single pass.

A causal layer needs only the last rows before a block. It keeps those of each block for the next one. So blocks may be
of any length (short ones stay in the cache), and a stream may stop and continue.

Each thread takes a block, and blocks enter every layer in order. There is no other synchronisation, and since every
result is the same sum whatever block it is in, the number of threads and the length of the blocks do not change a
single bit.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Any

from qwen3tts_np_kernels.threads_jit import Member, Team

from ...ops import F32, AnyArray


class Stream:
    """The past rows kept by the layers, and the progress of each layer."""

    def __init__(self) -> None:
        self._position = 0  # rows processed
        self._blocks = 0  # blocks processed
        self._kept: dict[str, F32] = {}
        self._entered: dict[str, int] = {}  # layer -> the block that may enter it
        self._moved = threading.Condition()
        self._stopped = False

    @property
    def lengths(self) -> dict[str, int]:
        """The number of rows kept, by layer."""
        return {layer: len(kept) for layer, kept in self._kept.items()}

    def run(
        self, team: Team, x: AnyArray, y: AnyArray, block_rows: int, work: Callable[[Any, Block], AnyArray]
    ) -> None:
        """Fill y with work(x) in blocks of about ``block_rows`` rows, as many at once as there are threads.

        x [T, ...] and y [T, ...] hold the next T rows; ``work`` may return the rows of a block in any shape.
        Raises RuntimeError if an earlier run was interrupted: the rows kept by the layers are then inconsistent.
        """
        if self._stopped:
            raise RuntimeError("this stream has failed before; start a new one")
        if len(x) == 0:
            return
        blocks = min(-(-len(x) // (block_rows * team.size)) * team.size, len(x))
        edges = [len(x) * i // blocks for i in range(blocks + 1)]
        slices = [slice(*edge) for edge in itertools.pairwise(edges)]
        ahead = [(now, Block(self, self._blocks + i, self._position + now.start)) for i, now in enumerate(slices)]

        def follow(me: Member) -> None:
            try:
                for now, block in ahead[me.index :: me.count]:
                    y[now] = work(x[now], block).reshape(y[now].shape)
            except _Stopped:
                pass  # the thread that failed reports why
            except BaseException:
                self._stop()
                raise

        try:
            team.run(follow)
        except BaseException:
            self._stop()
            raise
        self._position += len(x)
        self._blocks += blocks

    def enter(self, layer: str, block: int, x: F32, past: int) -> F32:
        """:meth:`Block.after_past` of a block, once the one ahead of it has entered ``layer``."""
        with self._moved:
            self._moved.wait_for(lambda: self._entered.get(layer, 0) == block or self._stopped)
            if self._stopped:
                raise _Stopped
            x[:past] = self._kept.get(layer, 0)
            self._kept[layer] = x[len(x) - past :].copy()
            self._entered[layer] = block + 1
            self._moved.notify_all()
        return x

    def _stop(self) -> None:
        with self._moved:
            self._stopped = True
            self._moved.notify_all()


class Block:
    """Some consecutive rows of a stream."""

    def __init__(self, stream: Stream, number: int, position: int) -> None:
        self.position = position  # rows of the stream before this block
        self._stream, self._number = stream, number

    def after_past(self, layer: str, x: F32, past: int) -> F32:
        """x with its first ``past`` rows filled with the last that ``layer`` read, zeros at first; keeps the last of x.

        Call it once per block and layer, when all other rows of x are written.
        """
        return self._stream.enter(layer, self._number, x, past)


class _Stopped(Exception):
    """Another thread failed."""
