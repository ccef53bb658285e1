"""Long audio in pieces that a recogniser can hear: cut where its subtitles say, otherwise in pauses."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..files.input import read_text
from ..ops import Wave
from ..voice.reference_clip import WINDOW, rms_of_windows

LONGEST = 30.0  # s that are heard at once
EARLIEST = 0.5  # of that: a pause before it is not cut at
AROUND = 0.3  # s around the end of a subtitle in which the quietest moment is taken
SUBTITLES = (".srt", ".vtt")
_TIMES = re.compile(r"(?:(\d+):)?(\d\d):(\d\d)[.,](\d\d\d)\s+-->\s+(?:(\d+):)?(\d\d):(\d\d)[.,](\d\d\d)")


def pieces(wave: Wave, rate: int, ends: Sequence[float] = ()) -> Iterator[Wave]:
    """``wave`` [samples] at ``rate`` Hz in pieces of ``LONGEST`` at most; ``ends`` of subtitles, in seconds."""
    quiet = rms_of_windows(wave, rate)
    size = max(1, round(WINDOW * rate))  # samples of a window of ``quiet``
    start = 0
    while len(wave) - start > LONGEST * rate:
        last = start + round(LONGEST * rate)
        within = [round(end * rate) for end in ends if start + EARLIEST * LONGEST * rate < end * rate <= last]
        if within:
            low, high = within[-1] - round(AROUND * rate), min(within[-1] + round(AROUND * rate), last)
        else:
            low, high = start + round(EARLIEST * LONGEST * rate), last
        cut = size * (low // size + int(np.argmin(quiet[low // size : max(low // size + 1, high // size)]))) + size // 2
        yield wave[start:cut]
        start = cut
    yield wave[start:]


def subtitle_ends(audio: str) -> list[float]:
    """The ends of the subtitles beside an audio file (the same name, ``.srt`` or ``.vtt``), in seconds; [] if none."""
    for suffix in SUBTITLES:
        try:
            text = read_text(Path(audio).with_suffix(suffix))
        except (InputError, ValueError):  # there is none; or the audio is no file: a URL, base64
            continue
        return [_seconds(*found.groups()[4:]) for found in _TIMES.finditer(text)]
    return []


def _seconds(hours: str | None, minutes: str, seconds: str, thousandths: str) -> float:
    return 3600 * int(hours or 0) + 60 * int(minutes) + int(seconds) + int(thousandths) / 1000
