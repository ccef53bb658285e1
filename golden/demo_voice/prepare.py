"""Stages 1 to 3: speech with waveforms, codebooks fitted to it, codes of much more speech."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import grammar
import numpy as np
import torch
from codebooks import Codebooks, fit, log_mel_patches, to_float
from corpus import FRAME, VOICES, Speaker
from numpy.typing import NDArray

SEED = 0
HELD_OUT = 200  # sentences, alternating the voices
WITH_WAVES = 2_000  # texts that the codec learns from, each in one voice
WITH_CODES = 20_000  # texts that the talker learns from; the first are those with waves
BLOCK = 200  # texts encoded at a time


@dataclass(frozen=True)
class Corpus:
    """Concatenated utterances."""

    texts: list[str]
    voices: NDArray[np.int64]
    frames: NDArray[np.int64]  # of each utterance
    words: NDArray[np.int16]  # [sum of frames], the word of every frame
    codes: NDArray[np.int16]  # [sum of frames, GROUPS]
    waves: NDArray[np.int16]  # [sum of frames * FRAME], empty if not kept

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        return np.concatenate([[0], np.cumsum(self.frames)])

    def codes_of(self, i: int) -> NDArray[np.int16]:
        return self.codes[self.starts[i] : self.starts[i + 1]]

    def words_of(self, i: int) -> NDArray[np.int16]:
        return self.words[self.starts[i] : self.starts[i + 1]]

    def wave_of(self, i: int) -> NDArray[np.int16]:
        return self.waves[self.starts[i] * FRAME : self.starts[i + 1] * FRAME]

    def save(self, path: Path) -> None:
        path.with_suffix(".json").write_text(json.dumps(self.texts), encoding="utf-8")
        arrays = {name: getattr(self, name) for name in ("voices", "frames", "words", "codes", "waves")}
        part = path.with_suffix(".part.npz")
        np.savez(part, **arrays)
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> Corpus:
        texts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        return cls(texts, **np.load(path))


def prepare(state: Path) -> None:
    """Writes codebooks.pt, held_out.npz, speech.npz and codes.npz into ``state``, unless the last exists.

    All or nothing: the noise in espeak-ng's consonants depends on its earlier output.
    """
    if (state / "codes.npz").exists():
        return
    torch.set_num_threads(1)  # the order of sums decides near ties
    speaker = Speaker(state / "espeak")
    held_out = grammar.held_out(HELD_OUT, SEED)
    forbidden = set(held_out)
    requests = [(grammar.training_text(i, forbidden, SEED), i // 2 % len(VOICES)) for i in range(WITH_CODES)]
    codebooks = fit(torch.cat([patches for patches, _ in spoken(speaker, requests[:WITH_WAVES])]), SEED)
    codebooks.save(state / "codebooks.pt")
    scored = [(text, i % len(VOICES)) for i, text in enumerate(held_out)]
    record(speaker, scored, codebooks, keep=True).save(state / "held_out.npz")
    record(speaker, requests[:WITH_WAVES], codebooks, keep=True).save(state / "speech.npz")
    record(speaker, requests, codebooks, keep=False).save(state / "codes.npz")


def spoken(speaker: Speaker, requests: list[tuple[str, int]]) -> Iterator[tuple[torch.Tensor, list]]:
    """Blocks of utterances with their log-mel patches. Each starts and ends in silence, so they do not overlap."""
    for start in range(0, len(requests), BLOCK):
        utterances = [speaker.say(text, voice) for text, voice in requests[start : start + BLOCK]]
        wave = np.concatenate([as_16_bit(u.wave) for u in utterances])
        yield log_mel_patches(to_float(wave)), utterances


def record(speaker: Speaker, requests: list[tuple[str, int]], codebooks: Codebooks, keep: bool) -> Corpus:
    codes, utterances, waves = [], [], [np.zeros(0, np.int16)]
    for patches, block in spoken(speaker, requests):
        codes.append(codebooks.codes((patches - codebooks.mean) @ codebooks.components).to(torch.int16).numpy())
        waves += [as_16_bit(u.wave) for u in block if keep]
        utterances += [(u.voice, u.word_of_frame) for u in block]
        print(f"{len(utterances)} of {len(requests)} texts", flush=True)
    return Corpus(
        texts=[text for text, _ in requests],
        voices=np.array([voice for voice, _ in utterances]),
        frames=np.array([len(words) for _, words in utterances]),
        words=np.concatenate([words for _, words in utterances]),
        codes=np.concatenate(codes),
        waves=np.concatenate(waves),
    )


def as_16_bit(wave: NDArray[np.float32]) -> NDArray[np.int16]:
    return np.round(wave * 32767).astype(np.int16)
