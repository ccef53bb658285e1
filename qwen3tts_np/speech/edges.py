"""The edges of a piece of a longer text: silence is trimmed, and the rest fades in and out.

The look-ahead is a few milliseconds, so a piece has the same edges whether it arrives complete or packet by packet
while it is being spoken.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..ops import Wave

QUIET = 10 ** (-52 / 20)  # of full scale; speech peaks at 0.2 to 0.9, so this is 40 to 50 dB below it
EDGE = 30  # ms of what is quieter that stay, for soft consonants and breath
FADE = 5  # ms at each edge, from and to zero


class Edges:
    """Trims and fades one piece: :meth:`feed` its packets in turn, then :meth:`finish`."""

    def __init__(self, rate: int) -> None:
        """``rate`` in Hz."""
        self._edge, self._fade = rate * EDGE // 1000, rate * FADE // 1000
        self._held = np.zeros(0, np.float32)  # what may still be cut off or faded
        self._sure = 0  # where the last loud one of it ends; below 0 when that is gone
        self._begun = self._faded_in = False

    def feed(self, wave: Wave) -> Wave:
        """The next samples [samples]; those that are ready [samples]."""
        loud = np.flatnonzero(np.abs(wave) > QUIET) + len(self._held)
        self._held = np.concatenate([self._held, wave])
        if not len(loud) and not self._begun:
            self._held = self._held[max(0, len(self._held) - self._edge) :]
        elif len(loud):
            if not self._begun:
                self._begun, start = True, max(0, int(loud[0]) - self._edge)
                self._held, loud = self._held[start:], loud - start
            self._sure = int(loud[-1]) + 1
        return self._release(min(self._sure + self._edge, len(self._held)) - self._fade)

    def finish(self) -> Wave:
        """End the piece and return the samples that were held back."""
        if not self._begun:
            return np.zeros(0, np.float32)
        rest = self._held[: self._sure + self._edge].copy()
        length = min(self._fade, len(rest) if self._faded_in else len(rest) // 2)
        if not self._faded_in:
            rest[:length] *= ramp(length)
        rest[len(rest) - length :] *= ramp(length)[::-1]
        return rest

    def _release(self, count: int) -> Wave:
        """The next ``count`` samples, the first ones faded in; none while the piece may be too short for two fades."""
        if not self._begun or count < (0 if self._faded_in else self._fade):
            return np.zeros(0, np.float32)
        ready, self._held = self._held[:count].copy(), self._held[count:]
        self._sure -= count
        if not self._faded_in and count:
            ready[: self._fade] *= ramp(self._fade)
            self._faded_in = True
        return ready


def trimmed(wave: Wave, rate: int) -> Wave:
    """A piece [samples] at ``rate`` Hz with its edges trimmed and faded; silence alone leaves nothing."""
    edges = Edges(rate)
    return np.concatenate([edges.feed(wave), edges.finish()])


def ramp(length: int) -> NDArray[np.float32]:
    """[length] From 0 towards 1, half a cosine."""
    ramp = 0.5 - 0.5 * np.cos(np.pi * np.arange(length) / max(length, 1))
    return ramp.astype(np.float32)
