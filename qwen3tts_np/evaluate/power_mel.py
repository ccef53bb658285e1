"""The mel spectrogram that ``librosa.feature.melspectrogram`` computes by default: of power, not of magnitude.

Two judges read it, with windows and numbers of filters of their own. Official: librosa 0.11, ``feature/spectral.py``;
frames are centred on their samples and what lies beyond the ends is 0, the window is a periodic Hann window.
"""

from __future__ import annotations

import numpy as np

from ..ops import Array, Wave
from ..speaker.mel import hann_window, mel_filters


def power_mel(wave: Wave, rate: int, window: int, hop: int, mels: int) -> Array:
    """wave [samples] at ``rate`` Hz -> float32 [T, mels], T = 1 + samples // hop; ``window`` and ``hop`` in samples."""
    padded = np.pad(wave.astype(np.float64), window // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]  # [T, window]
    power = np.abs(np.fft.rfft(frames * hann_window(window))) ** 2  # [T, window // 2 + 1]
    return (power @ mel_filters(rate, window, mels, rate / 2).T).astype(np.float32)
