"""Speech-like clips from a formula: the recorder's input for the codec and the speaker encoder."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def clip(sample_rate: int, samples: int, seed: int) -> NDArray[np.int16]:
    """A gliding voice with vibrato and formants, cut into syllables, over breath noise. [samples], 16 bit.

    The cases store the samples, so nothing depends on the rounding of ``sin`` on another machine.
    """
    rng = np.random.RandomState(seed)
    t = np.arange(samples) / sample_rate  # seconds
    low, high, tempo, phase = rng.uniform([90, 150, 2.5, 0], [140, 260, 5.0, 1])
    glide = np.sin(2 * np.pi * (0.4 * t + phase))
    pitch = low + (high - low) * (0.5 + 0.5 * glide) + 4 * np.sin(2 * np.pi * 5.5 * t)
    turns = np.cumsum(pitch) / sample_rate
    first, second = 500 + 250 * glide, 1500 - 600 * glide  # formants, Hz
    voice = np.zeros(samples)
    for k in range(1, 31):
        at = k * pitch
        loud = 1 / (1 + ((at - first) / 120) ** 2) + 0.5 / (1 + ((at - second) / 180) ** 2) + 0.02
        voice += np.where(at < sample_rate / 2, loud, 0) * np.sin(2 * np.pi * k * turns)
    syllables = np.clip(np.sin(2 * np.pi * tempo * t + 6 * phase) + 0.4, 0, None) ** 0.7
    sound = voice * syllables + 0.05 * (0.3 + syllables) * rng.standard_normal(samples)
    return np.round(sound / np.abs(sound).max() * 0.6 * 32767).astype(np.int16)


def as_float(samples: NDArray[np.int16]) -> NDArray[np.float32]:
    """16 bit samples as soundfile reads them: divided by 32768, without rounding."""
    return (samples / np.float32(32768)).astype(np.float32)
