"""Memory bandwidth of this machine: the upper bound of every decode step, measured in the same run."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray
from qwen3tts_np_kernels.cpu import kernel
from qwen3tts_np_kernels.simd.ops import add_int, load_int, total_int, zeros_int
from qwen3tts_np_kernels.team import Team
from qwen3tts_np_kernels.threads_jit import Member, share

BYTES = 1 << 30
_STEP = 256  # bytes: four vectors


@kernel
def _read(me: Member, data: NDArray[np.int32], sums: NDArray[np.int32]) -> None:
    """Sum everything, each thread its part, so that no read can be optimised away."""
    first, end = share(me, data.size * 4 // _STEP)
    a, b, c, d = zeros_int(), zeros_int(), zeros_int(), zeros_int()
    for i in range(first, end):
        at = i * (_STEP // 4)
        a, b = add_int(a, load_int(data, at)), add_int(b, load_int(data, at + 16))
        c, d = add_int(c, load_int(data, at + 32)), add_int(d, load_int(data, at + 48))
    sums[me.index] = total_int(add_int(add_int(a, b), add_int(c, d)))


class Stream:
    """A plain read of 1 GB with the threads of a team."""

    def __init__(self, team: Team) -> None:
        self._team = team
        self._data = np.arange(BYTES // 4, dtype=np.int32)
        self._sums = np.zeros(team.size, np.int32)
        self.best = 0.0  # bytes per second, over all runs so far
        self.run()

    def run(self) -> float:
        """Bytes per second of one pass."""
        start = time.perf_counter()
        self._team.run(_read, self._data, self._sums)
        rate = BYTES / (time.perf_counter() - start)
        self.best = max(self.best, rate)
        return rate
