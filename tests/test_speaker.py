"""Speaker encoder: the mel front end and ECAPA-TDNN, against definitions written out as loops."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qwen3tts_np.checkpoint.keys import load, specs
from qwen3tts_np.checkpoint.safetensors import Checkpoint
from qwen3tts_np.checkpoint.tensor import StoredTensor
from qwen3tts_np.config import SpeakerEncoderConfig
from qwen3tts_np.conv import Conv
from qwen3tts_np.errors import RequestError
from qwen3tts_np.speaker.encoder import (
    SpeakerEncoderWeights,
    conv_same,
    shortest_clip,
    speaker_embedding,
    speaker_encoder,
    speaker_encoder_sizes,
)
from qwen3tts_np.speaker.mel import HOP, MELS, PAD, WINDOW, hann_window, hz_to_mel, log_mel, mel_filters, mel_to_hz
from qwen3tts_np.trace import trace

TINY = SpeakerEncoderConfig(128, 20, (24, 24, 24, 24, 72), (5, 3, 3, 3, 1), (1, 2, 3, 4, 1), 16, 4, 8, 24000)
# Other numbers in every place: an even kernel, unequal kernels, two blocks only, a wide aggregation.
ODD = SpeakerEncoderConfig(128, 12, (10, 10, 10, 20), (4, 2, 5, 3), (2, 3, 1, 2), 7, 5, 3, 24000)


def weights(c, dtype=np.float32, seed=3, *, tilt=None):
    """Random weights of sane size (seed 3 leaves no ReLU dead); ``tilt`` names one tensor to be made 0.1 % larger."""
    rng = np.random.default_rng(seed)
    sizes = speaker_encoder_sizes(c)
    tensors = {}
    for spec in specs(SpeakerEncoderWeights, sizes, "", "F32"):
        scale = 1.5 / math.sqrt(math.prod(spec.shape[1:])) if len(spec.shape) > 1 else 0.3
        values = rng.standard_normal(spec.shape, dtype=np.float32) * np.float32(scale)
        tensors[spec.key] = StoredTensor(spec.key, "F32", values * np.float32(1.001 if spec.key == tilt else 1))
    checkpoint = Checkpoint(Path("in memory"), tensors, {})
    return load(SpeakerEncoderWeights, checkpoint, sizes, "", np.dtype(dtype))


def speech_like(samples, seed=0):
    """A buzz with moving harmonics over noise: all bands filled, none of them silent."""
    rng = np.random.default_rng(seed)
    t = np.arange(samples) / 24000
    phase = 2 * np.pi * (120 * t + 3 * np.sin(2 * np.pi * 3 * t))
    buzz = sum(np.sin(k * phase) / k for k in range(1, 60))
    return (0.1 * buzz + 0.01 * rng.standard_normal(samples)).astype(np.float32)


def relative(actual, expected):
    return np.linalg.norm(actual.astype(np.float64) - expected) / np.linalg.norm(expected)


# --- mel ------------------------------------------------------------------------------------------


def reflected(i, n):
    """The index into n values that stands for i, which may lie before them or after."""
    return -i if i < 0 else 2 * (n - 1) - i if i >= n else i


def mel_by_definition(audio):
    """One frame at a time, each spectrum as a sum over samples, the filters as triangles between their corners."""
    n = len(audio)
    window = [math.sin(math.pi * j / 1024) ** 2 for j in range(1024)]
    turn = np.exp(-2j * np.pi * np.outer(np.arange(513), np.arange(1024)) / 1024)
    top = 15 + 27 * math.log(12) / math.log(6.4)  # 12000 Hz: 15 mels to 1000 Hz, then 27 to each factor of 6.4
    corners = [c * 200 / 3 if c < 15 else 1000 * 6.4 ** ((c - 15) / 27) for c in np.linspace(0, top, 130)]
    hz = np.arange(513) * 24000 / 1024
    filters = [np.interp(hz, corners[i : i + 3], [0, 2 / (corners[i + 2] - corners[i]), 0]) for i in range(128)]
    frames = []
    for start in range(-384, n + 384 - 1023, 256):
        x = np.array([audio[reflected(start + j, n)] * window[j] for j in range(1024)])
        magnitude = np.sqrt(np.abs(turn @ x) ** 2 + 1e-9)
        frames.append([math.log(max(float(f @ magnitude), 1e-5)) for f in filters])
    return np.array(frames)


@pytest.mark.parametrize("loudness", [1, 1e-4])  # the second is so quiet that both floors are in play
@pytest.mark.parametrize("samples", [385, 511, 512, 1280, 2000])
def test_mel_by_definition(samples, loudness):
    audio = loudness * speech_like(samples).astype(np.float64)
    expected = mel_by_definition(audio)
    actual = log_mel(audio)
    assert actual.shape == expected.shape == (samples // HOP, MELS)
    # Window and filters are float32 tables, 6e-8 of each value off; logarithms turn that into an absolute error.
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6)


def test_filters_are_those_of_librosa():
    """Recorded from librosa 0.11.0: filters.mel(sr=24000, n_fft=1024, n_mels=128, fmin=0, fmax=12000)."""
    recorded = {
        (0, 1): 0.03355042636394501,
        (0, 2): 0.00856908317655325,
        (1, 2): 0.029265886172652245,
        (1, 3): 0.012853624299168587,
        (20, 23): 0.01496045384556055,
        (20, 24): 0.027159057557582855,
        (45, 52): 0.002688564592972398,
        (45, 53): 0.02317608892917633,
        (60, 79): 0.008432397618889809,
        (60, 81): 0.01268701907247305,
        (100, 233): 0.0007543469546362758,
        (100, 239): 0.006238921079784632,
        (127, 485): 3.851602741633542e-05,
        (127, 498): 0.003086800454184413,
    }
    filters = mel_filters()
    # Two units in the last place, of the filter's peak where it is near zero: libraries differ in exp.
    assert {at: float(filters[at]) for at in recorded} == pytest.approx(recorded, rel=2.4e-7, abs=1e-9)
    assert float(filters.sum(dtype=np.float64)) == pytest.approx(5.459415810865721, rel=1e-7)
    assert int((filters > 1e-9).sum()) == 1008  # at an edge of one, some libraries have 1e-17


def test_slaney_scale():
    assert [hz_to_mel(hz) for hz in (0, 500, 1000, 6400)] == pytest.approx([0, 7.5, 15, 42])
    hz = np.linspace(0, 12000, 200)
    np.testing.assert_allclose(mel_to_hz(np.array([hz_to_mel(h) for h in hz])), hz, rtol=1e-12)


def test_window_is_periodic():
    window = hann_window()
    assert window[0] == 0
    assert window[WINDOW // 2] == 1
    np.testing.assert_array_equal(window[1:], window[:0:-1])


def test_mel_of_silence():
    np.testing.assert_array_equal(log_mel(np.zeros(1280, np.float32)), np.full((5, MELS), np.log(np.float32(1e-5))))


def test_mel_of_a_tone_peaks_in_its_band():
    tone = np.sin(2 * np.pi * 3000 * np.arange(24000) / 24000)
    peaks = mel_to_hz(np.linspace(0, hz_to_mel(12000), MELS + 2))[1:-1]
    assert set(log_mel(tone).argmax(axis=1)[2:-2]) == {int(np.abs(peaks - 3000).argmin())}


@given(
    hnp.arrays(np.float32, st.integers(PAD + 1, 3000), elements=st.floats(-1, 1, width=32), fill=st.just(0.5)),
)
def test_mel_in_both_types(audio):
    single, double = log_mel(audio), log_mel(audio.astype(np.float64))
    assert (single.dtype, double.dtype) == (np.float32, np.float64)
    assert single.shape == (len(audio) // HOP, MELS)
    assert single.min(initial=0) >= np.log(np.float32(1e-5))
    # The float32 part sums at most 27 bins and takes a logarithm of up to 12 in magnitude: a few units of 12 * 2^-23.
    np.testing.assert_allclose(single, double, rtol=0, atol=5e-6)


def test_mel_of_near_silent_bands():
    """Beside a loud tone the noise of a float32 transform would be 0.005 in bands that hold next to nothing."""
    noise = 1e-5 * np.random.default_rng(0).standard_normal(12000)
    audio = (0.5 * np.sin(2 * np.pi * 440 * np.arange(12000) / 24000) + noise).astype(np.float32)
    np.testing.assert_allclose(log_mel(audio), log_mel(audio.astype(np.float64)), rtol=0, atol=5e-6)


def sinc_resample(x, up, down, width=6, rolloff=0.99):
    """torchaudio.functional.resample with its defaults (windowed sinc, Hann): what the peer's case was made with."""
    base = min(up, down) * rolloff
    reach = math.ceil(width * down / base)
    t = np.arange(0, -up, -1)[:, None] / up + np.arange(-reach, reach + down) / down  # [up, taps]
    t = np.clip(t * base, -width, width)
    kernels = np.sinc(t) * np.cos(t * math.pi / width / 2) ** 2 * base / down
    padded = np.pad(x, (reach, reach + down))
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernels.shape[1])[::down]
    return (windows @ kernels.T).reshape(-1)[: math.ceil(up * len(x) / down)]


def test_mel_equals_the_official_one_on_speech(reference):
    case = json.loads((reference / "peer-cases" / "mel_expected.json").read_text())
    audio, rate = soundfile.read(reference.parent / "audio" / "librispeech-1272-128104-0000.wav")
    assert rate == 16000
    resampled = sinc_resample(audio, 3, 2)
    assert len(resampled) == 140520
    for dtype in (np.float32, np.float64):
        mel = log_mel(resampled.astype(dtype))
        assert list(mel.shape) == case["shape"]
        # The expected values are float32 results printed with six places.
        for frame in (0, 50):
            np.testing.assert_allclose(mel[frame, :12], case[f"frame_{frame}_first12"], rtol=0, atol=2e-6)
        assert mel.mean(dtype=np.float64) == pytest.approx(case["mean"], abs=2e-6)
        assert (mel.min(), mel.max()) == pytest.approx((case["min"], case["max"]), abs=2e-6)


# --- encoder --------------------------------------------------------------------------------------


def conv_by_definition(x, w, dilation=1):
    out, channels, taps = w.weight.shape
    n, y = x.shape[1], np.empty((out, x.shape[1]))
    left = (taps - 1) * dilation // 2
    for o in range(out):
        for t in range(n):
            at = [reflected(t - left + j * dilation, n) for j in range(taps)]
            y[o, t] = w.bias[o] + sum(w.weight[o, i, j] * x[i, at[j]] for i in range(channels) for j in range(taps))
    return y


def encoder_by_definition(mel, w, c):
    """The paper's diagram, one channel chunk at a time."""
    x = np.maximum(conv_by_definition(mel.T, w.first, c.enc_dilations[0]), 0)
    aggregated = []
    for block, dilation in zip(w.blocks, c.enc_dilations[1:], strict=False):
        y = np.maximum(conv_by_definition(x, block.tdnn1), 0)
        size = len(y) // c.enc_res2net_scale
        for k in range(1, c.enc_res2net_scale):
            chunk = slice(k * size, (k + 1) * size)
            before = y[(k - 1) * size : k * size] if k > 1 else 0
            y[chunk] = np.maximum(conv_by_definition(y[chunk] + before, block.res2net_block.blocks[k - 1], dilation), 0)
        y = np.maximum(conv_by_definition(y, block.tdnn2), 0)
        squeezed = np.maximum(conv_by_definition(y.mean(axis=1, keepdims=True), block.se_conv1), 0)
        gain = 1 / (1 + np.exp(-conv_by_definition(squeezed, block.se_conv2)))
        x = x + y * gain
        aggregated.append(x)
    x = np.maximum(conv_by_definition(np.vstack(aggregated), w.mfa, c.enc_dilations[-1]), 0)
    spread = np.sqrt(np.maximum(x.var(axis=1), 1e-12))
    context = np.vstack([x, np.tile(x.mean(axis=1), (x.shape[1], 1)).T, np.tile(spread, (x.shape[1], 1)).T])
    scores = conv_by_definition(np.tanh(np.maximum(conv_by_definition(context, w.asp_tdnn), 0)), w.asp_conv)
    pooled = []
    for values, score in zip(x, scores, strict=True):
        attention = np.exp(score) / np.exp(score).sum()
        pooled.append((mean := attention @ values, math.sqrt(max(attention @ (values - mean) ** 2, 1e-12))))
    means, deviations = zip(*pooled, strict=True)
    return w.fc.weight[:, :, 0] @ np.array([*means, *deviations]) + w.fc.bias


@pytest.mark.parametrize(("config", "frames"), [(TINY, 5), (TINY, 12), (ODD, 9)])
def test_encoder_by_definition(config, frames):
    w = weights(config, np.float64, frames)
    mel = np.random.default_rng(frames).standard_normal((frames, config.mel_dim)) * 2 - 6
    actual = speaker_encoder(mel, w, config, "speaker_encoder")
    assert actual.dtype == np.float64
    # Both are float64 over about ten layers of sums of at most a few hundred terms.
    assert relative(actual, encoder_by_definition(mel, w, config)) < 1e-12


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 30), st.integers(0, 2**32 - 1))
def test_reflecting_convolution(taps, dilation, extra, seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2, -(-(taps - 1) * dilation // 2) + 1 + extra))
    w = Conv(rng.standard_normal((3, 2, taps)), rng.standard_normal(3))
    np.testing.assert_allclose(
        conv_same(x, w, dilation, "conv"), conv_by_definition(x, w, dilation), rtol=0, atol=1e-13
    )


def test_float32_is_within_the_promised_error():
    """1e-5 is what is promised against the official package, whose float32 errs as ours does."""
    audio = speech_like(24000)
    exact = speaker_embedding(audio, weights(TINY, np.float64), TINY)
    actual = speaker_embedding(audio, weights(TINY, np.float32), TINY)
    assert (actual.dtype, exact.dtype) == (np.float32, np.float64)
    assert actual.shape == (TINY.enc_dim,)
    assert relative(actual, exact) < 1e-5


def test_a_wrong_weight_is_caught():
    """The twin of the test above: its tolerance must be able to fail."""
    audio = speech_like(24000)
    exact = speaker_embedding(audio, weights(TINY, np.float64), TINY)
    for tensor in ("blocks.0.conv.weight", "blocks.2.tdnn1.conv.weight", "mfa.conv.weight", "fc.weight"):
        assert relative(speaker_embedding(audio, weights(TINY, np.float32, tilt=tensor), TINY), exact) > 1e-5


def test_no_weight_is_ignored():
    audio = speech_like(6000)
    exact = speaker_embedding(audio, weights(TINY, np.float64), TINY)
    inert = set()
    for spec in specs(SpeakerEncoderWeights, speaker_encoder_sizes(TINY), "", "F32"):
        tilted = speaker_embedding(audio, weights(TINY, np.float64, tilt=spec.key), TINY)
        if relative(tilted, exact) < 1e-10:  # float64 noise is below 1e-13, the weakest effect of 0.1 % is 2e-6
            inert.add(spec.key)
    assert inert == {"asp.conv.bias"}  # it adds the same to every frame, which the softmax over frames takes out


def test_short_audio_is_refused_in_one_sentence():
    w = weights(TINY)
    assert shortest_clip(TINY) == 1280  # five frames: the widest padding reflects four
    assert np.isfinite(speaker_embedding(speech_like(1280), w, TINY)).all()
    for samples in (0, 1, 384, 1279):
        told = rf"^the reference audio has {samples} samples at 24000 Hz; the speaker encoder needs at least 1280 \(53 "
        with pytest.raises(RequestError, match=told):
            speaker_embedding(speech_like(samples), w, TINY)


def test_shortest_clip_of_another_configuration():
    w, shortest = weights(ODD), shortest_clip(ODD)
    assert shortest == 256 * 4  # kernel 4, dilation 2: three frames before, three after
    assert speaker_embedding(speech_like(shortest), w, ODD).shape == (ODD.enc_dim,)
    flat = SpeakerEncoderConfig(128, 12, (10, 10, 10), (1, 1, 1), (1, 1, 1), 7, 5, 3, 24000)
    assert shortest_clip(flat) == PAD + 1
    assert speaker_embedding(speech_like(PAD + 1), weights(flat), flat).shape == (flat.enc_dim,)


def test_every_official_module_is_traced():
    with trace("speaker_encoder*") as t:
        embedding = speaker_embedding(speech_like(2560), weights(TINY), TINY)

    def tdnn(path):
        return [f"{path}.conv", f"{path}.activation", path]

    expected = ["mel", *tdnn("blocks.0")]
    for i in (1, 2, 3):
        expected += tdnn(f"blocks.{i}.tdnn1")
        for k in range(3):
            path = f"blocks.{i}.res2net_block.blocks.{k}"
            expected += [f"{path}.input", *tdnn(path)]
        expected += [f"blocks.{i}.res2net_block", *tdnn(f"blocks.{i}.tdnn2")]
        expected += [
            f"blocks.{i}.se_block{part}" for part in (".conv1.input", ".conv1", ".relu", ".conv2", ".sigmoid", "")
        ]
        expected.append(f"blocks.{i}")
    expected += ["mfa.input", *tdnn("mfa"), "asp.tdnn.input", *tdnn("asp.tdnn"), "asp.tanh", "asp.conv", "asp", "fc"]
    assert list(t) == [*(f"speaker_encoder.{name}@0" for name in expected), "speaker_encoder@0"]
    assert t["speaker_encoder.mel@0"].shape == (10, MELS)  # time first, as the official encoder takes it
    assert t["speaker_encoder.blocks.1@0"].shape == (24, 10)
    assert t["speaker_encoder.asp@0"].shape == (144, 1)
    np.testing.assert_array_equal(t["speaker_encoder@0"], embedding)
