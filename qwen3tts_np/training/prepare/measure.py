"""What is measured of one clip, once: its codes, its x-vector, and the numbers that the rules look at."""

from __future__ import annotations

import base64
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ...arguments import codes_of
from ...audio.files import read_audio, resample
from ...cloning import MOST_SECONDS
from ...errors import RequestError
from ...files.arrays import read_codes
from ...inspect.comparison import compare_audio
from ...ops import Array, Ints, Wave
from ...voice.reference_clip import clipped_share, noise_distance, rms_of_windows, scale_problem
from .source import Utterance
from .tools import Tools

SHORTEST, LONGEST = 0.5, 30.0  # s of a clip
SILENT = -60.0  # dB of full scale, of the loudest 20 ms
EMBEDDED = 8.0  # s of a clip that its x-vector is made of: more cost time, and tell voices apart no better
DECODED = 3.0  # s of a clip that go through the codec and back: decoding takes six times as long as encoding
FRAMES_DTYPE = "<u2"


@dataclass(frozen=True)
class Measured:
    """A clip. None where something could not be measured; without ``codes`` there is a ``fault``, a predicate."""

    fault: str | None = None
    rule: str | None = None  # of the fault
    seconds: float = 0.0
    codes: str | None = None  # base64 of FRAMES_DTYPE [frames, G]
    groups: int = 0
    embedding: str | None = None  # base64 of float32 [H]
    clipped: float = 0.0  # share of the samples
    noise: float | None = None  # dB from the noise up to the voice; None: no noise was found
    loudest: float | None = None  # dB of full scale

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def frames(self) -> Ints:
        """codes [frames, G]."""
        flat = np.frombuffer(base64.b64decode(self.codes or ""), FRAMES_DTYPE)
        return flat.reshape(-1, max(self.groups, 1)).astype(np.int64)

    def x_vector(self) -> Array | None:
        """The x-vector [H] of the clip, if it has one."""
        return None if self.embedding is None else np.frombuffer(base64.b64decode(self.embedding), np.float32)


def measure(utterance: Utterance, tools: Tools) -> Measured:
    """Measure a row's clip, or take the codes that the row brings. Nothing is raised for what is wrong with the row."""
    try:
        if utterance.audio is not None:
            return _of_audio(*read_audio(utterance.audio), tools)
        if utterance.audio_codes is not None:
            return _of_codes(utterance.audio_codes, tools)
    except RequestError as e:
        return Measured(str(e), "unreadable")
    return Measured("has neither audio nor audio_codes", "unreadable")


def _of_audio(wave: Wave, rate: int, tools: Tools) -> Measured:
    seconds = len(wave) / rate
    if not SHORTEST <= seconds <= LONGEST:
        rule = "short" if seconds < SHORTEST else "long"
        return Measured(f"lasts {seconds:.2f} s", rule, seconds)
    loudest = _decibels(float(rms_of_windows(wave, rate).max()))
    if loudest < SILENT:
        return Measured(f"is silent: its loudest moment is at {loudest:.0f} dB of full scale", "silent", seconds)
    if (problem := scale_problem(wave)) is not None:
        return Measured(problem, "scale", seconds)
    codes = tools.codec.encode(wave, sr=rate).audio_codes[0]
    noise = noise_distance(wave, rate)
    return Measured(
        seconds=seconds,
        codes=_text_of(codes.astype(FRAMES_DTYPE)),
        groups=codes.shape[1],
        embedding=None if tools.voices is None else _text_of(x_vector(wave[: int(EMBEDDED * rate)], rate, tools)),
        clipped=clipped_share(wave),
        noise=noise if math.isfinite(noise) else None,
        loudest=loudest,
    )


def _of_codes(given: str | list[list[int]], tools: Tools) -> Measured:
    c = tools.config.talker_config
    size = c.code_predictor_config.vocab_size
    codes = codes_of(read_codes(given) if isinstance(given, str) else given, "audio_codes", c.num_code_groups, size)
    samples = tools.codec.get_decode_upsample_rate()
    seconds = len(codes) * samples / tools.codec.get_output_sample_rate()
    if not SHORTEST <= seconds <= LONGEST:
        return Measured(f"lasts {seconds:.2f} s", "short" if seconds < SHORTEST else "long", seconds)
    return Measured(seconds=seconds, codes=_text_of(codes.astype(FRAMES_DTYPE)), groups=codes.shape[1])


def x_vector(wave: Wave, rate: int, tools: Tools) -> Array:
    """The x-vector float32 [H] of a clip, in float32 on every path."""
    assert tools.voices is not None
    return tools.voices.embedding(wave, rate).astype(np.float32)


def reference(audio: str, tools: Tools) -> Measured:
    """The x-vector of a reference clip, all of it."""
    try:
        wave, rate = read_audio(audio)
        if (seconds := len(wave) / rate) > MOST_SECONDS:
            return Measured(f"it lasts {seconds:.0f} s, and {MOST_SECONDS} s are the most", "reference", seconds)
        if (problem := scale_problem(wave)) is not None:
            return Measured(f"it {problem}", "reference", seconds)
        return Measured(seconds=seconds, embedding=_text_of(x_vector(wave, rate, tools)))
    except RequestError as e:
        return Measured(str(e), "reference")


def round_trip(utterance: Utterance, codes: Ints, tools: Tools) -> float | None:
    """dB between the mel spectrograms of the beginning of a clip and of what the codec makes of its codes [frames, G].

    None where there is no clip, or none any more.
    """
    if utterance.audio is None:
        return None
    made_at, samples = tools.codec.get_output_sample_rate(), tools.codec.get_decode_upsample_rate()
    ((again,), _) = tools.codec.decode([codes[: round(DECODED * made_at / samples)]])
    try:
        wave, rate = read_audio(utterance.audio)
        beginning = resample(wave[: round(len(again) * rate / made_at)], rate, made_at)
        return compare_audio((beginning, made_at), (again, made_at)).mel_db
    except RequestError:
        return None


def _text_of(array: np.ndarray[Any, Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def _decibels(amplitude: float) -> float:
    return 20 * math.log10(max(amplitude, 1e-10))
