"""What a codec, or any change, costs: a sound against its original. PESQ, STOI, mel distance, signal-to-noise ratio."""

from __future__ import annotations

import math
import warnings

import numpy as np

from ..extras import imported
from ..inspect.comparison import compare_audio
from .clip import Clip
from .wheels import INSTALL

WIDE, NARROW = 16000, 8000  # Hz
PURPOSE = "the quality of a codec"


def against(original: Clip, changed: Clip) -> dict[str, float]:
    """The measures of ``changed``, which are higher the nearer it is (``mel_distance``: lower).

    PESQ of ITU-T P.862.2 (``pesq_wb``, 16 kHz) and P.862.1 (``pesq_nb``, 8 kHz), and STOI (Taal et al., 2011), are
    those of the packages ``pesq`` and ``pystoi``, over what both sounds have; a sound too short or too quiet for one of
    them has no value there. Distance and ratio are those of ``compare-audio``, after alignment.
    """
    found = {}
    for name, rate, band in (("pesq_wb", WIDE, "wb"), ("pesq_nb", NARROW, "nb")):
        if (score := _pesq(original, changed, rate, band)) is not None:
            found[name] = score
    if (score := _stoi(original, changed)) is not None:
        found["stoi"] = score
    compared = compare_audio((original.wave, original.rate), (changed.wave, changed.rate))
    found["mel_distance"] = compared.mel_db
    if math.isfinite(compared.snr_db):
        found["snr"] = compared.snr_db
    return found


def _pesq(original: Clip, changed: Clip, rate: int, band: str) -> float | None:
    package = imported("pesq", PURPOSE, INSTALL)
    a, b = _common(original, changed, rate)
    try:
        with np.errstate(invalid="ignore"):  # of silence
            return float(package.pesq(rate, a, b, band))
    except (package.NoUtterancesError, package.BufferTooShortError):
        return None


def _stoi(original: Clip, changed: Clip) -> float | None:
    package = imported("pystoi", PURPOSE, INSTALL)
    a, b = _common(original, changed, WIDE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # trap: too little speech is a warning, and the number 1e-5
        try:
            return float(package.stoi(a, b, WIDE, extended=False))
        except RuntimeWarning:
            return None


def _common(original: Clip, changed: Clip, rate: int) -> tuple[np.ndarray, np.ndarray]:
    a, b = original.at(rate), changed.at(rate)
    length = min(len(a), len(b))
    return a[:length], b[:length]
