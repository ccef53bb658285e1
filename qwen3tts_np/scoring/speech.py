"""The speech that a model is scored on: rows of a manifest as requests with their codes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ..arguments import codes_of, require_type
from ..batch.voices import Voices
from ..errors import RequestError
from ..files.arrays import read_codes
from ..files.name import shown_name
from ..manifest import Manifest, Row
from ..model import Qwen3TTSModel
from ..notices import notify
from ..ops import Ints
from ..request import Request, Voice, check_positions
from ..voice_arguments import ARGUMENTS_OF

FIELD = {"voice_clone_prompt": "voice"}  # of a manifest, for an argument of ``generate_*``


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


class _Reader:
    """Reads rows for one model."""

    def __init__(self, model: Qwen3TTSModel, streaming: bool | None) -> None:
        self.model, self.streaming = model, streaming
        self._voices = Voices(model)
        self._said: set[str] = set()  # what has been noted

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
        read = [FIELD.get(name, name) for name in ARGUMENTS_OF[kind]]
        fields = ("speaker", "instruct", "ref_audio", "ref_text", "voice")
        given = {name: value for name in fields if (value := getattr(row, name)) is not None}
        for name in given:
            if name not in read:
                self._note(f"{name} is ignored: a {kind} model does not read it")
        wanted = self._voices.wanted({name: value for name, value in given.items() if name in read})
        voice, warnings = self._voices.made(wanted)
        for warning in warnings:
            self._note(warning)
        return voice

    def _note(self, sentence: str) -> None:
        """A warning, once for all rows."""
        if sentence not in self._said:
            self._said.add(sentence)
            notify(sentence)


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
