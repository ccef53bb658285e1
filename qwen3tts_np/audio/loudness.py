"""Speech at a loudness in LUFS (ITU-R BS.1770-4, measured by pyloudnorm), as podcasts and audiobooks ask for.

One gain for all of the speech, so that nothing is compressed. Its true peak, which is that of the wave four times
oversampled, stays below -1 dBTP: where the loudness would ask for more the gain is smaller, and a warning says so.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arguments import real_number
from ..errors import RequestError
from ..extras import imported, install
from ..notices import notify
from ..ops import Pcm, Wave
from ..shown import shortened
from .files import pcm16

QUIETEST, LOUDEST = -50.0, -5.0  # LUFS
SHORTEST = 0.4  # s, a block of the measurement
MOST_SECONDS = 3600.0  # the measurement holds all of the speech: 0.2 GB for ten minutes
PEAK = -1.0  # dBTP, as EBU R 128 has it
OVERSAMPLED, PART, OVERLAP = 4, 240_000, 64  # samples


def check_loudness(value: Any) -> float:
    """``value`` as a loudness in LUFS. RequestError unless it is one that can be made here."""
    loudness = real_number(value)
    if not QUIETEST <= loudness <= LOUDEST:
        raise RequestError(f"loudness={shortened(value)} must be a number from {QUIETEST:g} to {LOUDEST:g} (LUFS)")
    _meter()
    return loudness


def at_loudness(samples: Pcm, rate: int, target: float) -> Pcm:
    """``samples`` at ``target`` LUFS, or as near as their peaks allow. Silence and less than 0.4 s stay as they are."""
    wave = samples.astype(np.float32) / np.float32(2**15)
    measured = loudness_of(wave, rate) if len(wave) >= SHORTEST * rate else -np.inf
    if not np.isfinite(measured):
        notify(f"the speech is silent or shorter than {SHORTEST} s, so its loudness is left as it is")
        return samples
    gain, most = 10 ** ((target - measured) / 20), 10 ** (PEAK / 20) / true_peak(wave)
    if gain > most:
        reached = measured + 20 * np.log10(most)
        notify(f"the speech has {reached:.1f} LUFS, not {target:g}: louder, its peaks would pass {PEAK:g} dBTP")
        gain = most
    return pcm16(wave * np.float32(gain))


def loudness_of(wave: Wave, rate: int) -> float:
    """Integrated loudness of ``wave`` [samples] in LUFS; minus infinity for silence."""
    return float(_meter().Meter(rate).integrated_loudness(wave))


def true_peak(wave: Wave) -> float:
    """The peak of ``wave`` [samples] four times oversampled, part by part with some samples of its neighbours."""
    from scipy.signal import resample_poly  # slow to import, and no other speech needs it

    peak = 0.0
    for start in range(0, len(wave), PART):
        first, end = max(0, start - OVERLAP), start + PART + OVERLAP
        part = np.abs(resample_poly(wave[first:end], OVERSAMPLED, 1))
        peak = max(peak, float(part[OVERSAMPLED * (start - first) :][: OVERSAMPLED * PART].max()))
    return peak


def _meter() -> Any:
    """pyloudnorm."""
    return imported("pyloudnorm", "a loudness", install("loudness"))
