"""Objective comparison of two sounds: length, level, lag, difference after alignment, mel distance.

Both are converted to mono and compared at 24 kHz. B is aligned to A at the peak of their cross-correlation and scaled
by the best-fitting gain; the signal-to-noise ratio is that of A against the remaining difference. Levels are in dB
relative to full scale.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..audio.files import AudioLike, read_audio, resample
from ..errors import RequestError
from ..ops import Wave
from ..speaker.mel import HOP, MELS, PAD, SAMPLE_RATE, log_mel

Mel = NDArray[np.floating[Any]]  # [T, MELS], dB

FLOOR = -120.0  # dB, of silence
LONGEST_WARP = 60  # s
DECIBELS = 20 / math.log(10)  # in one unit of a natural logarithm


@dataclass(frozen=True)
class Sound:
    """One of the two sounds, as read."""

    name: str
    rate: int  # Hz
    samples: int
    seconds: float
    rms_db: float
    peak_db: float


@dataclass(frozen=True)
class AudioComparison:
    """The comparison of A and B; positive numbers mean that B is greater or later."""

    a: Sound
    b: Sound
    identical: bool  # every sample, at one rate
    seconds_longer: float
    louder_db: float  # by root mean square, over everything
    lag_samples: int  # at 24 kHz
    lag_seconds: float
    overlap_seconds: float  # common to both after alignment
    correlation: float  # of the overlap, from -1 to 1
    gain_db: float  # of B, for the best fit to A
    inverted: bool
    snr_db: float  # of A against A - B, aligned but not scaled; inf if nothing differs
    snr_fitted_db: float  # the same with the gain removed
    mel_db: float  # mean |difference| of the log-mel spectrograms, gain removed
    spectral_convergence: float  # |mel A - mel B| / |mel A|, Frobenius norms of the linear mel spectrograms
    dtw_mel_db: float | None  # the mel distance along the best warping of time
    dtw_stretch_seconds: float | None  # maximum deviation of that path from the straight line

    def verdict(self) -> str:
        """One sentence."""
        if self.identical:
            return "the same audio, sample for sample"
        changes = []
        if self.a.rate != self.b.rate:
            changes.append(f"at {self.b.rate} Hz instead of {self.a.rate}")
        if self.lag_samples:
            changes.append(f"{abs(self.lag_seconds) * 1000:.1f} ms {'later' if self.lag_samples > 0 else 'earlier'}")
        if abs(self.gain_db) > 0.05:
            changes.append(f"{abs(self.gain_db):.1f} dB {'louder' if self.gain_db > 0 else 'quieter'}")
        if self.inverted:
            changes.append("upside down")
        how = f" ({', '.join(changes)})" if changes else ""
        if self.snr_fitted_db >= 40:
            return f"the same audio{how}; what else differs lies {self.snr_fitted_db:.0f} dB below it"
        if self.snr_fitted_db >= 10:
            return f"the same audio{how} with a difference {self.snr_fitted_db:.0f} dB below it"
        return "different audio: laid over each other, the two hardly agree sample by sample"


def compare_audio(
    a: AudioLike, b: AudioLike, names: tuple[str, str] = ("A", "B"), dtw: bool = False
) -> AudioComparison:
    """Compare two sounds. Raises RequestError for one that is too short or not a sound."""
    (wave_a, rate_a), (wave_b, rate_b) = read_audio(a), read_audio(b)
    sounds = (_sound(names[0], wave_a, rate_a), _sound(names[1], wave_b, rate_b))
    x, y = (resample(w, rate, SAMPLE_RATE).astype(np.float64) for w, rate in ((wave_a, rate_a), (wave_b, rate_b)))
    for name, wave in zip(names, (x, y), strict=True):
        if len(wave) <= 2 * PAD:
            raise RequestError(f"{name} has {len(wave)} samples at {SAMPLE_RATE} Hz; a comparison needs {2 * PAD + 1}")
    lag = best_lag(x, y)
    over_a, over_b = laid_over(x, y, lag)
    gain = fitted_gain(over_a, over_b)
    fitted = over_b / gain if gain else over_b
    mel_a, mel_b = log_mels(over_a), log_mels(fitted)
    if dtw and max(len(x), len(y)) > LONGEST_WARP * SAMPLE_RATE:
        raise RequestError(f"warping takes the square of the length: it is for sounds of up to {LONGEST_WARP} s")
    warped = warp_mels(log_mels(x), log_mels(y / abs(gain) if gain else y)) if dtw else None
    return AudioComparison(
        a=sounds[0],
        b=sounds[1],
        identical=rate_a == rate_b and np.array_equal(wave_a, wave_b),
        seconds_longer=sounds[1].seconds - sounds[0].seconds,
        louder_db=sounds[1].rms_db - sounds[0].rms_db,
        lag_samples=lag,
        lag_seconds=lag / SAMPLE_RATE,
        overlap_seconds=len(over_a) / SAMPLE_RATE,
        correlation=_correlation(over_a, over_b),
        gain_db=_decibels(abs(gain)),
        inverted=gain < 0,
        snr_db=snr(over_a, over_b),
        snr_fitted_db=snr(over_a, fitted),
        mel_db=float(np.abs(mel_a - mel_b).mean()) if len(mel_a) else 0.0,
        spectral_convergence=spectral_convergence(mel_a, mel_b),
        dtw_mel_db=None if warped is None else warped[0],
        dtw_stretch_seconds=None if warped is None else warped[1] * HOP / SAMPLE_RATE,
    )


def fitted_mels(a: AudioLike, b: AudioLike) -> tuple[Mel, Mel]:
    """The log-mel spectrograms of both in dB, aligned and B scaled; for plots."""
    x, y = (resample(*read_audio(sound), SAMPLE_RATE).astype(np.float64) for sound in (a, b))
    over_a, over_b = laid_over(x, y, best_lag(x, y))
    gain = fitted_gain(over_a, over_b)
    return log_mels(over_a), log_mels(over_b / gain if gain else over_b)


def best_lag(a: NDArray[np.float64], b: NDArray[np.float64]) -> int:
    """The number of samples by which b is later than a: the lag of the greatest absolute cross-correlation."""
    from scipy.signal import correlate  # a second to import: only who compares pays

    together = correlate(b, a, mode="full", method="fft")
    # Rounding of the transform must not decide between equal peaks: the smallest lag is taken.
    lags = np.arange(-len(a) + 1, len(b))
    size = np.abs(together)
    best = lags[size >= size.max() * (1 - 1e-9)]
    return int(best[np.abs(best).argmin()]) if size.max() > 0 else 0


def laid_over(
    a: NDArray[np.float64], b: NDArray[np.float64], lag: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The overlap of both when b is shifted by ``lag`` samples; both of the same length."""
    a, b = a[max(-lag, 0) :], b[max(lag, 0) :]
    common = min(len(a), len(b))
    return a[:common], b[:common]


def fitted_gain(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """The g for which b / g fits a best: the residual b / g - a is orthogonal to a."""
    power = float(a @ a)
    return float(a @ b) / power if power else 0.0


def snr(signal: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Level of ``signal`` relative to its difference from ``other``, in dB; inf if they are equal."""
    noise = float(np.sum((signal - other) ** 2))
    power = float(np.sum(signal**2))
    if noise == 0:
        return math.inf
    return 10 * math.log10(power / noise) if power else -math.inf


def log_mels(wave: NDArray[np.float64]) -> Mel:
    """The speaker encoder's log-mel spectrogram in dB, [T, MELS]; empty for a wave that is too short."""
    if len(wave) <= PAD:
        return np.zeros((0, MELS))
    return log_mel(wave) * DECIBELS


def spectral_convergence(a: Mel, b: Mel) -> float:
    """Norm of the difference over the norm of a, on linear magnitudes."""
    linear_a, linear_b = 10 ** (a / 20), 10 ** (b / 20)
    norm = float(np.linalg.norm(linear_a))
    return float(np.linalg.norm(linear_a - linear_b)) / norm if norm else 0.0


def warp_mels(a: Mel, b: Mel) -> tuple[float, int]:
    """Dynamic time warping of mel frames: (mean |difference| in dB along the best path, its maximum detour in frames).

    A step advances by one frame in a, in b or in both; the detour is measured from the straight line between the ends.
    """
    steps = np.array([np.abs(b - frame).mean(axis=1) for frame in a])  # [Ta, Tb] dB
    total = np.full((len(a) + 1, len(b) + 1), np.inf)
    total[0, 0] = 0
    for diagonal in range(len(a) + len(b) - 1):  # each depends only on the two before it
        i = np.arange(max(0, diagonal - len(b) + 1), min(len(a), diagonal + 1))
        j = diagonal - i
        before = np.minimum(np.minimum(total[i, j], total[i, j + 1]), total[i + 1, j])
        total[i + 1, j + 1] = steps[i, j] + before
    path = [(len(a) - 1, len(b) - 1)]
    while path[-1] != (0, 0):
        m, n = path[-1]
        ways = {(m - 1, n - 1): total[m, n], (m - 1, n): total[m, n + 1], (m, n - 1): total[m + 1, n]}
        path.append(min(ways, key=lambda way: ways[way]))
    slope = (len(b) - 1) / max(len(a) - 1, 1)
    cost = float(np.mean([steps[m, n] for m, n in path]))
    return cost, round(max(abs(n - slope * m) for m, n in path))


def _sound(name: str, wave: Wave, rate: int) -> Sound:
    rms = math.sqrt(float(np.mean(wave.astype(np.float64) ** 2)))
    peak = float(np.abs(wave).max())
    return Sound(name, rate, len(wave), len(wave) / rate, _decibels(rms), _decibels(peak))


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    norm = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / norm if norm else 0.0


def _decibels(amplitude: float) -> float:
    return max(20 * math.log10(amplitude), FLOOR) if amplitude else FLOOR
