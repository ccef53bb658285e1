"""Voices of rows, each made once: known by the content of its clip or its file, never by their names alone."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from ..audio.files import audio_bytes
from ..audio.url import is_url
from ..errors import RequestError
from ..files.input import read_bytes
from ..files.name import shown_name
from ..model import Qwen3TTSModel
from ..notices import heard
from ..request import Voice
from ..shown import shortened
from ..speech.store import hash_of
from ..voice.prompt_item import VoiceClonePromptItem
from ..voice.spk import beside, is_spk

KEPT = 64  # voices; one of 20 s in context has 40 kB
KEPT_DIGESTS = 4096  # of files
KEPT_CLIPS = 2  # clips of URLs: rows with the same one are often neighbours

State = tuple[tuple[int, int, int] | None, ...]  # of each file: inode, bytes, time of the last change; None: not there


@dataclass(frozen=True)
class WantedVoice:
    """A voice that may not be made yet."""

    key: str  # a hash of all that makes it
    make: Callable[[], Voice]


class _Source(NamedTuple):
    """A clip, or the file of a saved voice."""

    digest: str  # of its content
    read: Callable[[], Any]  # as ``model.voice`` takes it


class Voices:
    """The voices of a model that were used last, with the warnings of their making.

    However many rows name a file, its content is read at the first one, and again once it has changed.
    """

    def __init__(self, model: Qwen3TTSModel) -> None:
        self._model = model
        self._made: OrderedDict[str, tuple[Voice, list[str]]] = OrderedDict()
        self._digest = lru_cache(KEPT_DIGESTS)(_digest)
        self._read_url = lru_cache(KEPT_CLIPS)(_read_clip)

    def wanted(self, given: Mapping[str, str]) -> WantedVoice:
        """The voice that these fields of a row name. QwenTTSError where its clip or its file cannot be read."""
        if "voice" in given:
            if "ref_audio" in given or "ref_text" in given:
                raise RequestError("voice goes without ref_audio and ref_text: a saved voice has its own")
            field, argument, source = "voice", "voice_clone_prompt", self._saved(given["voice"])
        elif "ref_audio" in given:
            field, argument, source = "ref_audio", "ref_audio", self._clip(given["ref_audio"])
        else:
            return WantedVoice(hash_of(given), lambda: self._model.voice(**given))
        others: dict[str, Any] = {name: value for name, value in given.items() if name != field}
        key = hash_of(others, field, source.digest)
        return WantedVoice(key, lambda: self._model.voice(**{argument: source.read()}, **others))

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

    def _saved(self, file: str) -> _Source:
        path = Path(file)
        more = map(str, beside(path)) if is_spk(path) else ()
        return self._of_files((file, *more), lambda: VoiceClonePromptItem.load(file))

    def _clip(self, source: str) -> _Source:
        if os.path.isfile(source):
            return self._of_files((source,), lambda: _read_clip(source))
        content = self._read_url(source) if is_url(source) else _read_clip(source)  # a pipe can be read once
        return _Source(hashlib.sha256(content).hexdigest(), lambda: content)

    def _of_files(self, files: tuple[str, ...], read: Callable[[], Any]) -> _Source:
        state = _state(files)

        def read_unchanged() -> Any:
            found = read()
            if _state(files) != state:
                raise RequestError(f"{shown_name(files[0])} has changed since the run came to this row")
            return found

        return _Source(self._digest(files, state), read_unchanged)


def _read_clip(source: str) -> bytes:
    return audio_bytes(source, f"ref_audio {shortened(source)}")


def _state(files: tuple[str, ...]) -> State:
    return tuple(map(_state_of_one, files))


def _state_of_one(file: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(file)
    except (OSError, ValueError):  # reading it says what is wrong
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _digest(files: tuple[str, ...], state: State) -> str:
    """Of the content of the first file, and of those others that are there."""
    there = [files[0], *(file for file, found in zip(files[1:], state[1:], strict=True) if found is not None)]
    return hash_of([hashlib.sha256(read_bytes(file)).hexdigest() for file in there])
