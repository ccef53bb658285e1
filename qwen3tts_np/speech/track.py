"""The audio file of a text: pieces and pauses in sequence; under its final name it is complete or absent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np

from ..audio.files import format_of, open_audio
from ..audio.loudness import at_loudness
from ..errors import RequestError
from ..ops import Pcm

WAV_BYTES = 2**32 - 2**12  # the size in a WAV header has 32 bits


class Writer(Protocol):
    """Takes samples in parts."""

    def write(self, samples: Pcm) -> None: ...


class _Held:
    """Keeps samples until all are there."""

    def __init__(self) -> None:
        self._parts: list[Pcm] = []

    def write(self, samples: Pcm) -> None:
        self._parts.append(samples)

    @property
    def samples(self) -> Pcm:
        return np.concatenate(self._parts)


class Track:
    """An audio file that grows at its end."""

    def __init__(self, file: Writer, path: Path, rate: int) -> None:
        self._file, self._path, self._rate, self._samples = file, path, rate, 0
        self._most = WAV_BYTES // 2 if format_of(path) == "WAV" else None

    @property
    def seconds(self) -> float:
        return self._samples / self._rate

    def append(self, samples: Pcm) -> float:
        """Write ``samples`` and return the time in seconds at which they end."""
        self._samples += len(samples)
        if self._most is not None and self._samples > self._most:
            hours = self._most / self._rate / 3600
            raise RequestError(
                f"{self._path}: a WAV file holds {hours:.0f} hours; write .flac, finished pieces are kept"
            )
        self._file.write(samples)
        return self.seconds

    def pause(self, ms: int) -> float:
        """Write silence and return the time in seconds at which it ends."""
        return self.append(np.zeros(self._rate * ms // 1000, np.int16))


@contextmanager
def open_track(target: Path, rate: int, loudness: float | None = None, *, sole: bool = False) -> Iterator[Track]:
    """A track that becomes ``target`` once it is complete; at a ``loudness`` in LUFS, it is held until then.

    ``sole``: see ``output_file``.
    """
    with open_audio(target, rate, sole=sole) as file:
        if loudness is None:
            yield Track(file, target, rate)
            return
        held = _Held()
        yield Track(held, target, rate)
        file.write(at_loudness(held.samples, rate, loudness))
