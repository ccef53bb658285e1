"""Speech aligned to the frame grid: every word starts at a frame boundary, every pitch period divides a frame."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import soxr
from espeak import Espeak, Voice
from numpy.typing import NDArray

SAMPLE_RATE = 24000
FRAME = 1920  # samples
LEAD = 240  # samples of silence before a word, within its first frame
SILENT_FRAMES = 1  # after the last word
LOUDNESS = 0.8
WORDS_A_MINUTE = 155
WORD_GAP = 2  # 20 ms: enough for true silence between any two words of espeak-ng

VOICES = [
    Voice("oak", pitch=112, espeak_f0=102.983, f0=100.0),
    Voice("reed", pitch=159, espeak_f0=149.9777, f0=150.0),
]


@dataclass(frozen=True)
class Utterance:
    text: str
    voice: int
    wave: NDArray[np.float32]  # [frames * FRAME]
    word_of_frame: NDArray[np.int16]  # [frames], the word that is spoken, or whose silence follows


class Speaker:
    """One of :data:`VOICES`, or one after the other."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._espeak = Espeak(folder, VOICES)
        self._voice = -1

    def say(self, text: str, voice: int) -> Utterance:
        if voice != self._voice:
            self._espeak.use(VOICES[voice], WORDS_A_MINUTE, WORD_GAP)
            self._voice = voice
        samples, words = self._espeak.say(text)
        rate = self._espeak.sample_rate * VOICES[voice].f0 / VOICES[voice].espeak_f0
        pieces = [on_grid(soxr.resample(piece, rate, SAMPLE_RATE, "HQ")) for piece in cut(samples, words)]
        pieces.append(np.zeros(SILENT_FRAMES * FRAME, np.float32))
        starts = [position for position, _ in words]
        spoken = np.concatenate([words_of_piece(text, i, starts, len(p) // FRAME) for i, p in enumerate(pieces[:-1])])
        spoken = np.append(spoken, np.repeat(spoken[-1], SILENT_FRAMES))
        return Utterance(text, voice, LOUDNESS * np.concatenate(pieces), spoken.astype(np.int16))


def cut(samples: NDArray[np.float32], words: list[tuple[int, int]]) -> list[NDArray[np.float32]]:
    """Cut at the starts of words, where there is silence."""
    edges = [0, *(sample for _, sample in words[1:]), len(samples)]
    return [samples[a:b] for a, b in pairwise(edges)]


def on_grid(word: NDArray[np.float32]) -> NDArray[np.float32]:
    """``word`` without the silence around it, after :data:`LEAD`, in complete frames."""
    heard = np.flatnonzero(np.abs(word) > 0.003)
    word = word[heard[0] : heard[-1] + 1] if len(heard) else word[:0]
    frames = -(-(LEAD + len(word)) // FRAME)
    grid = np.zeros(frames * FRAME, np.float32)
    grid[LEAD : LEAD + len(word)] = word
    return grid


def words_of_piece(text: str, piece: int, starts: list[int], frames: int) -> NDArray[np.int64]:
    """The word of every frame. A piece with several words, such as "in the", is divided evenly."""
    end = starts[piece + 1] if piece + 1 < len(starts) else len(text)
    first, count = len(text[: starts[piece]].split()), len(text[starts[piece] : end].split())
    return first + np.arange(frames) * count // frames
