"""Formats that are made while they are heard: every packet gives bytes at once, and together they are the speech."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen3tts_np import RequestError
from qwen3tts_np.audio.encode import MEDIA_TYPES, check_streamed, encoder, wav_header
from qwen3tts_np.ops import Pcm

RATE = 24_000
WAITING = {"wav": 0, "pcm": 0, "mp3": 0.1, "flac": 0.4, "opus": 1.1}  # seconds at most that an encoder holds back


def tone(seconds: float) -> Pcm:
    t = np.arange(round(RATE * seconds)) / RATE
    return (8000 * np.sin(2 * np.pi * 220 * t) * np.sin(2 * np.pi * 3 * t)).astype(np.int16)


def encoded(name: str, speech: Pcm, packet: int) -> tuple[bytes, list[int]]:
    """The bytes, and how many there are after each packet."""
    one = encoder(name, RATE)
    content, sizes = b"", []
    for first in range(0, len(speech), packet):
        content += one.add(speech[first : first + packet])
        sizes.append(len(content))
    return content + one.finish(), sizes


def decoded(name: str, content: bytes, samples: int) -> Pcm:
    if name == "pcm":
        return np.frombuffer(content, "<i2")
    if name == "flac":  # trap: libsndfile cannot read the end of one whose number of samples its header does not say
        content = content[:22] + (int.from_bytes(content[22:26], "big") | samples).to_bytes(4, "big") + content[26:]
    read, rate = soundfile.read(io.BytesIO(content), dtype="int16")
    assert rate == RATE
    return read


@pytest.mark.parametrize("name", sorted(MEDIA_TYPES))
def test_a_format_is_the_speech_and_comes_while_it_is_made(name):
    try:
        check_streamed(name)
    except RequestError as e:
        pytest.skip(str(e))
    speech = tone(3)
    content, sizes = encoded(name, speech, 4 * 1920)
    assert sizes[0] > 0
    late = max(1, int(np.ceil(WAITING[name] / 0.32)))
    assert all(a < b for a, b in zip(sizes[: -late or None], sizes[late:], strict=False)), sizes
    heard = decoded(name, content, len(speech)).astype(int)
    if name in ("wav", "pcm", "flac"):
        np.testing.assert_array_equal(heard, speech)
        return
    assert abs(len(heard) - len(speech)) <= 4000  # whole MP3 frames, and its encoder's delay
    delay = int(np.argmax(np.correlate(heard[: 2 * RATE], speech[2000 : RATE + 2000].astype(int), "valid"))) - 2000
    assert -10 <= delay <= 2000
    heard, speech = heard[max(delay, 0) :][: 2 * RATE], speech[max(-delay, 0) :][: 2 * RATE].astype(int)
    assert np.sqrt(((heard - speech) ** 2).mean()) < 0.1 * np.sqrt((speech**2).mean())


@settings(max_examples=10)
@given(st.lists(st.integers(0, 9000), max_size=5))
def test_packets_of_any_size_are_the_same_bytes(sizes: list[int]) -> None:
    speech = tone(sum(sizes) / RATE)
    ends = np.cumsum([0, *sizes])
    for name in ("wav", "pcm", "flac"):
        one = encoder(name, RATE)
        content = b"".join(one.add(speech[a:b]) for a, b in itertools.pairwise(ends)) + one.finish()
        assert content == encoded(name, speech, 1 << 20)[0]


def test_silence_is_a_complete_file():
    assert encoder("pcm", RATE).finish() == b""
    assert encoder("wav", RATE).finish() == wav_header(RATE)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("aac", "response_format 'aac' cannot be made: libsndfile has no encoder for it; take mp3, opus, flac, wav"),
        ("ogg", "response_format 'ogg' is none of mp3, opus, flac, wav, pcm"),
        (["mp3"], r"response_format \['mp3'\] is none of"),
    ],
)
def test_other_formats_are_refused_by_name(name, told):
    with pytest.raises(RequestError, match=told):
        check_streamed(name)


@pytest.mark.parametrize("missing", ["mp3", "opus"])
def test_a_libsndfile_without_an_encoder(missing, monkeypatch):
    monkeypatch.setattr(soundfile, "available_subtypes", lambda audio_format: {"PCM_16": ""})
    with pytest.raises(RequestError, match=f"response_format '{missing}' cannot be made: libsndfile .* has no encoder"):
        encoder(missing, RATE)
    assert check_streamed("flac") == "flac"
