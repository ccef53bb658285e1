"""What a sound is like, without a judge: length, rate of speech, pauses, level, clipping, clicks, silence, runaways."""

from __future__ import annotations

import math
import warnings
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from ..audio.loudness import SHORTEST, loudness_of
from ..ops import Wave
from ..speech.edges import QUIET
from ..text.pace import most_milliseconds
from ..voice.reference_clip import SOUND, WINDOW, clipped_share, rms_of_windows, spoken_seconds
from .clip import Clip

PAUSE = 0.2  # s: shorter silences belong to consonants
APART, AROUND = 0.001, 0.025  # s: the extent of a click; the other jumps that one is compared with
JUMP, TIMES = 0.05, 5.0  # of full scale; times the largest other jump, of which the bursts of plosives reach 4


def sound(clip: Clip, text: str | None, with_level: bool = True) -> dict[str, float]:
    """The measures of one clip under their names; those of its ``text``, if there is one, too."""
    wave, rate = clip.wave, clip.rate
    loud = np.flatnonzero(np.abs(wave) > QUIET)
    first, last = (int(loud[0]), int(loud[-1]) + 1) if len(loud) else (len(wave), len(wave))
    found = {
        "seconds": clip.seconds,
        "silence_start": first / rate,
        "silence_end": (len(wave) - last) / rate,
        "clipped": clipped_share(wave),
        "clicks": float(len(clicks(wave, rate))),
    }
    if with_level and (loudness := level(clip)) is not None:
        found["level"] = loudness
    if len(loud):
        silent = pauses(wave[first:last], rate)
        found |= {"pauses": float(len(silent)), "longest_pause": max(silent, default=0.0)}
    if text is None:
        return found
    letters = sum(map(str.isalnum, text))
    if letters and len(loud):
        found["rate"] = letters * rate / (last - first)
    found["runaway"] = float(clip.seconds > most_milliseconds(text) / 1000)
    found["cut_short"] = float((last - first) / rate < spoken_seconds(text)[0])
    return found


def pauses(wave: Wave, rate: int) -> list[float]:
    """Durations in seconds of the silences within ``wave`` [samples], of ``PAUSE`` at least.

    Silence is what is ``SOUND`` dB quieter than the loudest moment.
    """
    level = rms_of_windows(wave, rate)
    quiet = level <= level.max() * 10 ** (-SOUND / 20)
    runs = [len(list(run)) * WINDOW for is_quiet, run in groupby(quiet) if is_quiet]
    return [seconds for seconds in runs if seconds >= PAUSE - WINDOW / 2]


def clicks(wave: Wave, rate: int) -> NDArray[np.intp]:
    """Samples where ``wave`` [samples] jumps as no speech does: joins of pieces, lost packets, damaged samples.

    A jump from one sample to the next of ``JUMP`` of full scale, and ``TIMES`` the largest of the other jumps within
    ``AROUND``: pulses of a voice come several in a row. Jumps nearer to each other than ``APART`` are one click.
    """
    from scipy.ndimage import maximum_filter1d

    steps = np.abs(np.diff(wave.astype(np.float64)))
    apart, around = max(1, round(APART * rate)), max(2, round(AROUND * rate))
    size = around - apart + 1  # from ``apart`` to ``around`` samples away, on either side
    shift = apart + size // 2
    largest = np.pad(maximum_filter1d(np.pad(steps, around), size), shift)
    at = np.arange(len(steps)) + around + shift
    others = np.maximum(largest[at - shift], largest[at + shift])
    found = np.flatnonzero((steps > JUMP) & (steps > TIMES * others))
    return found[np.diff(found, prepend=-apart - 1) > apart]


def level(clip: Clip) -> float | None:
    """Integrated loudness in LUFS (ITU-R BS.1770); None for silence and for less than 0.4 s."""
    if clip.seconds < SHORTEST:
        return None
    with warnings.catch_warnings(), np.errstate(divide="ignore"):
        warnings.simplefilter("ignore")  # of silence, whose level is minus infinity
        found = loudness_of(clip.wave, clip.rate)
    return found if math.isfinite(found) else None
