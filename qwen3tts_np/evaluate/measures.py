"""The measures: their names, units, which way is better, and from which difference on somebody would care."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import RequestError
from ..shown import shortened


@dataclass(frozen=True)
class Measure:
    """``better``: -1 where less is better, 1 where more is, 0 where neither. ``margin``: a difference that matters."""

    name: str
    group: str
    meaning: str
    better: int = 0
    digits: int = 2
    margin: float = 0.0


_TABLE = (
    Measure("wer", "words", "words wrong of those to be said", -1, 3, 0.02),
    Measure("cer", "words", "characters wrong of those to be said", -1, 3, 0.02),
    Measure("mixed", "words", "CER of Chinese, Japanese and Korean, WER of the others", -1, 3, 0.02),
    Measure("similarity", "speaker", "cosine to the reference clip's voice, by Resemblyzer", 1, 3, 0.02),
    Measure("similarity_own", "speaker", "the same by the model's own speaker encoder", 1, 3, 0.02),
    Measure("dnsmos", "dnsmos", "P.835 overall, 1 to 5", 1, 2, 0.1),
    Measure("dnsmos_signal", "dnsmos", "P.835 speech", 1, 2, 0.1),
    Measure("dnsmos_background", "dnsmos", "P.835 background", 1, 2, 0.1),
    Measure("dnsmos_p808", "dnsmos", "P.808 quality", 1, 2, 0.1),
    Measure("pesq_wb", "codec", "PESQ, wide band, -0.5 to 4.6", 1, 2, 0.1),
    Measure("pesq_nb", "codec", "PESQ, narrow band, -0.5 to 4.5", 1, 2, 0.1),
    Measure("stoi", "codec", "STOI, 0 to 1", 1, 3, 0.01),
    Measure("mel_distance", "codec", "difference of log-mel spectrograms, dB", -1, 2, 0.2),
    Measure("snr", "codec", "level over the difference, dB", 1, 1, 1.0),
    Measure("similarity_codec", "codec", "cosine to the voice before encoding, by Resemblyzer", 1, 3, 0.02),
    Measure("seconds", "sound", "length", 0, 2),
    Measure("rate", "sound", "letters per second of speech", 0, 1),
    Measure("pauses", "sound", "silences within, of 0.2 s and more", 0, 2),
    Measure("longest_pause", "sound", "the longest of them, s", 0, 2),
    Measure("silence_start", "sound", "s before the first sound", 0, 3),
    Measure("silence_end", "sound", "s after the last sound", 0, 3),
    Measure("level", "sound", "loudness, LUFS", 0, 1),
    Measure("clipped", "sound", "share of samples cut flat at the peak", -1, 5, 0.0005),
    Measure("clicks", "sound", "jumps that no voice makes", -1, 2, 0.1),
    Measure("runaway", "sound", "share longer than any reading of their text", -1, 3, 0.01),
    Measure("cut_short", "sound", "share shorter than any reading of their text", -1, 3, 0.01),
)
MEASURES = {measure.name: measure for measure in _TABLE}
GROUPS = tuple(dict.fromkeys(measure.group for measure in _TABLE))
PLUGGED = "plugged"  # the group of measures that commands make


def measure(name: str) -> Measure:
    """The measure of that name; one that is not in the table is what a command measures, and more of it is better."""
    return MEASURES.get(name) or Measure(name, PLUGGED, "printed by a command", 1, 3, 0.1)


def groups(names: list[str]) -> tuple[str, ...]:
    """``names`` of groups, in the order of the table. RequestError for one that is none."""
    for name in names:
        if name not in GROUPS:
            raise RequestError(f"{shortened(name)} is no group of measures; there are {', '.join(GROUPS)}")
    return tuple(group for group in GROUPS if group in names)
