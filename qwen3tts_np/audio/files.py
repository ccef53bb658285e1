"""Audio input and output: any audio a user passes becomes a mono float32 waveform; waveforms become files.

Loading follows the official wrappers (``Qwen3TTSTokenizer.load_audio``, ``Qwen3TTSModel._load_audio_to_np``): the
channels are averaged, and :func:`resample` gives what ``librosa.resample`` gives, that is soxr at its high quality.
"""

from __future__ import annotations

import base64
import errno
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from ..arguments import path_of, real_number
from ..errors import InputError, MissingFileError, RequestError, RequestTypeError
from ..files.input import read_bytes
from ..files.name import shown_name
from ..files.output import output_file
from ..ops import Pcm, Wave, as_array
from ..shown import shortened
from .decode import decode
from .outlet import Outlet
from .url import is_url, read_url, without_password

# A path, URL or base64 text; a file's content, or the open file; an array or tensor, with its rate or without.
AudioLike = str | os.PathLike[str] | bytes | BinaryIO | NDArray[Any] | tuple[NDArray[Any], int]

WRITTEN_AT_ONCE = 1 << 16  # samples; trap: libsndfile's Vorbis encoder crashes where it is given some minutes
MIN_RATE, MAX_RATE = 1_000, 1_000_000  # Hz
BASE64_LENGTH = 256  # characters; a longer text that names no file is taken for base64
FULL_SCALE = 2**15  # of 16-bit samples
INTEGER_SCALE = {"int16": (0, FULL_SCALE), "int32": (0, 2**31), "uint8": (2**7, 2**7)}  # type -> (zero, full scale)


def read_audio(source: AudioLike, rate: int | None = None, longest: float = math.inf) -> tuple[Wave, int]:
    """A waveform [samples] and its sample rate in Hz.

    ``source`` is the path of a file that libsndfile reads, an http(s) URL, base64 text (bare, or after
    ``data:audio/...;base64,``), the content of such a file, or the file itself, open for reading bytes, a pair (array,
    rate), or an array whose rate is the second argument. An array, which may be a tensor of PyTorch, is
    [samples], or [samples, channels] in either order (the longer axis is time), of floats, or of integers as WAV files
    hold them (uint8, int16, int32), which are brought to -1 to 1. RequestError for anything else, and for audio that is
    empty or not finite. A long file is read no further than ``longest`` seconds: AudioTooLong.
    """
    if isinstance(source, tuple):
        if len(source) != 2 or not isinstance(array := as_array(source[0]), np.ndarray):
            types = ", ".join(type(part).__name__ for part in source)
            raise RequestTypeError(f"audio is a tuple of ({types}), expected (array, sample rate)")
        source, rate = array, source[1]
    source = as_array(source)
    if isinstance(source, str | os.PathLike):
        name = os.fspath(path_of(source, "audio")) if isinstance(source, os.PathLike) else source
        what = f"audio {repr(without_password(name)) if is_url(name) else shortened(name)}"
        samples, rate = decode(audio_bytes(name, what), what, longest)
    elif isinstance(source, np.ndarray):
        what = f"the audio array {list(source.shape)}"
        if rate is None:
            raise RequestError(f"{what} came without its sample rate; give it with sr=")
        samples = _as_floats(np.asarray(source), what)  # trap: an np.matrix never loses an axis
    else:
        what, data = "the audio file", getattr(source, "read", lambda: source)()
        if not isinstance(data, bytes | bytearray | memoryview):
            found = "a file opened as text" if isinstance(data, str) else type(data).__name__
            raise RequestTypeError(f"audio is {found}, expected a path, a URL, base64, a binary file or an array")
        samples, rate = decode(bytes(data), what, longest)
    return _as_wave(samples, what), check_rate(rate)


def resample(wave: Wave, rate: int, target_rate: int) -> Wave:
    """``wave`` [samples] at another sample rate, [ceil(samples * ratio)], as ``librosa.resample`` (0.11)."""
    if rate == target_rate:
        return wave
    # The length is float arithmetic, as there: for some lengths it is one more than the exact one.
    samples = int(np.ceil(len(wave) * (float(target_rate) / rate)))
    resampled = soxr.resample(wave, rate, target_rate, quality="HQ")[:samples]
    return np.pad(resampled, (0, samples - len(resampled)))


def write_audio(path: str | os.PathLike[str], wave: NDArray[np.floating[Any]], rate: int) -> None:
    """Write ``wave`` [samples], -1 to 1, in the format that the suffix of ``path`` names (.wav is 16-bit PCM).

    What is found at ``path`` is complete (``files/output.py``). RequestError where the format is unknown or the file
    cannot be written.
    """
    if wave.ndim != 1 or not np.isfinite(wave).all():
        raise RequestError(f"{path}: a waveform must be [samples], all finite; this one is {list(wave.shape)}")
    with open_audio(path, rate) as file:
        file.write(wave)


def pcm16(wave: NDArray[np.floating[Any]] | Pcm) -> Pcm:
    """``wave`` [samples], -1 to 1, as 16-bit integers: the quantiser of all output.

    To the nearest multiple of 2**-15, what is beyond full scale clipped: reading divides by 2**15, so what was read is
    written as it was. Trap: libsndfile rounds down for .wav and to the nearest for .flac.
    """
    if wave.dtype == np.int16:
        return wave.astype(np.int16, copy=False)
    return np.rint(np.clip(wave * float(FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1)).astype(np.int16)


class AudioWriter:
    """A mono audio file that grows at its end."""

    def __init__(self, content: BinaryIO, rate: int, **kind: Any) -> None:
        self._content, self._outlet = content, Outlet()
        with _errors_of_libsndfile():
            self._file = soundfile.SoundFile(self._outlet, "w", rate, channels=1, **kind)

    def write(self, wave: NDArray[np.floating[Any]] | Pcm) -> None:
        """Append ``wave`` [samples], floats from -1 to 1 or 16-bit integers."""
        samples = pcm16(wave)
        for first in range(0, len(samples), WRITTEN_AT_ONCE):
            with _errors_of_libsndfile():
                self._file.write(samples[first : first + WRITTEN_AT_ONCE])
            self._pass_on()

    def close(self) -> None:
        """Write what waits in the encoder, and the lengths in the header."""
        with _errors_of_libsndfile():
            self._file.close()
        self._pass_on()

    def _pass_on(self) -> None:
        for position, data in self._outlet.writes():
            if position != self._content.tell():
                self._content.seek(position)
            self._content.write(data)


@contextmanager
def open_audio(path: str | os.PathLike[str], rate: int, *, sole: bool = False) -> Iterator[AudioWriter]:
    """A file to write to, which gets its name once it is complete; errors as in :func:`write_audio`.

    ``sole``: see ``output_file``.
    """
    target = Path(path)
    rate = check_encoding(target, rate)
    kind = {"format": format_of(target), "subtype": OPUS if is_opus(target) else None}
    with output_file(target, sole=sole) as content:
        file = AudioWriter(content, rate, **kind)
        yield file
        file.close()


def check_encoding(path: Path, rate: int) -> int:
    """``rate`` in Hz; RequestError where the format that the suffix of ``path`` names cannot be written with it."""
    format_of(path)
    rate = check_rate(rate)
    if is_opus(path) and rate not in OPUS_RATES:
        rates = ", ".join(map(str, OPUS_RATES))
        raise RequestError(f"{path}: Opus has {rates} Hz, not {rate}; use .wav, .flac or .ogg")
    return rate


@contextmanager
def _errors_of_libsndfile() -> Iterator[None]:
    """Convert libsndfile's error for a format that it cannot write to an OSError."""
    try:
        yield
    except soundfile.LibsndfileError as e:
        raise OSError(errno.EINVAL, e.error_string) from None
    except TypeError as e:  # a format without a usual encoding
        raise OSError(errno.EINVAL, str(e)) from None


SAME_FORMAT = {"OGA": "OGG", "OPUS": "OGG", "AIF": "AIFF", "AIFC": "AIFF"}  # other suffixes -> libsndfile's name
# The others of libsndfile have no header (RAW), a file beside the file (SD2), or a rate of their own (WVE, XI).
SPEECH_FORMATS = frozenset("WAV FLAC OGG MP3 AIFF AU CAF W64 RF64 WAVEX NIST".split())
OPUS = "OPUS"  # an encoding in an Ogg file
OPUS_RATES = (8000, 12000, 16000, 24000, 48000)  # Hz


def is_opus(path: Path) -> bool:
    """Whether the suffix of ``path`` names Opus."""
    return path.suffix[1:].upper() == OPUS


def format_of(path: Path) -> str:
    """The audio format that the suffix of ``path`` names, as libsndfile calls it; raises RequestError if none."""
    audio_format = SAME_FORMAT.get(path.suffix[1:].upper(), path.suffix[1:].upper())
    version = soundfile.__libsndfile_version__
    if audio_format in soundfile.available_formats() and audio_format not in SPEECH_FORMATS:
        raise RequestError(f"{path} cannot be written: {path.suffix} is no format for speech; use .wav, .flac or .ogg")
    if audio_format not in soundfile.available_formats():
        if audio_format == "MP3":
            raise RequestError(f"{path}: .mp3 needs libsndfile 1.1, here it is {version}; use .wav, .flac or .ogg")
        suffix = shortened(path.suffix)
        raise RequestError(
            f"{shown_name(path)}: the suffix {suffix} names no audio format; use .wav, .flac, .ogg or .mp3"
        )
    if is_opus(path) and OPUS not in soundfile.available_subtypes(audio_format):
        raise RequestError(f"{path}: .opus needs libsndfile 1.0.29, here it is {version}; use .wav, .flac or .ogg")
    return audio_format


def check_rate(rate: Any) -> int:
    """``rate`` as an integer in Hz; raises RequestError if it is not one."""
    number = real_number(rate)
    if not MIN_RATE <= number <= MAX_RATE:
        raise RequestError(f"sample rate {shortened(rate)} must be a number of Hz from {MIN_RATE} to {MAX_RATE}")
    return int(number)


def audio_bytes(source: str, what: str) -> bytes:
    """The content of the audio file behind a path, a URL or base64 text; ``what`` is its name in a sentence."""
    if is_url(source):
        return read_url(source)
    try:
        if source.startswith("data:"):
            return base64.b64decode(source.partition(",")[2])
        # Bare base64 is full of slashes. The official package takes it for a path, and fails.
        if len(source) > BASE64_LENGTH and not os.path.isfile(source):
            return base64.b64decode(source)
    except ValueError:
        raise MissingFileError(f"{what} cannot be read: it is neither a file nor base64") from None
    try:
        return read_bytes(source)
    except InputError as e:
        kind = MissingFileError if isinstance(e, MissingFileError) else RequestError
        raise kind(f"{what} cannot be read: {e.reason}") from None


def _as_floats(array: NDArray[Any], what: str) -> NDArray[np.floating[Any]]:
    if array.dtype.name in INTEGER_SCALE:
        zero, full_scale = INTEGER_SCALE[array.dtype.name]
        return (array.astype(np.float64) - zero) / full_scale
    if not np.issubdtype(array.dtype, np.floating):
        raise RequestError(f"{what} is of type {array.dtype}; use floats from -1 to 1, or {', '.join(INTEGER_SCALE)}")
    return array


@np.errstate(over="ignore", invalid="ignore")
def _as_wave(samples: NDArray[np.floating[Any]], what: str) -> Wave:
    """Mono float32, checked."""
    if samples.ndim not in (1, 2):
        raise RequestError(f"{what} must be [samples] or [samples, channels]")
    if samples.size == 0:
        raise RequestError(f"{what} is empty")
    if samples.ndim == 2:
        samples = samples.mean(axis=1 if samples.shape[1] <= samples.shape[0] else 0)
    wave = samples.astype(np.float32)
    if not np.isfinite(wave).all():
        raise RequestError(f"{what} holds values that are not finite")
    return wave
