"""Speech made faster or slower without a change of pitch: FFmpeg's ``atempo`` (WSOLA), by way of PyAV.

The result depends on the samples alone, not on the packets in which they come, and has exactly ``samples / tempo`` of
them, to the nearest. What waits inside is up to 100 ms of the input.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arguments import real_number
from ..errors import RequestError
from ..extras import imported, install
from ..ops import Wave
from ..shown import shortened

LEAST, MOST = 0.25, 4.0
LEAST_OF_A_FILTER = 0.5
PURPOSE = "another tempo"
BLOCK = 0.04  # s, fed at once. Trap: atempo clicks where it is fed less than 10 ms, and fails on a single sample


def check_tempo(value: Any, name: str = "tempo") -> float:
    """``value`` as a factor of speed: 2 is twice as fast. RequestError unless it is one that can be made here."""
    tempo = real_number(value)
    if not LEAST <= tempo <= MOST:
        raise RequestError(f"{name}={shortened(value)} must be a number from {LEAST:g} to {MOST:g}")
    if tempo != 1:
        _filters()
    return tempo


class Stretch:
    """One piece of speech at another tempo: :meth:`feed` its packets in turn, then :meth:`finish`."""

    def __init__(self, tempo: float, rate: int) -> None:
        """``rate`` in Hz. RequestError where PyAV is missing."""
        self._av, self._tempo, self._rate = _filters(), tempo, rate
        self._taken = self._pushed = self._given = 0  # samples
        self._held, self._block = np.zeros(0, np.float32), round(BLOCK * rate)
        self._graph = self._av.filter.Graph()
        last = self._graph.add_abuffer(format="flt", sample_rate=rate, layout="mono")
        parts = 1 if tempo >= LEAST_OF_A_FILTER else 2
        for name, options in [*[("atempo", repr(tempo ** (1 / parts)))] * parts, ("abuffersink", None)]:
            following = self._graph.add(name, options)
            last.link_to(following)
            last = following
        self._graph.configure()

    def feed(self, wave: Wave) -> Wave:
        """The next samples [samples]; those that are ready [samples]."""
        self._taken += len(wave)
        self._held = np.concatenate([self._held, wave.astype(np.float32)])
        return self._push()

    def finish(self) -> Wave:
        """The rest [samples]."""
        missing = round(self._taken / self._tempo) - self._given
        silence = np.zeros(2 * self._block, np.float32)  # behind the end, so that all of it comes out
        self._held = np.concatenate([self._held, silence])
        late = self._push()
        self._graph.push(None)
        rest = np.concatenate([late, self._ready()])[:missing]
        return np.concatenate([rest, np.zeros(missing - len(rest), np.float32)])

    def _push(self) -> Wave:
        """The complete blocks of what is held, through the filters."""
        while len(self._held) >= self._block:
            block, self._held = self._held[: self._block], self._held[self._block :]
            frame = self._av.AudioFrame.from_ndarray(block[None], format="flt", layout="mono")
            frame.sample_rate, frame.pts = self._rate, self._pushed
            self._pushed += len(block)
            self._graph.push(frame)
        return self._ready()

    def _ready(self) -> Wave:
        ready = [np.zeros(0, np.float32)]
        while True:
            try:
                ready.append(self._graph.pull().to_ndarray()[0])
            except (self._av.error.BlockingIOError, self._av.error.EOFError):
                wave = np.concatenate(ready)
                self._given += len(wave)
                return wave


def at_tempo(wave: Wave, tempo: float, rate: int) -> Wave:
    """A complete piece [samples] at another tempo [samples / tempo]."""
    stretch = Stretch(tempo, rate)
    return np.concatenate([stretch.feed(wave), stretch.finish()])


def _filters() -> Any:
    """PyAV."""
    imported("av.filter", PURPOSE, install("tempo"))
    return imported("av", PURPOSE, install("tempo"))
