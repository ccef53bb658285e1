"""Problems of a reference clip, reported before a voice is made from it.

Nothing here changes or refuses a clip: the official package takes any, and so does this one, up to ten minutes.
"""

from __future__ import annotations

import math

import numpy as np

from ..notices import notify
from ..ops import Wave
from ..text.pace import SLOWEST, SPARE, milliseconds

# The recommendation for clips: 10 to 20 s, with at least 3 s of uninterrupted speech (Alibaba
# Cloud Model Studio, "Qwen voice cloning API reference"); "3-second rapid voice clone" is also the model card's claim.
SHORTEST, LONGEST = 3.0, 30.0  # s
BEST = "10 to 20 s"

WINDOW = 0.02  # s, over which loudness is measured: short enough for a syllable, long enough for a low voice
SOUND = 40.0  # dB below the loudest window: quieter than that is a pause; soft consonants are about 30 dB down
SILENT = -60.0  # dB of full scale: speech is recorded around -20, and is inaudible 40 dB below that
NOISY = 20.0  # dB from the quietest tenth of the clip up to its sound: speech in a quiet room has 35 and more
NOISE_BAND = 100.0, 8000.0  # Hz, where rooms and microphones are heard; resampled clips are empty above
FLAT_SPECTRUM = 0.1  # of that tenth: noise of rooms and microphones is above, voices and music far below
LOUDEST = 16.0  # of full scale: gain and resampling overshoot 1 by little, integers by their whole scale
OFFSET = 0.01  # of full scale; the usual limit for calling a recording biased
FLAT_RUN = 3  # samples in a row at the peak; a wave that turns around by itself does not stay there so long
FLAT_BAND = 2.0**-12  # of the peak: what counts as being at it
FLAT_SHARE = 5e-4  # of all samples: a single flat peak is not yet clipping

# How much faster than calm reading (``text/pace.py``, about 4 syllables a second) a text can be said at all: readers of
# 17 languages average up to 9.1 syllables a second (Coupé et al., 2019, Science Advances 5).
FASTEST = 2.5


class ReferenceClipWarning(UserWarning):
    """A reference clip, or its transcript, will probably make a poor voice."""


def warn_about_clip(wave: Wave, rate: int, transcript: str | None, name: str) -> None:
    """Issue each of :func:`clip_problems` as a ReferenceClipWarning that begins with ``name``."""
    for problem in clip_problems(wave, rate, transcript):
        notify(f"{name} {problem}", ReferenceClipWarning)


def clip_problems(wave: Wave, rate: int, transcript: str | None = None) -> list[str]:
    """Problems of ``wave`` [samples] at ``rate`` Hz as a reference clip, and of ``transcript`` as its words.

    Each is a predicate with its reason ("is 2.1 s long; ..."); [] if there are none.
    """
    seconds, sound = len(wave) / rate, sound_seconds(wave, rate)
    loudest = _decibels(float(rms_of_windows(wave, rate).max()))
    if loudest < SILENT:
        return [f"is silent (its loudest moment is at {loudest:.0f} dB of full scale)"]
    if (problem := scale_problem(wave)) is not None:
        return [problem]
    found = []
    if seconds < SHORTEST:
        found.append(f"is {seconds:.1f} s long; less than {SHORTEST:.0f} s is too little of a voice, {BEST} is best")
    elif sound < SHORTEST:
        found.append(
            f"has only {sound:.2f} s of sound in {seconds:.2f} s; less than {SHORTEST:.0f} s is too little of a voice"
        )
    if seconds > LONGEST:
        found.append(
            f"is {seconds:.1f} s long; all of it is used, and in context the model reads it again before every text, "
            f"which costs time and memory and makes no better voice: cut it to {BEST}"
        )
    if clipped_share(wave) > FLAT_SHARE:
        found.append("is clipped (its peaks are cut flat), which the voice will repeat; record it at a lower level")
    if abs(offset := float(wave.mean(dtype=np.float64))) > OFFSET:
        found.append(f"has a DC offset of {offset:+.3f}; remove it with a high-pass filter")
    if (distance := noise_distance(wave, rate)) < NOISY:
        found.append(
            f"has background noise about {distance:.0f} dB below the voice, which the voice will have as well; record "
            "it in a quiet room, or remove the noise"
        )
    if transcript is not None:
        found += _transcript_problems(transcript, seconds, sound)
    return found


def scale_problem(wave: Wave) -> str | None:
    """What is wrong with a ``wave`` [samples] of floats that are integers by their size, a predicate; else None."""
    if not len(wave) or (peak := float(np.abs(wave).max())) <= LOUDEST:
        return None
    return (
        f"has values up to {peak:,.0f}, and full scale is 1: floats go from -1 to 1; hand 16-bit samples over as "
        "integers, or divided by 32768"
    )


def sound_seconds(wave: Wave, rate: int) -> float:
    """The duration of ``wave`` [samples] without its pauses, in seconds."""
    loudness = rms_of_windows(wave, rate)
    return float((loudness > loudness.max() * 10 ** (-SOUND / 20)).mean()) * len(wave) / rate


def noise_distance(wave: Wave, rate: int) -> float:
    """dB from the background noise of ``wave`` [samples] up to its sound; infinite where no noise is found.

    Noise is what the quietest tenth of the windows has, if its spectrum is flat: a sound without any pause, such as a
    tone or a sung note, has quiet windows too, but these are not noise.
    """
    loudness, size = rms_of_windows(wave, rate), max(1, round(WINDOW * rate))
    quiet = np.argsort(loudness)[: len(loudness) // 10]
    if len(quiet) < 5:
        return math.inf
    windows = wave[: len(wave) // size * size].reshape(-1, size)[quiet].astype(np.float64)
    power = (np.abs(np.fft.rfft(windows * np.hanning(size), axis=1)) ** 2).mean(axis=0)
    hertz = np.arange(len(power)) * rate / size
    band = power[(hertz >= NOISE_BAND[0]) & (hertz <= min(NOISE_BAND[1], 0.45 * rate))] + 1e-20
    if np.exp(np.log(band).mean()) < FLAT_SPECTRUM * band.mean():
        return math.inf
    sound = loudness[loudness > loudness.max() * 10 ** (-NOISY / 20)]
    return _decibels(float(np.sqrt((sound**2).mean()))) - _decibels(float(np.sqrt((loudness[quiet] ** 2).mean())))


def spoken_seconds(text: str) -> tuple[float, float]:
    """The shortest and the longest plausible duration of ``text``, in seconds."""
    # In lower case, since the table takes capitals for spelt out, and some transcripts have nothing else.
    return milliseconds(text.lower()) / FASTEST / 1000, (SPARE + SLOWEST * milliseconds(text)) / 1000


def _transcript_problems(transcript: str, seconds: float, sound: float) -> list[str]:
    if not any(c.isalnum() for c in transcript):
        return ["and its transcript do not fit: that has neither letters nor digits; give the words of this clip"]
    shortest, longest = spoken_seconds(transcript)
    what = f"and its transcript of {len(transcript)} characters do not fit"
    if shortest > seconds:
        return [f"{what}: nobody says that in {seconds:.1f} s; give the words of this clip and no others"]
    if longest < sound:
        return [f"{what}: that does not fill {sound:.1f} s of sound; give all the words that are said in the clip"]
    return []


def rms_of_windows(wave: Wave, rate: int) -> Wave:
    """[windows] The RMS of each window, after subtracting the mean of the clip."""
    size = min(len(wave), max(1, round(WINDOW * rate)))
    windows = wave[: len(wave) // size * size].reshape(-1, size).astype(np.float64)
    return np.sqrt(((windows - wave.mean(dtype=np.float64)) ** 2).mean(axis=1)).astype(np.float32)


def clipped_share(wave: Wave) -> float:
    """The share of ``wave`` [samples] in runs at its highest or lowest value, whatever that is, since gain may follow.

    0 for silence.
    """
    if not wave.any():
        return 0.0
    flat = 0
    for side in (wave, -wave):
        at_peak = side >= side.max() - abs(side.max()) * FLAT_BAND
        run = np.convolve(at_peak, np.ones(FLAT_RUN), mode="valid") >= FLAT_RUN - 0.5  # [starts of flat runs]
        flat += int(np.convolve(run, np.ones(FLAT_RUN)).astype(bool).sum())
    return flat / len(wave)


def _decibels(amplitude: float) -> float:
    return 20 * math.log10(max(float(amplitude), 1e-10))
