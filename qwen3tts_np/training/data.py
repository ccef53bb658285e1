"""The rows that a model learns from, and who speaks them.

A row has a text and its codes; ``speaker``, ``language``, ``instruct`` and ``non_streaming_mode`` as in every manifest.
``train prepare`` makes such a manifest of recordings, and writes the x-vectors of its speakers beside it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arguments import codes_of
from ..checkpoint.adapter import CODEC_EMBEDDING
from ..checkpoint.safetensors import Checkpoint
from ..config import ModelConfig
from ..errors import RequestError
from ..files.arrays import read_codes
from ..files.name import shown_name
from ..manifest import Manifest, Row
from ..ops import Array, Ints
from ..request import check_positions
from ..text.prompt import key_of
from ..text.tokenizer import Tokenizer
from .batch import Utterance, utterance
from .checkpoints import speaker_key
from .settings import DEFAULT_SPEAKER, TrainingSettings


@dataclass(frozen=True)
class Clip:
    """One row. ``speaker`` is the name as it is stored in a checkpoint; None in a model that has no speakers."""

    name: str  # the row's id, or its line
    text: str
    codes: NDArray[np.int16]  # [frames, G]
    speaker: str | None
    given_speaker: str | None  # as the row has it: its x-vector's name
    language: str
    instruct: str
    streaming: bool
    audio: str | None
    ref_audio: str | None


def read_clips(path: Path, config: ModelConfig, settings: TrainingSettings, limit: int | None = None) -> list[Clip]:
    """The rows of a prepared manifest. RequestError, with the line, at the first that nothing can be learned from."""
    clips: list[Clip] = []
    for row in Manifest(path).rows():
        if row.error is not None:
            continue
        try:
            clips.append(_clip(row, config, settings))
        except RequestError as e:
            raise RequestError(f"{shown_name(path)}:{row.line}: {e}") from None
        if len(clips) == limit:
            break
    if not clips:
        raise RequestError(f"{shown_name(path)} has no row to learn from")
    return clips


def _clip(row: Row, config: ModelConfig, settings: TrainingSettings) -> Clip:
    if row.text is None:
        raise RequestError("there is no text")
    if row.audio_codes is None:
        raise RequestError("there are no audio_codes; 'qwen3tts-np train prepare' makes them of audio")
    c = config.talker_config
    given: Any = read_codes(row.audio_codes) if isinstance(row.audio_codes, str) else row.audio_codes
    codes = codes_of(given, "audio_codes", c.num_code_groups, c.code_predictor_config.vocab_size)
    if not len(codes):
        raise RequestError("audio_codes has no frame")
    whole = row.sampling.get("non_streaming_mode")
    speaker = None
    if config.tts_model_type != "voice_design":
        named = row.speaker if row.speaker not in (None, DEFAULT_SPEAKER) else settings.speaker_name
        speaker = speaker_key(str(named))
    return Clip(
        name=f"line {row.line}" if row.id is None else row.id,
        text=row.text,
        codes=codes.astype(np.int16),
        speaker=speaker,
        given_speaker=row.speaker,
        language=row.language or settings.language or "auto",
        instruct=row.instruct or "",
        streaming=settings.streaming if whole is None else not whole,
        audio=row.audio,
        ref_audio=row.ref_audio or settings.ref_audio,
    )


def identity_of(clips: Iterable[Clip]) -> str:
    """A hash of all that is learned from."""
    found = hashlib.sha256()
    for clip in clips:
        said = (clip.name, clip.text, clip.speaker, clip.language, clip.instruct, clip.streaming, clip.codes.shape)
        found.update(repr(said).encode())
        found.update(np.ascontiguousarray(clip.codes, "<i2").tobytes())
    return found.hexdigest()


def new_speakers(clips: Iterable[Clip], config: ModelConfig) -> list[str]:
    """The speakers that the model does not have yet, in the order in which they come."""
    named = dict.fromkeys(clip.speaker for clip in clips if clip.speaker is not None)
    return [name for name in named if key_of(config.talker_config.spk_id, name, "speaker") is None]


@dataclass(frozen=True)
class Reader:
    """Clips as the network reads them."""

    config: ModelConfig
    tokenizer: Tokenizer
    vectors: Mapping[str, Array]  # of speakers that are not trained: [H]

    def __call__(self, clip: Clip, read: Ints | None = None) -> Utterance:
        """``read`` [frames, G]: what the talker reads in place of the codes. RequestError for too long a clip."""
        fixed = None if clip.speaker is None else self.vectors.get(clip.speaker)
        found = utterance(
            self.config,
            self.tokenizer,
            clip.text,
            clip.codes.astype(np.int64),
            speaker=clip.speaker if fixed is None else None,
            x_vector=fixed,
            language=clip.language,
            instruct=clip.instruct,
            streaming=clip.streaming,
            read=read,
        )
        check_positions(self.config, len(found))
        return found


Embed = Callable[[str], Array]
"""The x-vector [H] of a clip of audio."""


def start_vectors(
    speakers: Sequence[str],
    clips: Sequence[Clip],
    data: Path,
    base: Checkpoint,
    config: ModelConfig,
    embed: Embed | None,
) -> dict[str, Array]:
    """Where training begins for every new speaker: [H], float32.

    Its x-vector beside the manifest; or the mean over its reference clips, through the base model's encoder; or, in a
    custom-voice model, which has no encoder, the mean of the voices that it has. RequestError if there is none.
    """
    beside = data.with_suffix(".safetensors")
    prepared = Checkpoint.open(beside) if beside.is_file() else {}
    return {name: _start(name, clips, prepared, base, config, embed) for name in speakers}


def _start(
    name: str,
    clips: Sequence[Clip],
    prepared: Mapping[str, Any],
    base: Checkpoint,
    config: ModelConfig,
    embed: Embed | None,
) -> Array:
    width, own = config.talker_config.hidden_size, [clip for clip in clips if clip.speaker == name]
    for given in dict.fromkeys((name, *(clip.given_speaker for clip in own))):
        if given is not None and given in prepared:
            vector: Array = prepared[given].widen(np.dtype(np.float32))
            if vector.shape != (width,):
                raise RequestError(f"the x-vector of {name} has {vector.size} values, and this model's have {width}")
            return vector
    references = list(dict.fromkeys(clip.ref_audio for clip in own if clip.ref_audio is not None))
    if embed is not None and references:
        return np.mean([embed(path) for path in references], axis=0, dtype=np.float32)
    if rows := sorted(config.talker_config.spk_id.values()):
        table = base[f"{CODEC_EMBEDDING}.weight"]
        return table.rows(np.array(rows), np.dtype(np.float32)).mean(axis=0, dtype=np.float32)
    raise RequestError(
        f"nothing says what {name} sounds like: prepare the data with 'qwen3tts-np train prepare', or name a reference "
        "clip with --ref-audio"
    )
