"""espeak-ng as a library: from a text to samples and the start positions of its words.

Only the output of the library is used. Its command line can neither switch off intonation nor report where words start.
"""

from __future__ import annotations

import ctypes
import shutil
from dataclasses import dataclass
from pathlib import Path

import espeakng_loader
import numpy as np
from numpy.typing import NDArray

SYNCHRONOUS = 2  # espeak_AUDIO_OUTPUT
UTF8 = 1
WORD = 1  # espeak_EVENT_TYPE
RATE, VOLUME, PITCH, RANGE, WORD_GAP = 1, 2, 3, 4, 7  # espeak_PARAMETER


class Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),  # characters from 1
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_int * 2),
    ]


CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(Event))


@dataclass(frozen=True)
class Voice:
    """A monotone voice. ``espeak_f0`` is the result of ``pitch`` in espeak-ng, measured over many periods."""

    name: str
    pitch: int  # of the voice file, about 9 Hz above the result
    espeak_f0: float
    f0: float  # after resampling: an integer number of periods per frame of 80 ms

    @property
    def file(self) -> str:
        """Its voice file. Without "flutter 0" the pitch wavers and the lengths differ from call to call."""
        return f"language variant\nname {self.name}\ngender male\npitch {self.pitch} {self.pitch}\nflutter 0\n"


class Espeak:
    """The library, started once per process; its data is copied to ``folder`` so that voices can be added."""

    def __init__(self, folder: Path, voices: list[Voice]) -> None:
        data = folder / "espeak-ng-data"
        if not data.exists():
            shutil.copytree(espeakng_loader.get_data_path(), data)
        for voice in voices:
            (data / "voices" / "!v" / voice.name).write_text(voice.file, encoding="utf-8")
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        self._samples: list[NDArray[np.int16]] = []
        self._words: list[tuple[int, int]] = []
        self._callback = CALLBACK(self._receive)  # the library keeps the pointer, so this object must live on
        self.sample_rate = self._library.espeak_Initialize(SYNCHRONOUS, 0, str(folder).encode(), 0)
        self._library.espeak_SetSynthCallback(self._callback)

    def _receive(self, wave, count: int, events) -> int:  # type: ignore[no-untyped-def]
        if wave and count > 0:
            self._samples.append(np.ctypeslib.as_array(wave, (count,)).copy())
        i = 0
        while events and events[i].type != 0:
            if events[i].type == WORD:
                self._words.append((events[i].text_position - 1, events[i].sample))
            i += 1
        return 0

    def use(self, voice: Voice, words_a_minute: int, word_gap: int) -> None:
        """Speak with ``voice`` from now on; ``word_gap`` in units of 10 ms."""
        if self._library.espeak_SetVoiceByName(f"en-us+{voice.name}".encode()) != 0:
            raise RuntimeError(f"espeak-ng does not take the voice {voice.name}")
        settings = {RATE: words_a_minute, VOLUME: 100, PITCH: 50, RANGE: 0, WORD_GAP: word_gap}
        for parameter, value in settings.items():
            self._library.espeak_SetParameter(parameter, value, 0)

    def say(self, text: str) -> tuple[NDArray[np.float32], list[tuple[int, int]]]:
        """Samples at ``sample_rate``, and the start (character, sample) of each word.

        espeak-ng treats some pairs of words, such as "in the", as one; the second then has no entry.
        """
        self._samples.clear()
        self._words.clear()
        content = text.encode() + b"\0"
        self._library.espeak_Synth(content, len(content), 0, 0, 0, UTF8, None, None)
        self._library.espeak_Synchronize()
        return np.concatenate(self._samples).astype(np.float32) / 32768, list(self._words)
