"""Everything that is measured of one utterance."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from ..audio.files import write_audio
from ..cloning import VoiceCloner
from ..errors import RequestError
from ..files.output import scratch_folder
from ..manifest import Row
from ..ops import Array
from ..speech_tokenizer import Qwen3TTSTokenizer
from . import codec_quality, resemblyzer
from .clip import Clip
from .dnsmos import dnsmos
from .normalise import language_of
from .pieces import pieces, subtitle_ends
from .recogniser import RATE, Recogniser, run_command, split_command
from .sound import sound
from .statistics import Value
from .word_errors import compare

if TYPE_CHECKING:
    from .word_errors import Heard


@dataclass(frozen=True)
class Judges:
    """Who judges. ``recogniser``, ``cloner`` and ``codec`` are None where no measure needs them."""

    groups: tuple[str, ...]
    recogniser: Recogniser | None = None
    normaliser: str = "language"
    language: str | None = None  # of all texts, instead of their own
    cloner: VoiceCloner | None = None  # of a base model, for similarity_own
    codec: Qwen3TTSTokenizer | None = None
    independent: bool = True  # whether Resemblyzer is here
    level: bool = True  # whether pyloudnorm is
    plugs: Mapping[str, str] = field(default_factory=dict)  # name -> command that prints a number for {audio}

    def described(self) -> dict[str, str]:
        """What two runs must have in common to be compared."""
        found = {"normaliser": self.normaliser, **{f"plug {name}": command for name, command in self.plugs.items()}}
        if self.recogniser is not None:
            found["recogniser"] = self.recogniser.name
        return found


@dataclass(frozen=True)
class Utterance:
    """The values of one row, by name of measure."""

    id: str
    audio: str
    text: str | None = None
    language: str | None = None
    said: str | None = None  # the text as it was compared
    heard: str | None = None
    values: Mapping[str, Value] = field(default_factory=dict)


class Judge:
    """Measures utterances, several at a time if need be: what cannot be shared is behind a lock."""

    def __init__(self, judges: Judges) -> None:
        self._judges = judges
        self._hearing, self._model = Lock(), Lock()
        self._plugs = {name: split_command(command, f"--plug {name}") for name, command in judges.plugs.items()}
        self._references: dict[str, Clip] = {}
        self._voices: dict[tuple[str, str], Array] = {}

    def measure(self, row: Row, name: str) -> Utterance:
        """All measures of a row that has audio. RequestError names the row where one is impossible."""
        assert row.audio is not None
        try:
            return self._measure(row, name, row.audio)
        except RequestError as e:
            raise RequestError(f"{name}: {e}") from e

    def _measure(self, row: Row, name: str, audio: str) -> Utterance:
        clip = Clip.read(audio)
        language = None if row.text is None else language_of(row.text, self._judges.language or row.language)
        found: dict[str, float] = {}
        heard = None
        if "sound" in self._judges.groups:
            found |= sound(clip, row.text, self._judges.level)
        if "dnsmos" in self._judges.groups:
            found |= dnsmos(clip)
        if "speaker" in self._judges.groups and row.ref_audio is not None:
            found |= self._speaker(clip, row.ref_audio)
        if "codec" in self._judges.groups:
            found |= self._codec(clip)
        for plug, words in self._plugs.items():
            found[plug] = self._plugged(plug, words, clip)
        values = {measure: Value(value) for measure, value in found.items()}
        if "words" in self._judges.groups and row.text is not None and language is not None:
            heard = self._words(clip, row.text, audio, language)
        if heard is not None:
            for measure, errors in (("wer", heard.words), ("cer", heard.characters), ("mixed", heard.mixed)):
                values[measure] = Value(errors.rate, errors.of)
        said, understood = (heard.said, heard.heard) if heard is not None else (None, None)
        return Utterance(name, audio, row.text, language, said, understood, values)

    def _words(self, clip: Clip, text: str, audio: str, language: str) -> Heard | None:
        recogniser = self._judges.recogniser
        assert recogniser is not None
        parts = pieces(clip.at(RATE), RATE, subtitle_ends(audio))
        with self._hearing:
            heard = " ".join(recogniser.hear(part, language) for part in parts)
        return compare(text, heard, language, self._judges.normaliser)

    def _speaker(self, clip: Clip, reference: str) -> dict[str, float]:
        if reference not in self._references:
            self._references[reference] = Clip.read(reference)
        found = {}
        if self._judges.independent:
            found["similarity"] = float(
                resemblyzer.embedding(clip) @ self._voice(reference, "independent", resemblyzer.embedding)
            )
        if self._judges.cloner is not None:
            own, other = self._own(clip), self._voice(reference, "own", self._own)
            found["similarity_own"] = float(own @ other / np.linalg.norm(own) / np.linalg.norm(other))
        return found

    def _voice(self, reference: str, kind: str, embed: Callable[[Clip], Array]) -> Array:
        """Of a reference clip, which many utterances share."""
        if (reference, kind) not in self._voices:
            self._voices[reference, kind] = embed(self._references[reference])
        return self._voices[reference, kind]

    def _own(self, clip: Clip) -> Array:
        assert self._judges.cloner is not None
        with self._model:
            return self._judges.cloner.embedding(clip.wave, clip.rate).astype(np.float64)

    def _codec(self, clip: Clip) -> dict[str, float]:
        assert self._judges.codec is not None
        with self._model:
            encoded = self._judges.codec.encode(clip.wave, clip.rate)
            (wave,), rate = self._judges.codec.decode(encoded)
        changed = Clip(wave, rate)
        found = codec_quality.against(clip, changed)
        if self._judges.independent:
            found["similarity_codec"] = float(resemblyzer.embedding(clip) @ resemblyzer.embedding(changed))
        return found

    def _plugged(self, name: str, words: Sequence[str], clip: Clip) -> float:
        with scratch_folder() as folder:
            file = folder / "speech.wav"
            write_audio(file, clip.at(RATE), RATE)
            printed = run_command(words, file).split()
        try:
            value = float(printed[-1])
        except (IndexError, ValueError):
            value = math.nan
        if not math.isfinite(value):
            raise RequestError(f"--plug {name}: {words[0]} printed no finite number at its end")
        return value
