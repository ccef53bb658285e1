"""The speech that a model is scored on: rows of a manifest as requests with their codes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ..arguments import codes_of, require_type
from ..errors import RequestError
from ..files.arrays import read_codes
from ..files.name import shown_name
from ..manifest import Manifest, Row
from ..model import Qwen3TTSModel
from ..notices import notify
from ..ops import Ints
from ..request import Request, Voice, check_positions
from ..voice.prompt_item import VoiceClonePromptItem
from ..voice_arguments import ARGUMENTS_OF


@dataclass(frozen=True)
class Speech:
    """One utterance: what generation would be asked for, and the codes [frames, G] that it is to write."""

    id: str
    request: Request
    codes: Ints


def speech_of(
    model: Qwen3TTSModel, manifest: str | os.PathLike[str] | Manifest, streaming: bool | None
) -> Iterator[Speech]:
    """Every row of a manifest that has speech; rows whose results are an ``error`` have none.

    ``streaming``: the layout of all prompts; None takes the row's ``non_streaming_mode``, or else that of
    ``generate_*``. RequestError, with the line, at the first row that the model cannot read.
    """
    opened = manifest if isinstance(manifest, Manifest) else Manifest(manifest)
    reader = _Reader(model, streaming)
    for row in opened.rows():
        if row.error is None:
            try:
                yield reader.speech(row)
            except RequestError as e:
                raise RequestError(f"{shown_name(opened.path)}:{row.line}: {e}") from None


@dataclass
class _Reader:
    """Reads rows for one model. Voices are made once: the rows of a training file often share a clip."""

    model: Qwen3TTSModel
    streaming: bool | None
    voices: dict[tuple[Any, ...], Voice] = field(default_factory=dict)
    ignored: set[str] = field(default_factory=set)  # fields that have been named

    def speech(self, row: Row) -> Speech:
        if row.text is None:
            raise RequestError("there is no text; a score needs it beside the audio or its codes")
        codes = self._codes(row)
        request = self.model.prepare(
            row.text, self._voice(row), language=row.language, streaming=self._streaming(row), seed=0
        )
        check_positions(self.model.config, len(request.prompt.prefill) + len(codes))
        return Speech(f"line {row.line}" if row.id is None else row.id, request, codes)

    def _codes(self, row: Row) -> Ints:
        """The row's codes, or those of its audio. Trap: clips are encoded one by one, as a reference clip is."""
        c = self.model.config.talker_config
        if row.audio_codes is not None:
            written = row.audio_codes
            given: Any = read_codes(written) if isinstance(written, str) else written
        elif row.audio is not None:
            given = self.model.speech_tokenizer.encode(row.audio).audio_codes[0]
        else:
            raise RequestError("there are neither audio_codes nor audio")
        codes = codes_of(given, "audio_codes", c.num_code_groups, c.code_predictor_config.vocab_size)
        if not len(codes):
            raise RequestError("the audio is shorter than a frame of 80 ms")
        return codes

    def _streaming(self, row: Row) -> bool | None:
        whole = row.sampling.get("non_streaming_mode")
        return self.streaming if self.streaming is not None or whole is None else not whole

    def _voice(self, row: Row) -> Voice:
        """The voice that the row names. Fields of other types of model are ignored: a training file has a reference
        clip, which the custom-voice model that was made with it has learned."""
        kind = self.model.config.tts_model_type
        fields = {"voice_clone_prompt": row.voice} | {
            name: getattr(row, name) for name in ("speaker", "instruct", "ref_audio", "ref_text")
        }
        given = {name: value for name, value in fields.items() if value is not None}
        for name in sorted(set(given) - set(ARGUMENTS_OF[kind]) - self.ignored):
            self.ignored.add(name)
            field_of = "voice" if name == "voice_clone_prompt" else name
            notify(f"{field_of} is ignored: a {kind} model does not read it")
        taken = {name: value for name, value in given.items() if name in ARGUMENTS_OF[kind]}
        if "voice_clone_prompt" in taken:
            taken.pop("ref_audio", None)
        key = tuple(sorted(taken.items()))
        if key not in self.voices:
            if "voice_clone_prompt" in taken:
                taken = {"voice_clone_prompt": VoiceClonePromptItem.load(taken["voice_clone_prompt"])}
            self.voices[key] = self.model.voice(**taken)
        return self.voices[key]


def all_speech(given: Iterable[Speech], limit: int | None) -> Iterator[Speech]:
    """At most ``limit`` of them. RequestError if there are none."""
    count = 0
    for count, one in enumerate(given, start=1):
        require_type(one, Speech, "speech")
        yield one
        if count == limit:
            break
    if not count:
        raise RequestError("there is nothing to score: the manifest has no row with speech")
