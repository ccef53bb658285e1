"""One piece of a text, spoken: the voice, the attempts at a piece that does not stop, its edges trimmed and faded."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError
from ..model import Qwen3TTSModel
from ..text.pace import most_milliseconds
from ..voice.prompt_item import VoiceClonePromptItem, voice_prompt_items
from .store import FORMAT, Pcm, Recording, Store, fingerprint, hash_of

Writing = Callable[[list[str], int], None]

QUIET = 10 ** (-46 / 20)  # of the loudest sample of a piece; what is quieter at its edges is cut off
EDGE = 30  # ms of it that stay, for soft consonants and breath
FADE = 5  # ms at each edge, from and to zero
ATTEMPTS = 3  # the first, and two with other seeds, for a piece that does not stop


@dataclass(frozen=True)
class Voice:
    """A model and all that its pieces share."""

    speak: Callable[..., Any]
    arguments: Mapping[str, Any]
    identity: str  # a hash of the model and the arguments
    most_frames: int
    frame_rate: float
    sample_rate: int
    writing: Writing

    @classmethod
    def of(
        cls, model: Qwen3TTSModel, speech: Mapping[str, Any], writing: Writing, known_fingerprint: str | None = None
    ) -> Voice:
        arguments = {name: value for name, value in speech.items() if value is not None}
        kind = model.config.tts_model_type
        if kind == "base":
            arguments["voice_clone_prompt"] = _reference(model, arguments)
        for name, value in arguments.items():
            if isinstance(value, list):
                raise RequestError(f"{name} is a list; a long text takes one value for all its pieces")
        tokens = arguments.pop("max_new_tokens", model.generation_config.max_new_tokens)
        if not isinstance(tokens, int) or tokens < 1:
            raise RequestError(f"max_new_tokens={tokens!r} must be a whole number of at least 1")
        codec = model.speech_tokenizer
        return cls(
            speak=getattr(model, "generate_voice_clone" if kind == "base" else f"generate_{kind}"),
            arguments=arguments,
            identity=hash_of(known_fingerprint or fingerprint(model), arguments, tokens),
            most_frames=tokens - 1,
            frame_rate=codec.get_output_sample_rate() / codec.get_decode_upsample_rate(),
            sample_rate=codec.get_output_sample_rate(),
            writing=writing,
        )

    def __call__(self, texts: list[str], seeds: list[int], frames: int) -> list[tuple[NDArray[np.float32], int]]:
        """(waveform, frames) of each text, of at most ``frames`` frames."""
        waves, _, codes = self.speak(
            texts,
            seed=seeds,
            max_new_tokens=frames + 1,
            return_codes=True,
            progress=lambda count: self.writing(texts, count),
            **self.arguments,
        )
        return [(wave, len(code)) for wave, code in zip(waves, codes, strict=True)]


def _reference(model: Qwen3TTSModel, arguments: dict[str, Any]) -> VoiceClonePromptItem:
    """The one voice of a base model; the arguments of its clip are taken out of ``arguments``."""
    clip = {name: arguments.pop(name) for name in ("ref_audio", "ref_text", "x_vector_only_mode") if name in arguments}
    prompt = arguments.pop("voice_clone_prompt", None)
    if prompt is None and "ref_audio" not in clip:
        raise RequestError("give ref_audio or voice_clone_prompt: a base model has no voice of its own")
    items = voice_prompt_items(model.create_voice_clone_prompt(**clip) if prompt is None else prompt)
    if len(items) != 1:
        raise RequestError(f"voice_clone_prompt has {len(items)} voices; a long text takes one for all its pieces")
    return items[0]


@dataclass(frozen=True)
class Take:
    """One piece to speak."""

    text: str
    voice: Voice
    seeds: tuple[int, ...]  # [ATTEMPTS]

    @property
    def key(self) -> str:
        return hash_of(FORMAT, self.voice.identity, self.text, self.seeds)

    @property
    def most_frames(self) -> int:
        return min(math.ceil(most_milliseconds(self.text) / 1000 * self.voice.frame_rate), self.voice.most_frames)


def recordings_of(takes: list[Take], store: Store, batch_size: int) -> Iterator[tuple[Take, Recording, bool]]:
    """(take, recording, whether it was in the store) in order; no more than a batch of them is held at once."""
    for first in range(0, len(takes), batch_size):
        batch = takes[first : first + batch_size]
        found = [store.get(take.key) for take in batch]
        missing = [take for take, recording in zip(batch, found, strict=True) if recording is None]
        made = speak(missing) if missing else []
        for take, recording in zip(missing, made, strict=True):
            store.put(take.key, recording)
        in_turn = iter(made)
        for take, kept in zip(batch, found, strict=True):
            yield take, next(in_turn) if kept is None else kept, take.key not in store.made


def speak(takes: list[Take]) -> list[Recording]:
    """The recordings of a batch of one voice."""
    voice = takes[0].voice
    first = voice([take.text for take in takes], [take.seeds[0] for take in takes], max(t.most_frames for t in takes))
    return [_recording(take, wave, frames) for take, (wave, frames) in zip(takes, first, strict=True)]


def _recording(take: Take, wave: NDArray[np.float32], frames: int) -> Recording:
    """The first attempt at a piece, or the others if that did not stop.

    Those are made alone, so the last, which is kept in any case, is cut at the piece's own limit, not the batch's.
    """
    attempt = 1
    while frames >= take.most_frames and attempt < ATTEMPTS:
        ((wave, frames),) = take.voice([take.text], [take.seeds[attempt]], take.most_frames)
        attempt += 1
    return Recording(finish(wave, take.voice.sample_rate), attempt, frames < take.most_frames)


def finish(wave: NDArray[np.float32], rate: int) -> Pcm:
    """A waveform without the silence at its edges, faded in and out, as 16-bit samples."""
    loudness = np.abs(wave)
    loud = np.flatnonzero(loudness > QUIET * loudness.max(initial=0))
    if not len(loud):
        return np.zeros(0, np.int16)
    edge = rate * EDGE // 1000
    kept = wave[max(loud[0] - edge, 0) : loud[-1] + 1 + edge].astype(np.float64)
    length = min(rate * FADE // 1000, len(kept) // 2)
    fade = 0.5 - 0.5 * np.cos(np.pi * np.arange(length) / max(length, 1))  # from 0
    kept[:length] *= fade
    kept[len(kept) - length :] *= fade[::-1]
    return np.rint(np.clip(kept, -1, 1) * 32767).astype(np.int16)


def shown(text: str) -> str:
    """``text`` in quotes, as messages name a piece."""
    return repr(text if len(text) <= 50 else f"{text[:50]}...")
