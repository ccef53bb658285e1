"""Two sounds compared: versions of one sound whose differences are known."""

from __future__ import annotations

import json
import math
import sys

import numpy as np
import pytest
import soundfile
import soxr
from scipy.signal import chirp

from qwen3tts_np import cli
from qwen3tts_np.errors import RequestError
from qwen3tts_np.inspect.comparison import compare_audio, warp_mels

RATE = 24000


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    """2 s: a sweep that fades in and out, on a noise that has no period."""
    t = np.arange(2 * RATE) / RATE
    noise = np.random.default_rng(0).standard_normal(len(t))
    return (0.3 * chirp(t, 100, 2, 6000) * np.hanning(len(t)) + 0.02 * noise).astype(np.float32)


def compare(a, b, **options):
    return compare_audio((a, RATE), (b, RATE), **options)


def test_identical(sound):
    c = compare(sound, sound.copy())
    assert c.identical
    assert (c.lag_samples, c.gain_db, c.mel_db, c.spectral_convergence) == (0, 0.0, 0.0, 0.0)
    assert math.isinf(c.snr_db) and math.isinf(c.snr_fitted_db)
    assert c.correlation == pytest.approx(1)
    assert c.verdict() == "the same audio, sample for sample"


@pytest.mark.parametrize("shift", [1, -1, 100, -2400, 12000])
def test_shifted(sound, shift):
    moved = np.pad(sound, (shift, 0)) if shift > 0 else sound[-shift:]
    c = compare(sound, moved)
    assert c.lag_samples == shift
    assert c.lag_seconds == shift / RATE
    assert c.seconds_longer == pytest.approx(shift / RATE)
    assert math.isinf(c.snr_db) and c.mel_db == 0
    assert ("later" if shift > 0 else "earlier") in c.verdict()
    assert not c.identical


@pytest.mark.parametrize(("factor", "decibels"), [(0.5, -6.0206), (2.0, 6.0206), (-0.1, -20.0)])
def test_scaled(sound, factor, decibels):
    c = compare(sound, sound * np.float32(factor))
    assert c.gain_db == pytest.approx(decibels, abs=1e-3)
    assert c.louder_db == pytest.approx(decibels, abs=1e-3)
    assert c.inverted is (factor < 0)
    assert c.correlation == pytest.approx(math.copysign(1, factor))
    assert c.snr_db == pytest.approx(-20 * math.log10(abs(1 - factor)), abs=1e-3)
    assert c.snr_fitted_db > 120  # float32 rounding
    assert c.mel_db < 1e-3


@pytest.mark.parametrize("snr", [0.0, 20.0, 50.0])
def test_noisy(sound, snr):
    noise = np.random.default_rng(1).standard_normal(len(sound))
    noise *= np.sqrt(np.mean(sound**2) / np.mean(noise**2)) * 10 ** (-snr / 20)
    c = compare(sound, sound + noise.astype(np.float32))
    assert c.lag_samples == 0
    assert c.snr_db == pytest.approx(snr, abs=0.01)
    assert (c.verdict().startswith("the same audio")) is (snr >= 10)


def test_more_noise_is_a_greater_mel_distance(sound):
    noise = 0.01 * np.random.default_rng(1).standard_normal(len(sound)).astype(np.float32)
    distances = [compare(sound, sound + k * noise).mel_db for k in (0.1, 1, 10)]
    assert distances == sorted(distances) and distances[0] > 0


@pytest.mark.parametrize("rate", [48000, 44100])
def test_resampled(rate):
    t = np.arange(2 * RATE) / RATE
    sweep = (chirp(t, 100, 2, 6000) * np.hanning(len(t))).astype(np.float32)  # nothing where the filters cut
    c = compare_audio((sweep, RATE), (soxr.resample(sweep, RATE, rate, quality="VHQ"), rate))
    assert c.b.rate == rate and not c.identical
    assert c.lag_samples == 0
    assert abs(c.seconds_longer) < 1e-4
    assert abs(c.gain_db) < 1e-3
    assert c.snr_db > 90  # soxr at its high quality promises 20 bits
    assert f"at {rate} Hz instead of {RATE}" in c.verdict()


def test_rounded_to_sixteen_bits(sound, tmp_path):
    soundfile.write(tmp_path / "a.wav", np.round(sound * 2**15).astype(np.int16), RATE, subtype="PCM_16")
    c = compare_audio((sound, RATE), str(tmp_path / "a.wav"))
    step = 2.0**-15
    assert c.snr_db == pytest.approx(10 * math.log10(np.mean(sound**2) / (step**2 / 12)), abs=0.2)


def test_everything_else_is_different(sound):
    other = np.random.default_rng(7).standard_normal(len(sound)).astype(np.float32) * 0.1
    c = compare(sound, other)
    assert abs(c.correlation) < 0.1
    assert c.verdict().startswith("different audio")


def test_silence_is_compared_too(sound):
    c = compare(np.zeros_like(sound), np.zeros_like(sound))
    assert c.identical and c.lag_samples == 0
    c = compare(sound, np.zeros_like(sound))
    assert c.b.rms_db == -120 and c.snr_db == 0 and c.correlation == 0
    assert c.verdict().startswith("different audio")


def test_warping_finds_a_pause(sound):
    """0.5 s of near silence in the middle of B: frame by frame the halves do not fit, warped they do."""
    pause = 1e-4 * np.random.default_rng(3).standard_normal(RATE // 2).astype(np.float32)
    stretched = np.concatenate([sound[:RATE], pause, sound[RATE:]])
    c = compare(sound, stretched, dtw=True)
    assert c.dtw_mel_db < c.mel_db or c.overlap_seconds < 2
    assert 0.15 < c.dtw_stretch_seconds <= 0.5
    assert compare(sound, sound, dtw=True).dtw_mel_db == 0


def test_warping_by_a_table():
    a = np.array([[0.0], [10.0], [20.0]])
    assert warp_mels(a, a) == (0.0, 0)
    cost, detour = warp_mels(a, np.array([[0.0], [0.0], [0.0], [10.0], [20.0]]))
    assert (cost, detour) == (0.0, 2)
    assert warp_mels(a, a + 1)[0] == 1.0


def test_what_cannot_be_compared(sound):
    with pytest.raises(RequestError, match="A has 100 samples"):
        compare(sound[:100], sound)
    with pytest.raises(RequestError, match="up to 60 s"):
        compare(np.tile(sound, 31), sound, dtw=True)


@pytest.fixture
def files(sound, tmp_path):
    paths = [tmp_path / "a.wav", tmp_path / "b.wav"]
    soundfile.write(paths[0], sound, RATE, subtype="FLOAT")
    soundfile.write(paths[1], np.pad(0.5 * sound, (240, 0)), RATE, subtype="FLOAT")
    return list(map(str, paths))


def test_the_command_as_text_and_json(files, capsys):
    assert cli.main(["compare-audio", *files]) == 0
    out = capsys.readouterr().out
    assert "+240 samples at 24 kHz" in out
    assert "-6.02 dB" in out
    assert out.splitlines()[-1].startswith("the same audio (10.0 ms later, 6.0 dB quieter)")
    assert cli.main(["compare-audio", files[0], files[0], "--json", "--dtw"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["identical"] is True
    assert found["snr_db"] is None and found["dtw_mel_db"] == 0


def test_the_plot(files, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    for suffix in ("png", "svg"):
        assert cli.main(["compare-audio", *files, "--plot", str(tmp_path / f"plot.{suffix}")]) == 0
        assert (tmp_path / f"plot.{suffix}").stat().st_size > 10_000
    assert cli.main(["compare-audio", *files, "--plot", str(tmp_path / "plot.jpg")]) == 2
    assert "a plot is a .png or a .svg file" in capsys.readouterr().err


def test_without_matplotlib_one_sentence_says_what_to_install(files, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert cli.main(["compare-audio", *files, "--plot", str(tmp_path / "plot.png")]) == 2
    assert capsys.readouterr().err == (
        "qwen3tts-np compare-audio: a plot needs matplotlib, which is not installed: pip install 'qwen3tts-np[plot]'\n"
    )


def test_a_file_that_is_no_sound(files, tmp_path, capsys):
    (tmp_path / "x.wav").write_text("no sound")
    assert cli.main(["compare-audio", files[0], str(tmp_path / "x.wav")]) == 2
    error = capsys.readouterr().err
    assert "x.wav" in error and error.count("\n") == 1
