"""The rules that a row has to meet, and the sentences about rows that do not.

An error refuses the row: a model would learn what is wrong with it. A warning keeps it, and somebody should listen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import median_abs_deviation

from ...errors import RequestError
from ...ops import Array, Ints
from ...shown import shortened
from ...speech.script import has_words
from ..checkpoints import speaker_key
from ..settings import DEFAULT_SPEAKER
from .measure import LONGEST, SHORTEST, SILENT, Measured

LONGEST_TEXT = 5000  # characters: of 30 s nobody says a fifth of it, and the tokens of a megabyte take a minute
CLIPPED = 0.001  # of the samples
NOISY = 20.0  # dB; as for reference clips
FEWEST_CODES = 5  # different codes 0: speech has hundreds, a hum or a damaged file some few
DEVIATIONS = 3  # MAD, scaled to the standard deviation of a normal distribution
LEAST_MAD = 0.05  # of the median: where most rows are equal, some other is no outlier yet
FEWEST = 10  # rows, of which a median says something
FEWEST_OF_VOICE = 5  # clips of a speaker
OTHER_VOICE = 0.1  # below the median of the speaker's cosines at least: clips of one voice differ by less
FEWEST_TRIPS = 5


@dataclass(frozen=True)
class Rule:
    """``text`` is what holds of a good row."""

    name: str
    refuses: bool
    text: str


_TABLE = (
    Rule("unreadable", True, "a row has a clip that can be read, all its samples finite, or its codes"),
    Rule("text", True, f"a row has the text of its clip, of at most {LONGEST_TEXT} characters"),
    Rule("speaker", True, "a speaker has a name that a voice of a model can have"),
    Rule("short", True, f"a clip has {SHORTEST} to {LONGEST:.0f} s"),
    Rule("long", True, f"a clip has {SHORTEST} to {LONGEST:.0f} s"),
    Rule("silent", True, f"the loudest 20 ms of a clip are above {SILENT:.0f} dB"),
    Rule("scale", True, "samples go from -1 to 1"),
    Rule("equal codes", True, "no two clips have the same codes"),
    Rule("reference", False, "a reference can be read; this one is left out of the speaker's mean"),
    Rule("clipped", False, f"at most {CLIPPED:.1%} of the samples are cut flat at the peak"),
    Rule("noise", False, f"a voice is {NOISY:.0f} dB above the noise"),
    Rule("few codes", False, f"the first codebook has at least {FEWEST_CODES} different codes"),
    Rule("rate", False, f"frames per text token are within {DEVIATIONS} MAD of the median of the language"),
    Rule("voice", False, f"a clip is as near to its speaker's mean as the others, within {DEVIATIONS} MAD"),
    Rule("language", False, "the language is one of the model's; this row is trained without one"),
    Rule("round trip", False, f"the codec's own error is within {DEVIATIONS} MAD of the median"),
)
RULES = {rule.name: rule for rule in _TABLE}


@dataclass(frozen=True)
class Finding:
    """A row that does not meet a rule. ``value``: a predicate with the value."""

    where: str
    rule: str
    value: str

    @property
    def refuses(self) -> bool:
        return RULES[self.rule].refuses

    def sentence(self) -> str:
        """The row, the value and the rule."""
        return f"{self.where}: {self.value}; {RULES[self.rule].text}{' (refused)' if self.refuses else ''}"


def alone(where: str, measured: Measured, text: str | None, speaker: str | None) -> list[Finding]:
    """What is known of a row without the others. The first that refuses it is the last."""
    if measured.fault is not None:
        return [Finding(where, measured.rule or "unreadable", measured.fault)]
    if text is None or not text.strip():
        return [Finding(where, "text", "has no text")]
    if not has_words(text) or "\0" in text:
        return [Finding(where, "text", f"has the text {shortened(text)}, which no clip can say")]
    if len(text) > LONGEST_TEXT:
        return [Finding(where, "text", f"has a text of {len(text)} characters")]
    try:
        speaker_key(speaker or DEFAULT_SPEAKER)
    except RequestError as e:
        return [Finding(where, "speaker", str(e))]
    found = []
    if measured.clipped > CLIPPED:
        found.append(Finding(where, "clipped", f"has {measured.clipped:.2%} of its samples cut flat"))
    if measured.noise is not None and measured.noise < NOISY:
        found.append(Finding(where, "noise", f"has noise {measured.noise:.0f} dB below the voice"))
    if (codes := len(np.unique(measured.frames()[:, 0]))) < FEWEST_CODES:
        found.append(Finding(where, "few codes", f"has {codes} different codes in the first codebook"))
    return found


@dataclass(frozen=True)
class Range:
    """What most of some values are within."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Array, fewest: int = FEWEST, least: float = LEAST_MAD) -> Range | None:
        """``DEVIATIONS`` MAD around the median of values [N]; None where there are fewer than ``fewest``.

        ``least``: of the median, what the MAD is taken to be at least.
        """
        values = values[np.isfinite(values)]
        if len(values) < fewest:
            return None
        median = float(np.median(values))
        reach = DEVIATIONS * max(float(median_abs_deviation(values, scale="normal")), least * abs(median))
        return cls(median, median - reach, median + reach)

    def __contains__(self, value: float) -> bool:
        return math.isnan(value) or self.low <= value <= self.high


def by_group(values: Array, groups: Ints, count: int, kept: NDArray[np.bool_]) -> list[Array]:
    """The values [N] of each of ``count`` groups, of those rows that are ``kept`` [N]."""
    values, groups = values[kept], groups[kept]
    ordered = values[np.argsort(groups, kind="stable")]
    return np.split(ordered, np.cumsum(np.bincount(groups, minlength=count))[:-1])


def least_cosine(cosines: Array) -> float | None:
    """The smallest cosine to the mean of a speaker that is still the same voice; None for too few clips."""
    found = Range.of(cosines, FEWEST_OF_VOICE, least=0.0)
    return None if found is None else min(found.low, found.median - OTHER_VOICE)
