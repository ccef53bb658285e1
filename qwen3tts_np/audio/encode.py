"""Speech encoded while it is being made: packets of 16-bit samples in, bytes of an audio format out.

The formats are those of OpenAI's ``response_format``. How much waits inside an encoder, at 24 kHz: nothing for wav and
pcm, 50 ms for mp3, 170 ms for flac, and up to 1 s for opus, whose pages libsndfile fills that far.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import soundfile

from ..errors import RequestError
from ..ops import Pcm
from ..shown import shortened
from .files import WRITTEN_AT_ONCE
from .outlet import Outlet

UNKNOWN = 0xFFFFFFFF  # the length in the header of a WAV that is not finished: programs read on to the end
MP3_COMPRESSION = 0.4  # of 0 to 1: 96 kbit/s at 24 kHz


class Encoder(Protocol):
    """One answer in one format."""

    def add(self, samples: Pcm) -> bytes:
        """The bytes that are ready with these samples [samples]; perhaps none."""
        ...

    def finish(self) -> bytes:
        """The rest."""
        ...


def wav_header(rate: int) -> bytes:
    """The 44 bytes before 16-bit mono samples whose number is not known yet."""
    layout = struct.pack("<HHIIHH", 1, 1, rate, 2 * rate, 2, 16)  # PCM, channels, rate, bytes/s, bytes/sample, bits
    return b"RIFF" + struct.pack("<I", UNKNOWN) + b"WAVEfmt " + struct.pack("<I", 16) + layout + b"data\xff\xff\xff\xff"


class RawEncoder:
    """16-bit little-endian samples behind ``head``."""

    def __init__(self, head: bytes = b"") -> None:
        self._head = head

    def add(self, samples: Pcm) -> bytes:
        """``samples`` as they are."""
        head, self._head = self._head, b""
        return head + samples.astype("<i2", copy=False).tobytes()

    def finish(self) -> bytes:
        """The header, if there were no samples."""
        return self.add(np.zeros(0, np.int16))


class LibsndfileEncoder:
    """A format of libsndfile.

    At the end libsndfile goes back to write lengths and seek tables into the header. Those bytes have been sent, so
    they are dropped: players read on to the end of a stream.
    """

    def __init__(self, rate: int, audio_format: str, subtype: str, **options: Any) -> None:
        self._outlet, self._sent = Outlet(), 0
        self._file = soundfile.SoundFile(
            self._outlet, "w", rate, channels=1, format=audio_format, subtype=subtype, **options
        )

    def add(self, samples: Pcm) -> bytes:
        """The bytes that are ready with these samples."""
        for first in range(0, len(samples), WRITTEN_AT_ONCE):
            self._file.write(samples[first : first + WRITTEN_AT_ONCE])
        return self._ready()

    def finish(self) -> bytes:
        """The rest."""
        self._file.close()
        return self._ready()

    def _ready(self) -> bytes:
        ready = bytearray()
        for position, data in self._outlet.writes():
            late = max(0, self._sent - position)
            first = position + late - self._sent
            ready[first : first + len(data[late:])] = data[late:]
        self._sent += len(ready)
        return bytes(ready)


def _mp3(rate: int) -> Encoder:
    # A constant rate: without the index that a file has, readers derive the length of an MP3 from its first frame.
    constant = {"bitrate_mode": "CONSTANT", "compression_level": MP3_COMPRESSION}
    return LibsndfileEncoder(rate, "MP3", "MPEG_LAYER_III", **constant)


_ENCODERS: dict[str, Callable[[int], Encoder]] = {
    "mp3": _mp3,
    "opus": lambda rate: LibsndfileEncoder(rate, "OGG", "OPUS"),
    "flac": lambda rate: LibsndfileEncoder(rate, "FLAC", "PCM_16"),
    "wav": lambda rate: RawEncoder(wav_header(rate)),
    "pcm": lambda rate: RawEncoder(),
}
_SUBTYPES = {"mp3": ("MP3", "MPEG_LAYER_III"), "opus": ("OGG", "OPUS"), "flac": ("FLAC", "PCM_16")}
MEDIA_TYPES = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}


def check_streamed(name: Any) -> str:
    """``name`` if it is a format that can be made here. RequestError otherwise, with the reason."""
    known = ", ".join(_ENCODERS)
    if name == "aac":
        raise RequestError(f"response_format 'aac' cannot be made: libsndfile has no encoder for it; take {known}")
    if not isinstance(name, str) or name not in _ENCODERS:
        raise RequestError(f"response_format {shortened(name)} is none of {known}")
    if name in _SUBTYPES:
        audio_format, subtype = _SUBTYPES[name]
        if subtype not in soundfile.available_subtypes(audio_format):
            version = soundfile.__libsndfile_version__
            raise RequestError(f"response_format {name!r} cannot be made: libsndfile {version} has no encoder for it")
    return name


def encoder(name: str, rate: int) -> Encoder:
    """An encoder of one of the formats that :func:`check_streamed` lets pass, for samples at ``rate`` Hz."""
    return _ENCODERS[check_streamed(name)](rate)
