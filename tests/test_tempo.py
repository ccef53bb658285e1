"""Tempo: faster and slower at the same pitch, streamed as in one, in every output."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from qwen3tts_np import Qwen3TTSModel, RequestError, cli
from qwen3tts_np.audio.tempo import Stretch, at_tempo, check_tempo
from qwen3tts_np.ops import Wave
from qwen3tts_np.speech.live import stream
from qwen3tts_np.speech.longform import narrate
from qwen3tts_np.speech.script import read_script

RATE = 24000
MOST = 9
TEXT = "It rained, and nobody minded.\n\nIn the morning the sun was out."

needs_av = pytest.mark.skipif(find_spec("av") is None, reason="needs the extra tempo")


def voiced(seconds: float, pitch: float) -> Wave:
    """Something like a sung vowel: harmonics of ``pitch`` Hz under formants, in syllables."""
    t = np.arange(round(seconds * RATE)) / RATE
    loud = [
        np.exp(-(((k * pitch - 600) / 500) ** 2)) + 0.4 * np.exp(-(((k * pitch - 1700) / 400) ** 2))
        for k in range(1, 30)
    ]
    wave = sum(a * np.sin(2 * np.pi * k * pitch * t + k) for k, a in enumerate(loud, start=1))
    wave = wave * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * t))
    return (0.5 * wave / np.abs(wave).max()).astype(np.float32)


def pitch_of(wave: Wave) -> float:
    """Hz: the median of the autocorrelation's peak, in frames of 50 ms."""
    found = []
    for start in range(0, len(wave) - 1200, 1200):
        frame = wave[start : start + 1200] * np.hanning(1200)
        power = np.fft.rfft(frame, 4096)
        correlation = np.fft.irfft(np.abs(power) ** 2)[:400]
        found.append(RATE / (60 + int(correlation[60:].argmax())))
    return float(np.median(found))


@needs_av
@pytest.mark.parametrize("tempo", [0.25, 0.5, 0.8, 1.5, 2.0, 3.3, 4.0])
@pytest.mark.parametrize("pitch", [110.0, 220.0])
def test_pitch_stays_and_length_is_that_of_the_tempo(tempo: float, pitch: float) -> None:
    wave = voiced(3.0, pitch)
    made = at_tempo(wave, tempo, RATE)
    assert len(made) == round(len(wave) / tempo)
    assert abs(pitch_of(made) / pitch - 1) < 0.02
    assert np.abs(made[-RATE // 20 :]).max() > 0.05  # it ends where it should, give or take half a window
    assert abs(np.sqrt(np.mean(made**2)) / np.sqrt(np.mean(wave**2)) - 1) < 0.1


@needs_av
@given(st.lists(st.integers(0, 5000), max_size=12), st.sampled_from([0.25, 0.6, 2.0, 4.0]))
def test_packets_of_any_size_give_the_same_samples(sizes: list[int], tempo: float) -> None:
    wave = voiced(1.0, 150)[: sum(sizes)]
    stretch, parts, start = Stretch(tempo, RATE), [], 0
    for size in sizes:
        parts.append(stretch.feed(wave[start : start + size]))
        start += size
    parts.append(stretch.finish())
    np.testing.assert_array_equal(np.concatenate(parts), at_tempo(wave, tempo, RATE))


@pytest.fixture(scope="module")
def model(synthetic: Callable[..., Path]) -> Qwen3TTSModel:
    return Qwen3TTSModel.from_pretrained(synthetic("tiny", "custom_voice"), threads=1)


@needs_av
@pytest.mark.parametrize("tempo", [0.5, 2, 4.0])
def test_streamed_is_whole(model: Qwen3TTSModel, tempo: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    speech: dict[str, Any] = {"speaker": "ryan", "seed": 7, "max_new_tokens": MOST, "tempo": tempo}
    for text in ("Hello there.", TEXT, read_script("Hello. [pause 0.5s] There.", markup=True)):
        made = narrate(model, text, "a.wav", **speech)
        samples, _ = soundfile.read("a.wav", dtype="int16")
        assert len(samples) == round(made.seconds * RATE)
        for packet in (1, 4):
            np.testing.assert_array_equal(
                np.concatenate(list(stream(model, text, packet_frames=packet, **speech))), samples
            )
    first, second = made.pieces
    assert round(RATE * (second.start - first.end)) == RATE // 2  # what a mark asks for keeps its length


@needs_av
def test_length_and_times_follow_the_tempo(
    model: Qwen3TTSModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    speech: dict[str, Any] = {"speaker": "ryan", "seed": 7, "max_new_tokens": MOST}
    usual = narrate(model, "Hello there.", "a.wav", work="w", **speech)
    fast = narrate(model, "Hello there.", "a.wav", work="w", subtitles=["a.srt"], tempo=2, **speech)
    assert fast.seconds == pytest.approx(usual.seconds / 2, rel=0.01)
    assert fast.reused == 0 and [piece.frames for piece in fast.pieces] == [piece.frames for piece in usual.pieces]
    assert f"--> 00:00:00,{round(1000 * fast.seconds)}" in Path("a.srt").read_text()
    same = narrate(model, "Hello there.", "a.wav", work="w", tempo=1, **speech)
    assert (same.seconds, same.reused) == (usual.seconds, 1)


@pytest.mark.parametrize("value", [0, 0.249, 4.001, -1, float("nan"), float("inf"), "2", None, True, [2], 10**400])
def test_what_is_no_tempo(value: Any) -> None:
    with pytest.raises(RequestError, match=r"must be a number from 0\.25 to 4"):
        check_tempo(value)


def test_without_the_library_a_sentence_says_how_to_get_it(
    model: Qwen3TTSModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "av", None)
    assert check_tempo(1) == 1
    narrate(model, "Hi.", "a.wav", speaker="ryan", max_new_tokens=2, seed=1, tempo=1.0)
    assert cli.main(["say", "nowhere/at/all", "Hi.", "--tempo", "2", "-o", "b.wav"]) == 2
    assert capsys.readouterr().err == (
        "qwen3tts-np say: another tempo needs av, which is not installed: pip install 'qwen3tts-np[tempo]'\n"
    )
    assert not Path("b.wav").exists()
