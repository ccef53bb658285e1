"""A sound that is measured: its samples, at whatever rate a measure asks for."""

from __future__ import annotations

import numpy as np

from ..audio.files import AudioLike, read_audio, resample
from ..ops import Wave


class Clip:
    """A mono waveform [samples], and the same at other rates, each computed once."""

    def __init__(self, wave: Wave, rate: int) -> None:
        """``rate`` in Hz."""
        self.wave: Wave = wave
        self.rate: int = rate
        self._at: dict[int, Wave] = {rate: wave}

    @classmethod
    def read(cls, source: AudioLike) -> Clip:
        """Anything that ``read_audio`` takes; several channels become their mean."""
        return cls(*read_audio(source))

    def at(self, rate: int) -> Wave:
        """[samples] at ``rate`` Hz, float32, resampled as ``librosa.resample`` does."""
        if rate not in self._at:
            self._at[rate] = resample(self.wave, self.rate, rate).astype(np.float32, copy=False)
        return self._at[rate]

    @property
    def seconds(self) -> float:
        """Its length."""
        return len(self.wave) / self.rate
