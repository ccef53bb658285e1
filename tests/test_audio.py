"""Reading, resampling and writing audio."""

from __future__ import annotations

import base64
import errno
import functools
import http.server
import io
import math
import threading
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from qwen3tts_np.audio.files import pcm16, read_audio, resample, write_audio
from qwen3tts_np.errors import OutputError, RequestError
from qwen3tts_np.files import output

PCM16 = 1 / 32768  # one step of a 16-bit file


def tone(samples, rate, hertz=440.0):
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(samples) / rate)).astype(np.float32)


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "clip.wav"
    soundfile.write(path, tone(3000, 16000), 16000)
    return path


@pytest.fixture
def server(tmp_path):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Quiet, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


# --- reading --------------------------------------------------------------------------------------


def test_a_path_a_url_and_base64_read_alike(clip, server):
    text = base64.b64encode(clip.read_bytes()).decode()
    assert "/" in text  # which the official package takes for a path
    for source in (clip, str(clip), f"{server}/clip.wav", text, f"data:audio/wav;base64,{text}"):
        wave, rate = read_audio(source)
        assert rate == 16000
        assert wave.dtype == np.float32
        np.testing.assert_allclose(wave, tone(3000, 16000), rtol=0, atol=PCM16)


@pytest.mark.parametrize(("suffix", "tolerance"), [("wav", PCM16), ("flac", PCM16), ("aiff", PCM16), ("ogg", 0.05)])
def test_any_format_of_libsndfile(tmp_path, suffix, tolerance):
    path = tmp_path / f"clip.{suffix}"
    soundfile.write(path, tone(4000, 8000), 8000)
    wave, rate = read_audio(path)
    assert rate == 8000
    np.testing.assert_allclose(wave[:4000], tone(4000, 8000), rtol=0, atol=tolerance)


@pytest.mark.parametrize(("suffix", "encoding"), [("wav", "GSM610"), ("aiff", "GSM610"), ("au", "G721_32")])
def test_an_encoding_in_which_libsndfile_cannot_seek(tmp_path, suffix, encoding):
    path = tmp_path / f"telephone.{suffix}"
    soundfile.write(path, tone(4000, 8000), 8000, subtype=encoding)
    wave, rate = read_audio(path)
    assert rate == 8000
    np.testing.assert_allclose(wave[1000:4000], tone(4000, 8000)[1000:], rtol=0, atol=0.1)


def test_channels_are_averaged(tmp_path):
    left, right = tone(100, 8000), tone(100, 8000, 1000)
    both = np.stack([left, right], axis=1)
    soundfile.write(tmp_path / "stereo.wav", both, 8000, subtype="FLOAT")
    for source in (tmp_path / "stereo.wav", (both, 8000), (both.T, 8000), (both.astype(np.float64), 8000)):
        np.testing.assert_allclose(read_audio(source)[0], (left + right) / 2, rtol=0, atol=1e-7)


def test_a_subclass_of_an_array_is_one():
    samples = np.matrix(tone(100, 8000))
    np.testing.assert_array_equal(read_audio(samples, 8000)[0], tone(100, 8000))


def test_integers_have_the_scale_of_a_wav_file(tmp_path):
    for dtype, subtype in (("int16", "PCM_16"), ("int32", "PCM_32")):
        samples = np.array([np.iinfo(dtype).min, -5, 0, 5, np.iinfo(dtype).max], dtype)
        soundfile.write(tmp_path / "whole.wav", samples, 8000, subtype=subtype)
        np.testing.assert_array_equal(read_audio((samples, 8000))[0], read_audio(tmp_path / "whole.wav")[0])
    np.testing.assert_array_equal(read_audio((np.array([0, 128, 192], np.uint8), 8000))[0], [-1, 0, 0.5])


def test_the_rate_comes_beside_an_array_or_with_it():
    for rate in (16000, 16000.0, np.int64(16000), np.float32(16000)):
        assert read_audio(np.zeros(3), rate)[1] == read_audio((np.zeros(3), rate))[1] == 16000


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("nowhere.wav",), "'nowhere.wav' cannot be read: No such file"),
        (("",), "cannot be read"),
        (("a\0b",), "cannot be read"),
        (("http://127.0.0.1:1/a.wav",), "cannot be read"),
        (("http://[bad",), "cannot be read"),
        (("data:audio/wav;base64,AAAA",), "libsndfile"),
        (("x" * 300,), r"\(300 characters\) cannot be read"),
        (("é" * 300,), "cannot be read"),
        ((np.zeros(5),), "without its sample rate"),
        ((np.zeros(5), 0), "sample rate 0"),
        ((np.zeros(5), math.nan), "sample rate nan"),
        ((np.zeros(5), "24k"), "sample rate '24k'"),
        ((np.zeros(5), True), "sample rate True"),
        ((np.zeros(0), 8000), "is empty"),
        ((np.zeros((0, 2)), 8000), "is empty"),
        ((np.zeros((2, 2, 2)), 8000), r"\[samples\]"),
        ((np.array([0, np.nan]), 8000), "not finite"),
        ((np.array([0, 1e300]), 8000), "not finite"),
        ((np.zeros(5, np.int64), 8000), "int64"),
        ((np.zeros(5, bool), 8000), "bool"),
        ((np.zeros(5, complex), 8000), "complex"),
        ((("a.wav", "b.wav"),), r"\(str, str\)"),
        (([0.1, 0.2], 8000), "list"),
        ((None,), "NoneType"),
    ],
)
def test_what_is_not_audio_is_refused_in_one_sentence(arguments, match):
    with pytest.raises(RequestError, match=match) as caught:
        read_audio(*arguments)
    assert "\n" not in str(caught.value)


def test_a_missing_page_and_a_file_of_text_are_refused(tmp_path, server):
    (tmp_path / "text.wav").write_text("no audio")
    for source, match in ((f"{server}/none.wav", "cannot be read"), (tmp_path / "text.wav", "libsndfile")):
        with pytest.raises(RequestError, match=match):
            read_audio(source)


# --- resampling -----------------------------------------------------------------------------------

RATES = st.sampled_from([8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000])


@given(st.integers(1, 3000), RATES, RATES)
def test_the_length_is_that_of_librosa(samples, rate, target):
    wave = resample(tone(samples, rate), rate, target)
    assert len(wave) == int(np.ceil(samples * (float(target) / rate)))
    assert wave.dtype == np.float32


def test_a_length_that_float_arithmetic_rounds_up():
    wave = resample(tone(147, 44100), 44100, 24000)  # 80 samples exactly; librosa makes it 81
    assert len(wave) == 81
    assert wave[80] == 0


@given(RATES, RATES)
def test_a_tone_stays_a_tone(rate, target):
    wave = resample(tone(rate // 4, rate), rate, target)
    inner = slice(len(wave) // 10, -len(wave) // 10)  # away from the filter's ends
    # soxr's HQ is off by at most 5e-7 here, the quality below it by 6e-6
    np.testing.assert_allclose(wave[inner], tone(len(wave), target)[inner], rtol=0, atol=1e-6)


def test_the_same_rate_is_left_alone():
    wave = tone(10, 8000)
    assert resample(wave, 8000, 8000) is wave


# --- writing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["wav", "WAV", "flac"])
def test_what_is_written_can_be_read(tmp_path, suffix):
    path = tmp_path / f"out.{suffix}"
    write_audio(path, tone(500, 24000), 24000)
    wave, rate = read_audio(path)
    assert rate == 24000
    np.testing.assert_allclose(wave, tone(500, 24000), rtol=0, atol=PCM16)
    assert soundfile.info(str(path)).subtype == "PCM_16"
    assert list(tmp_path.iterdir()) == [path]


def test_values_beyond_full_scale_do_not_wrap_around(tmp_path):
    write_audio(tmp_path / "loud.wav", np.array([1.0, 1.5, -1.5], np.float32), 24000)
    np.testing.assert_allclose(read_audio(tmp_path / "loud.wav")[0], [1, 1, -1], atol=PCM16)


@pytest.mark.parametrize(
    ("name", "wave", "rate", "match"),
    [
        ("out.xyz", tone(5, 8000), 8000, r"'\.xyz' names no audio format"),
        ("out", tone(5, 8000), 8000, "names no audio format"),
        ("out.raw", tone(5, 8000), 8000, "cannot be written"),
        ("no/out.wav", tone(5, 8000), 8000, "No such file"),
        ("out.wav", np.zeros((5, 2)), 8000, r"\[5, 2\]"),
        ("out.wav", np.array([np.nan]), 8000, "finite"),
        ("out.wav", tone(5, 8000), 0, "sample rate 0"),
        ("out.mp3", tone(5, 8000), 12345, "cannot be written"),
    ],
)
def test_nothing_is_left_of_what_cannot_be_written(tmp_path, name, wave, rate, match):
    with pytest.raises(RequestError, match=match):
        write_audio(tmp_path / name, wave, rate)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "out.wav"
    write_audio(path, tone(5, 8000), 8000)
    before = path.read_bytes()

    def full(file, wave):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(soundfile.SoundFile, "write", full)
    with pytest.raises(RequestError, match="No space left"):
        write_audio(path, tone(9, 8000), 8000)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_quantiser_takes_the_nearest_and_keeps_what_was_read(dtype):
    every = np.arange(-(2**15), 2**15).astype(np.int16)
    np.testing.assert_array_equal(pcm16((every / 2**15).astype(dtype)), every)
    np.testing.assert_array_equal(pcm16(every), every)
    wave = np.random.RandomState(0).uniform(-0.99, 0.99, 1000).astype(dtype)
    np.testing.assert_allclose(pcm16(wave) / 2**15, wave, rtol=0, atol=2**-16)
    assert pcm16(np.array([1, 2, -1, -2], dtype)).tolist() == [32767, 32767, -32768, -32768]


@pytest.mark.parametrize("suffix", ["wav", "flac", "aiff"])
def test_every_lossless_format_gets_the_same_samples(tmp_path, suffix):
    wave = np.random.RandomState(0).uniform(-1.1, 1.1, 1000).astype(np.float32)
    write_audio(tmp_path / f"a.{suffix}", wave, 24000)
    np.testing.assert_array_equal(soundfile.read(tmp_path / f"a.{suffix}", dtype="int16")[0], pcm16(wave))


class Disk(io.BufferedWriter):
    """A disk that does not take the ``failing``-th write."""

    failing = 0

    def write(self, content: Any, /) -> int:
        Disk.failing -= 1
        if Disk.failing == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(content)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "aiff"])
def test_no_write_that_fails_is_lost(tmp_path, monkeypatch, suffix):
    """Also those of the header, which come when the file is closed: libsndfile does not report them all."""
    path, wave = tmp_path / f"a.{suffix}", tone(60_000, 24000)
    path.write_text("old")
    monkeypatch.setattr(output, "new_file", lambda partial: Disk(io.FileIO(partial, "xb")))
    monkeypatch.setattr(Disk, "failing", 0)
    write_audio(path, wave, 24000)
    writes, complete = -Disk.failing, path.stat().st_size
    for failing in range(1, writes + 1):
        path.write_text("old")
        Disk.failing = failing
        with pytest.raises(OutputError, match=r"No space left on device$"):
            write_audio(path, wave, 24000)
        assert path.read_text() == "old"
    assert writes > 1
    write_audio(path, wave, 24000)
    assert path.stat().st_size == complete
