"""Voices of rows, each made once: known by the content of its clip or its file, never by their names alone."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ..audio.files import audio_bytes
from ..audio.url import is_url
from ..errors import RequestError
from ..files.input import read_bytes
from ..model import Qwen3TTSModel
from ..notices import heard
from ..request import Voice
from ..shown import shortened
from ..speech.store import hash_of
from ..voice.prompt_item import VoiceClonePromptItem

KEPT = 64  # voices; one of 20 s in context has 40 kB
KEPT_CLIPS = 2  # clips of URLs: rows with the same one are often neighbours


@dataclass(frozen=True)
class WantedVoice:
    """A voice that may not be made yet."""

    key: str  # a hash of all that makes it
    make: Callable[[], Voice]


class Voices:
    """The voices of a model that were used last, with the warnings of their making."""

    def __init__(self, model: Qwen3TTSModel) -> None:
        self._model = model
        self._made: OrderedDict[str, tuple[Voice, list[str]]] = OrderedDict()
        self._read_url = lru_cache(KEPT_CLIPS)(_read_clip)

    def wanted(self, given: Mapping[str, str]) -> WantedVoice:
        """The voice that these fields of a row name. QwenTTSError where its clip or its file cannot be read."""
        arguments: dict[str, Any] = dict(given)
        contents = {}
        if "voice" in arguments:
            if "ref_audio" in arguments or "ref_text" in arguments:
                raise RequestError("voice goes without ref_audio and ref_text: a saved voice has its own")
            file = arguments["voice"]
            contents["voice"] = read_bytes(file)
            arguments["voice"] = lambda: VoiceClonePromptItem.load(file)
        elif "ref_audio" in arguments:
            source = arguments["ref_audio"]
            contents["ref_audio"] = self._read_url(source) if is_url(source) else _read_clip(source)
            arguments |= contents
        named = {name: value for name, value in given.items() if name not in contents}
        hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
        return WantedVoice(hash_of(named, hashes), lambda: self._make(**arguments))

    def made(self, wanted: WantedVoice) -> tuple[Voice, list[str]]:
        """The voice, and the warnings of its making. QwenTTSError where it cannot be made."""
        if wanted.key not in self._made:
            with heard() as warnings:
                voice = wanted.make()
            self._made[wanted.key] = voice, warnings
            if len(self._made) > KEPT:
                self._made.popitem(last=False)
        self._made.move_to_end(wanted.key)
        return self._made[wanted.key]

    def _make(self, voice: Callable[[], VoiceClonePromptItem] | None = None, **arguments: Any) -> Voice:
        return self._model.voice(voice_clone_prompt=None if voice is None else voice(), **arguments)


def _read_clip(source: str) -> bytes:
    return audio_bytes(source, f"ref_audio {shortened(source)}")
