"""Log-mel spectrogram: the input of the speaker encoder.

Official: ``mel_spectrogram`` and ``Qwen3TTSForConditionalGeneration.extract_speaker_embedding``, which sets these
constants; the filters are those of ``librosa.filters.mel``. Traps: magnitude, not power; 1e-9 is added under the root,
1e-5 is the floor under the natural logarithm; the frames start 384 samples before the clip, not 512.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..ops import Array

SAMPLE_RATE = 24000  # Hz
WINDOW = 1024  # samples, also the length of the FFT
HOP = 256  # samples between frames
MELS = 128
TOP = 12000.0  # Hz
PAD = (WINDOW - HOP) // 2  # samples of reflection padding at either end: n samples give n // HOP frames


def log_mel(audio: Array) -> Array:
    """audio [samples], mono at 24 kHz, more than ``PAD`` of them -> [T, MELS] with T = samples // HOP.

    The transform runs in float64 for any input type: a clip recorded at 16 kHz is silent above 8 kHz, where the
    logarithm would show the rounding of a float32 transform, which differs between libraries.
    """
    padded = np.pad(audio.astype(np.float64), PAD, mode="reflect")
    magnitude = np.sqrt(power_spectrum(padded, hann_window()) + 1e-9).astype(audio.dtype)
    mel = magnitude @ mel_filters().astype(audio.dtype).T  # [T, MELS]
    return np.log(np.maximum(mel, 1e-5))


def power_spectrum(padded: Array, window: Array) -> Array:
    """padded [samples], float64, and a window [WINDOW] -> |FFT|² of the frames every ``HOP`` [T, WINDOW/2 + 1]."""
    frames = np.lib.stride_tricks.sliding_window_view(padded, len(window))[::HOP]  # [T, WINDOW]
    spectrum = np.fft.rfft(frames * window)
    return np.asarray(spectrum.real**2 + spectrum.imag**2)


@cache
def hann_window(window: int = WINDOW) -> NDArray[np.float32]:
    """The periodic Hann window [window]: one period is as many samples, so the last is not 0."""
    phase = 2 * math.pi * np.arange(window) / window
    return (0.5 - 0.5 * np.cos(phase)).astype(np.float32)


@cache
def mel_filters(
    rate: int = SAMPLE_RATE, window: int = WINDOW, mels: int = MELS, top: float = TOP
) -> NDArray[np.float32]:
    """Triangular filters [mels, window // 2 + 1] on Slaney's mel scale, each of area 1 in Hz (``norm="slaney"``).

    ``rate`` in Hz, ``window`` in samples; the filters reach up to ``top`` Hz.

    The values are rounded to float32 where librosa rounds them; a float64 run widens these same values, so that it
    measures the arithmetic and not another table.
    """
    corners = mel_to_hz(np.linspace(0.0, hz_to_mel(top), mels + 2))  # [mels + 2] start, peaks, end
    height = 2.0 / (corners[2:] - corners[:-2])  # [mels] per Hz
    return (triangles(corners, rate, window) * height[:, None]).astype(np.float32)


def triangles(corners: NDArray[np.floating[Any]], rate: int, window: int) -> NDArray[np.float32]:
    """Filters of height 1 [mels, window // 2 + 1]; ``corners`` [mels + 2] are start, peaks and end in Hz."""
    bins = np.fft.rfftfreq(window, 1 / rate)  # [window // 2 + 1] Hz
    distance = corners[:, None] - bins  # [mels + 2, window // 2 + 1] Hz
    width = np.diff(corners)[:, None]  # [mels + 1, 1] Hz
    rising, falling = -distance[:-2] / width[:-1], distance[2:] / width[1:]
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)


# Slaney's scale (Auditory Toolbox, 1998): linear up to 1000 Hz, then 27 steps per factor of 6.4.
_LINEAR = 200 / 3  # Hz per mel
_KNEE = 1000.0  # Hz
_STEP = math.log(6.4) / 27


def hz_to_mel(hz: float) -> float:
    return hz / _LINEAR if hz < _KNEE else _KNEE / _LINEAR + math.log(hz / _KNEE) / _STEP


def mel_to_hz(mel: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    knee = _KNEE / _LINEAR
    return np.where(mel < knee, mel * _LINEAR, _KNEE * np.exp(_STEP * (mel - knee)))
