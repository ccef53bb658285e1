"""A signal that passes through causal layers in blocks, by several threads at once, as if it came in one piece.

A causal layer needs of the past only the last rows that came before a block. It keeps them when it has read a block,
for the next one. So blocks may be as short as one likes (they stay in the cache), and a stream may stop and go on.

Threads take a block each and follow one another through the layers: no block enters a layer before the one ahead of
it has. They meet nowhere else, and since every result is the same sum whatever block it falls into, the number of
threads and the length of the blocks change nothing, not even the last bit.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Any

from qwen3tts_np_kernels.threads_jit import Member, Team

from ...ops import F32, AnyArray


class Stream:
    """What the layers keep of the past, and how far each has come."""

    def __init__(self) -> None:
        self._position = 0  # rows that have passed
        self._blocks = 0  # that have passed
        self._kept: dict[str, F32] = {}
        self._entered: dict[str, int] = {}  # layer -> the block that may enter it
        self._moved = threading.Condition()
        self._stopped = False

    def run(
        self, team: Team, x: AnyArray, y: AnyArray, block_rows: int, work: Callable[[Any, Block], AnyArray]
    ) -> None:
        """Fill y with work(x), block by block: about ``block_rows`` rows each, as many at once as there are threads.

        x [T, ...] and y [T, ...] hold the next T rows; ``work`` may return the rows of a block in any shape.
        RuntimeError if a former run was cut short: what the layers have kept of it is useless.
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
                pass  # whoever stopped it says why
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
        """x, its first ``past`` rows filled with the last that ``layer`` read, zeros at first; keeps the last of x.

        Call it once in every block for every layer, when all other rows of x are written.
        """
        stream = self._stream
        with stream._moved:
            stream._moved.wait_for(lambda: stream._entered.get(layer, 0) == self._number or stream._stopped)
            if stream._stopped:
                raise _Stopped
            x[:past] = stream._kept.get(layer, 0)
            stream._kept[layer] = x[len(x) - past :].copy()
            stream._entered[layer] = self._number + 1
            stream._moved.notify_all()
        return x


class _Stopped(Exception):
    """Another thread failed."""
