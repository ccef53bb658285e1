"""Short packets: passes over few frames, each recorded once and then run in one call (``program_jit.py``).

What is recorded depends on the layers and on the number of rows of each stream, not on which streams they are nor how
far they have come. So the next packets, and those of other streams, find it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from qwen3tts_np_kernels.cpu import compiled
from qwen3tts_np_kernels.program_jit import Memory, Program, Recorder
from qwen3tts_np_kernels.team import Team
from qwen3tts_np_kernels.together_jit import ALONE, Runner

from ...ops import F32, AnyArray
from .pipeline import Block, Stream, blocks_of, failing

MOST = 8
"""Passes that are remembered: those used last."""

Work = Callable[[Any, Block], F32]


class _Pass(NamedTuple):
    program: Program
    result: F32
    known: tuple[Callable[[Block], Sequence[AnyArray]], ...]
    """What states the arrays that the program is given after the rows it works on."""
    kept: tuple[tuple[int, tuple[str, int, int]], ...]
    """Which of all streams, and the layer, the number and the width of the rows that it keeps."""


class _Place:
    """Passes that work in one memory, one at a time."""

    def __init__(self) -> None:
        self.memory = Memory()
        self.passes: dict[tuple[object, ...], _Pass] = {}


class Passes:
    """The passes of a decoder.

    Trap: whoever decodes takes a place out of the list and puts it back at the end, since others may decode at the same
    time, and not after an interrupt, which may come after any line.
    """

    def __init__(self) -> None:
        self._idle: list[_Place] = []

    def run(
        self,
        works: Sequence[Work],
        pasts: Sequence[Sequence[Stream]],
        lengths: Sequence[int],
        team: Team,
        x: AnyArray,
    ) -> F32:
        """What the last of ``works`` makes of what the one before it makes ... of x [T, ...], all rows in one block.

        ``pasts``: the streams of each of ``works``; ``lengths``: how many rows of x are the next of each stream.
        """
        streams = [stream for past in pasts for stream in past]
        with failing(streams):
            blocks = [blocks_of(past, lengths, [slice(0, len(x))])[0] for past in pasts]
            if not compiled():
                return _through(works, blocks, x, ALONE)
            place = self._idle.pop() if self._idle else _Place()
            key = (*(work.__name__ for work in works), *lengths)
            known = place.passes.pop(key, None) or _recorded(works, blocks, streams, x, team.size, place.memory)
            place.passes[key] = known  # the latest
            for oldest in list(place.passes)[:-MOST]:
                del place.passes[oldest]
            contents = [[x], *(of(blocks[0]) for of in known.known)]
            known.program.prepare(contents, [streams[i].kept(*rows).address for i, rows in known.kept])
            known.program.run(team, key)
            y = known.result.copy()
            self._idle.append(place)
            return y


def _recorded(
    works: Sequence[Work], blocks: Sequence[Block], streams: list[Stream], x: AnyArray, threads: int, memory: Memory
) -> _Pass:
    recorder = Recorder(threads, memory)
    result = _through(works, blocks, recorder.given([x], None)[0], recorder)
    kept = [(streams.index(stream), rows) for stream, rows in recorder.labels_of_kept]
    return _Pass(recorder.program(), result, tuple(recorder.labels_of_given[1:]), tuple(kept))


def _through(works: Sequence[Work], blocks: Sequence[Block], x: AnyArray, run: Runner) -> F32:
    for work, block in zip(works, blocks, strict=True):
        block.run = run
        x = work(x, block)
        x = x.reshape(len(block), -1, *x.shape[1:])
    return x
