"""Loudness: the level that is asked for, never above the peak that is allowed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from qwen3tts_np import Qwen3TTSModel, RequestError, cli
from qwen3tts_np.audio import loudness
from qwen3tts_np.audio.loudness import at_loudness, check_loudness, loudness_of, true_peak
from qwen3tts_np.ops import Pcm
from qwen3tts_np.speech.longform import narrate

RATE = 24000


def tone(level: float, seconds: float = 2.0, hertz: float = 440) -> Pcm:
    t = np.arange(round(seconds * RATE)) / RATE
    return np.rint(2**15 * level * np.sin(2 * np.pi * hertz * t)).astype(np.int16)


def level_of(samples: Pcm) -> float:
    return loudness_of(samples.astype(np.float32) / 2**15, RATE)


@pytest.mark.parametrize("level", [0.005, 0.1, 0.9])
@pytest.mark.parametrize("target", [-16, -23.0, -40])
def test_the_level_is_the_one_asked_for(level: float, target: float) -> None:
    pytest.importorskip("pyloudnorm")
    assert level_of(at_loudness(tone(level), RATE, target)) == pytest.approx(target, abs=0.1)


def test_a_sine_of_full_scale_has_the_level_of_the_standard() -> None:
    """A 997 Hz sine of full scale in one channel has -3.01 LKFS; EBU Tech 3341 lets a meter be off by 0.1."""
    pytest.importorskip("pyloudnorm")
    assert loudness_of(
        np.sin(2 * np.pi * 997 * np.arange(5 * 48000) / 48000).astype(np.float32), 48000
    ) == pytest.approx(-3.01, abs=0.1)


def test_peaks_stay_below_their_limit_and_a_warning_says_what_was_reached() -> None:
    pytest.importorskip("pyloudnorm")
    clicks = tone(0.01)
    clicks[::6000] = 20000
    with pytest.warns(UserWarning, match=r"the speech has -\d+\.\d LUFS, not -5: louder, its peaks would pass -1 dBTP"):
        made = at_loudness(clicks, RATE, -5)
    assert 20 * np.log10(true_peak(made / 2**15)) == pytest.approx(-1, abs=0.05)


def test_a_peak_between_samples_is_found_in_every_part(monkeypatch: pytest.MonkeyPatch) -> None:
    wave = 0.5 * np.sin(2 * np.pi * RATE / 4 * np.arange(4000) / RATE + np.pi / 4)  # samples at 0.707 of its peak
    wave[:100] = wave[-100:] = 0
    assert true_peak(wave) == pytest.approx(0.5, rel=0.1) and np.abs(wave).max() < 0.36
    whole = true_peak(wave)
    monkeypatch.setattr(loudness, "PART", 333)
    assert true_peak(wave) == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize("samples", [np.zeros(RATE, np.int16), tone(0.5, 0.3), np.zeros(0, np.int16)])
def test_silence_and_the_shortest_speech_stay(samples: Pcm) -> None:
    pytest.importorskip("pyloudnorm")
    with pytest.warns(UserWarning, match=r"silent or shorter than 0\.4 s"):
        assert at_loudness(samples, RATE, -16) is samples


@pytest.mark.parametrize("value", [0, -51, 5, float("nan"), "-16", True, 10**400])
def test_what_is_no_loudness(value: Any) -> None:
    with pytest.raises(RequestError, match=r"must be a number from -50 to -5 \(LUFS\)"):
        check_loudness(value)


@pytest.fixture(scope="module")
def model(synthetic: Callable[..., Path]) -> Qwen3TTSModel:
    return Qwen3TTSModel.from_pretrained(synthetic("tiny", "custom_voice"), threads=1)


def test_all_of_the_speech_has_one_gain(model: Qwen3TTSModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyloudnorm")
    monkeypatch.chdir(tmp_path)
    text, speech = "It rained.\n\nNobody minded.", {"speaker": "ryan", "seed": 7, "max_new_tokens": 9}
    usual = narrate(model, text, "a.wav", work="w", **speech)
    made = narrate(model, text, "b.wav", work="w", loudness=-30, **speech)
    assert made.reused == 2 and made.pieces == usual.pieces
    a, b = (soundfile.read(name, dtype="int16")[0] for name in ("a.wav", "b.wav"))
    assert level_of(b) == pytest.approx(-30, abs=0.1)
    gain = np.abs(b).max() / np.abs(a).max()
    assert np.abs(b - gain * a).max() < 2


def test_what_cannot_be_measured_is_refused_before_the_work(
    model: Qwen3TTSModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    pytest.importorskip("pyloudnorm")
    with pytest.raises(
        RequestError, match=r"the text takes about 1\.\d h to speak, and a loudness is for speech of up to 1 h"
    ):
        narrate(model, "It rained, and nobody minded. " * 1800, "a.wav", speaker="ryan", loudness=-16)
    assert cli.main(["say", ".", "Hi.", "--stream", "--loudness", "-16"]) == 2
    assert (
        "--stream and --loudness do not go together: a stream is heard before all of it can be measured"
        in capsys.readouterr().err
    )
    monkeypatch.setitem(sys.modules, "pyloudnorm", None)
    assert cli.main(["say", "nowhere/at/all", "Hi.", "--loudness", "-16"]) == 2
    assert capsys.readouterr().err == (
        "qwen3tts-np say: a loudness needs pyloudnorm, which is not installed: pip install 'qwen3tts-np[loudness]'\n"
    )
    assert list(tmp_path.iterdir()) == []
