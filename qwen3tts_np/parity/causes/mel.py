"""Typical mistakes in the log-mel spectrogram: it is made again of the request's clip, with one or two of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...ops import AnyArray, Array
from ...speaker.mel import (
    HOP,
    MELS,
    PAD,
    SAMPLE_RATE,
    TOP,
    WINDOW,
    hz_to_mel,
    log_mel,
    mel_to_hz,
    power_spectrum,
    triangles,
)
from ..diagnosis import EXPLAINED, Context, Finding, best, finding
from ..measure import outside


@dataclass(frozen=True)
class Recipe:
    """What a spectrogram is made with; the defaults are right."""

    factor: float = 1.0  # on the samples
    pad: int = PAD
    padding: str = "reflect"
    symmetric: bool = False  # the window ends in a 0 of its own
    rounded: bool = True  # the window to float32
    exponent: float = 0.5  # of the power
    htk: bool = False
    area: bool = True  # every filter has area 1 in Hz
    floor: float = 1e-5
    added: float = 0.0  # in place of a floor

    def spectrogram(self, clip: Array) -> Array:
        """clip [samples] -> [T, MELS]."""
        padded = np.pad(clip.astype(np.float64) * self.factor, self.pad, mode=self.padding)  # type: ignore[call-overload]
        wide = np.hanning(WINDOW) if self.symmetric else 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
        window = wide.astype(np.float32) if self.rounded else wide
        spectrum = (power_spectrum(padded, window) + 1e-9) ** self.exponent
        corners = _htk_corners() if self.htk else mel_to_hz(np.linspace(0.0, hz_to_mel(TOP), MELS + 2))
        heights = 2.0 / (corners[2:] - corners[:-2]) if self.area else np.ones(MELS)
        mel = spectrum @ (triangles(corners, SAMPLE_RATE, WINDOW) * heights[:, None]).T
        return np.asarray(np.log(np.maximum(mel, self.floor) + self.added))


MISTAKES: tuple[tuple[dict[str, Any], str], ...] = (
    ({"exponent": 1.0}, "the power of the spectrum; here its magnitude"),
    ({"htk": True}, "the mel scale of HTK; here Slaney's, linear up to 1000 Hz"),
    ({"symmetric": True}, f"a symmetric Hann window; here the periodic one, of period {WINDOW}"),
    ({"rounded": False}, "the window in float64; here its values are rounded to float32"),
    ({"area": False}, 'filters of height 1; here each has area 1 in Hz (norm="slaney")'),
    ({"factor": 32768.0}, "samples as 16-bit integers; here they are divided by 32768"),
    ({"pad": WINDOW // 2}, f"frames begin {WINDOW // 2} samples before the clip (centred); here {PAD}"),
    ({"pad": 0}, f"the clip is not padded; here by {PAD} reflected samples at either end"),
    ({"padding": "constant"}, f"the clip is padded with zeros; here by {PAD} reflected samples"),
    ({"padding": "symmetric"}, "the reflection repeats the sample at the edge; here it does not"),
    ({"floor": 1e-10}, "a floor of 1e-10 under the logarithm; here 1e-5"),
    ({"floor": 0.0, "added": 1e-5}, "1e-5 is added under the logarithm; here it is a floor"),
)


def mel_recipes(ours: AnyArray, theirs: AnyArray, context: Context) -> Finding | None:
    """One or two mistakes in making the spectrogram; needs the request's clip."""
    if context.leaf != "mel" or ours.ndim != 2:
        return None
    clip = next((clip for clip in context.clips if _makes(clip, ours, context.atol)), None)
    if clip is None:
        return None
    one = best(_attempts(1, clip, ours, theirs, context))
    if one is not None and one.left <= EXPLAINED / 5:
        return one
    two = best(_attempts(2, clip, ours, theirs, context))  # a small mistake may stand beside a large one
    return best(iter((one, two)))


def _makes(clip: Array, ours: AnyArray, atol: float) -> bool:
    return len(clip) // HOP == len(ours) and not outside(log_mel(clip), ours, 8 * atol)


def _attempts(count: int, clip: Array, ours: AnyArray, theirs: AnyArray, context: Context) -> Iterator[Finding | None]:
    for mistakes in combinations(MISTAKES, count):
        changes = [change for change, _ in mistakes]
        if len({name for change in changes for name in change}) < sum(map(len, changes)):
            continue  # two that exclude each other
        recipe = replace(Recipe(), **{name: value for change in changes for name, value in change.items()})
        message = "; and ".join(said for _, said in mistakes)
        yield finding("log-mel", message, ours, theirs, recipe.spectrogram(clip), context)


def _htk_corners() -> NDArray[np.float64]:
    """Start, peaks and end of the filters on HTK's scale, 2595 log10(1 + f / 700) [MELS + 2], Hz."""
    mels = np.linspace(0.0, 2595 * np.log10(1 + TOP / 700), MELS + 2)
    return np.asarray(700 * (10 ** (mels / 2595) - 1))


def log_base(ours: AnyArray, theirs: AnyArray, context: Context) -> Finding | None:
    """Another logarithm, or none at all."""
    if context.leaf != "mel" or ours.shape != theirs.shape:
        return None

    def attempts() -> Iterator[Finding | None]:
        def of(message: str, candidate: AnyArray) -> Finding | None:
            return finding("log-mel", message, ours, theirs, candidate, context)

        yield of("the logarithm has base 10; here it is natural", ours / np.log(10))
        yield of("decibels of the amplitude; here the natural logarithm", 20 * ours / np.log(10))
        yield of("the logarithm is left out", np.exp(ours))

    return best(attempts())
