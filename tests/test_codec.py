"""The codec by its own laws: causality, chunks, nearest codes, batches, and float32 against float64.

No golden is read here; ``differences`` compares any trace with any mapping of ``name@n`` to arrays.
"""

from __future__ import annotations

import dataclasses
import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from qwen3tts_np_kernels.rvq import codebook_entries_ref, lookup_ref, nearest_ref

from qwen3tts_np.codec import decoder
from qwen3tts_np.codec.conv import TransposedConv, causal_conv, next_conv_transpose, pad_causal
from qwen3tts_np.codec.decoder import CHUNK_FRAMES, CONTEXT_FRAMES, decode, decode_chunked
from qwen3tts_np.codec.encoder import downsample, encode
from qwen3tts_np.codec.past import Past
from qwen3tts_np.codec.rvq import quantise
from qwen3tts_np.conv import Conv
from qwen3tts_np.errors import CheckpointError, ConfigError, QwenTTSError, RequestError
from qwen3tts_np.speech_tokenizer import Qwen3TTSTokenizer
from qwen3tts_np.synthetic.weights import write_checkpoint
from qwen3tts_np.trace import trace
from qwen3tts_np.voice.reference_clip import ReferenceClipWarning

FRAME = 1920  # samples
# |float32 - float64| of an activation over its largest value. The worst on the tiny codec is 1.6e-6, of a residual of
# the twelfth codebook; another BLAS sums in another order and may err a few times more.
FLOAT32 = 8e-6
WAVE = 5e-6  # of a waveform within -1 to 1; two float32 runs of different lengths differed by 7e-7


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("codec") / "tiny"
    write_checkpoint(path, "tiny", "base")
    return path


@pytest.fixture(scope="module")
def tokenizer(folder):
    return Qwen3TTSTokenizer.from_pretrained(folder, backend="reference")


@pytest.fixture(scope="module")
def double(folder):
    return Qwen3TTSTokenizer.from_pretrained(folder, dtype="float64")


def random_codes(tokenizer, frames, seed=0):
    c = tokenizer.config.decoder_config
    return np.random.default_rng([seed, frames]).integers(0, c.codebook_size, (frames, c.num_quantizers))


def hum(samples, seed=0):
    """Three tones that drift, and some noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(samples) / 24000
    tones = sum(np.sin(2 * np.pi * (f * t + 3 * np.sin(2 * t + f))) for f in (110, 340, 2100))
    return (0.15 * tones + 0.02 * rng.standard_normal(samples)).astype(np.float32)


def differences(actual, expected):
    """name -> greatest |difference| over the greatest |expected| value, for the names that both have; integers that
    differ, and shapes that do, count as infinite."""
    found = {}
    for name in actual.keys() & expected.keys():
        a, b = actual[name], expected[name]
        if a.shape != b.shape or (b.dtype.kind in "iu" and not np.array_equal(a, b)):
            found[name] = math.inf
        else:
            found[name] = float(np.abs(a.astype(np.float64) - b).max() / max(np.abs(b).max(), 1e-30))
    return found


def run(tokenizer):
    """Every activation of a decode of 9 frames and an encode of 2.4."""
    with trace() as activations:
        tokenizer.decode(random_codes(tokenizer, 9))
        tokenizer.encode(hum(4600), sr=24000)
    return activations


# --- vector quantisation --------------------------------------------------------------------------


@given(hnp.arrays(np.float64, (5, 3), elements=st.floats(-2, 2)), st.integers(1, 40), st.integers(0, 99))
def test_nearest_is_the_entry_at_the_smallest_distance(x, size, seed):
    entries = np.random.default_rng(seed).standard_normal((size, 3))
    distances = np.linalg.norm(x[:, None] - entries, axis=2)
    chosen = np.take_along_axis(distances, nearest_ref(x, entries)[:, None], axis=1)[:, 0]
    # |x|² - 2 x·e + |e|² is off by some eps * 20 (|x|² + |e|² at most), its root by the root of that near 0
    np.testing.assert_allclose(chosen, distances.min(axis=1), atol=1e-6)


def test_of_entries_that_tie_the_first_is_chosen():
    entries = np.array([[5, 5], [1, 0], [0, 1], [1, 0]], np.float32)
    np.testing.assert_array_equal(nearest_ref(np.array([[1, 0], [0, 0], [0.5, 0.5]], np.float32), entries), [1, 1, 1])


def test_unused_entries_are_divided_by_the_floor():
    sums, usage = np.array([[2.0, 4.0], [3.0, 0.0]], np.float32), np.array([2.0, 0.0], np.float32)
    entries = codebook_entries_ref(sums, usage)
    np.testing.assert_allclose(entries, [[1, 2], [3e5, 0]], rtol=1e-6)
    assert entries.dtype == np.float32


def test_lookup_adds_one_entry_of_each_codebook():
    books = [np.array([[1.0, 0.0], [2.0, 0.0]]), np.array([[0.0, 10.0], [0.0, 20.0]])]
    np.testing.assert_array_equal(lookup_ref(np.array([[0, 1], [1, 0], [1, 1]]), books), [[1, 20], [2, 10], [2, 20]])


@given(st.integers(0, 10**6))
def test_every_codebook_takes_what_is_left_over(seed):
    rng = np.random.default_rng(seed)
    books = [rng.standard_normal((20, 4)) / 3**i for i in range(4)]
    x = rng.standard_normal((4, 6))
    codes = quantise(x, books, None, "q")
    for i in range(4):
        left = x.T - (lookup_ref(codes[:, :i], books[:i]) if i else 0)
        np.testing.assert_array_equal(codes[:, i], nearest_ref(left, books[i]))


def test_acoustic_codes_do_not_depend_on_the_semantic_codebook(tokenizer):
    e = tokenizer.encoder
    other = dataclasses.replace(e)
    vars(other)["codebooks"] = (-e.codebooks[0], *e.codebooks[1:])  # where a cached property keeps its value
    a, b = encode(hum(5 * FRAME), e), encode(hum(5 * FRAME), other)
    np.testing.assert_array_equal(a[:, 1:], b[:, 1:])
    assert (a[:, 0] != b[:, 0]).any()


# --- convolutions ---------------------------------------------------------------------------------


@given(
    samples=st.integers(1, 30),
    taps=st.integers(1, 7),
    stride=st.integers(1, 4),
    dilation=st.sampled_from([1, 3, 9]),
    seed=st.integers(0, 99),
)
def test_causal_conv_sees_its_stride_and_the_past(samples, taps, stride, dilation, seed):
    if taps < stride or (stride > 1 and dilation > 1):
        return  # no convolution of the codec is like that
    rng = np.random.default_rng(seed)
    x, w = rng.standard_normal((2, samples)), Conv(rng.standard_normal((3, 2, taps)), rng.standard_normal(3))
    y = causal_conv(x, w, stride, dilation)
    assert y.shape == (3, math.ceil(samples / stride))
    for t in range(y.shape[1]):
        expected = w.bias.copy()
        for j in range(taps):
            at = (t + 1) * stride - 1 - (taps - 1 - j) * dilation  # the last tap reads the end of the stride
            if 0 <= at < samples:
                expected += w.weight[:, :, j] @ x[:, at]
        np.testing.assert_allclose(y[:, t], expected, atol=1e-12)


def test_replication_repeats_both_ends():
    np.testing.assert_array_equal(pad_causal(np.array([[1, 2, 3]]), 4, 2, mode="edge"), [[1, 1, 1, 2, 3, 3]])


@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 4), st.integers(0, 99))
def test_transposed_conv_keeps_stride_samples_a_frame(frames, stride, more, seed):
    rng = np.random.default_rng(seed)
    taps = stride + more
    x, w = rng.standard_normal((2, frames)), TransposedConv(rng.standard_normal((2, 3, taps)), rng.standard_normal(3))
    y = next_conv_transpose(x, w, stride, Past(), "up")
    expected = np.tile(w.bias[:, None], (1, frames * stride + taps))
    for t in range(frames):
        for j in range(taps):
            expected[:, t * stride + j] += x[:, t] @ w.weight[:, :, j]
    np.testing.assert_allclose(y, expected[:, : frames * stride], atol=1e-12)


# --- decoder --------------------------------------------------------------------------------------


@settings(max_examples=15)
@given(frames=st.integers(1, 40), data=st.data())
def test_the_future_does_not_change_the_past(tokenizer, frames, data):
    codes = random_codes(tokenizer, frames)
    changed = codes.copy()
    at = data.draw(st.integers(0, frames - 1))
    group = data.draw(st.integers(0, codes.shape[1] - 1))
    changed[at, group] = (changed[at, group] + 1) % tokenizer.config.decoder_config.codebook_size
    a, b = decode(codes, tokenizer.decoder), decode(changed, tokenizer.decoder)
    assert a.shape == (frames * FRAME,)
    assert np.abs(a).max() <= 1
    np.testing.assert_array_equal(a[: at * FRAME], b[: at * FRAME])
    assert (a[at * FRAME : (at + 1) * FRAME] != b[at * FRAME : (at + 1) * FRAME]).any()


@settings(max_examples=8)
@given(st.integers(1, 30), st.integers(1, 30))
def test_a_beginning_decodes_as_it_does_alone(tokenizer, frames, more):
    codes = random_codes(tokenizer, frames + more)
    whole = decode(codes, tokenizer.decoder)
    np.testing.assert_allclose(decode(codes[:frames], tokenizer.decoder), whole[: frames * FRAME], rtol=0, atol=WAVE)


def test_up_to_300_frames_are_one_chunk(tokenizer):
    codes = random_codes(tokenizer, CHUNK_FRAMES)
    np.testing.assert_array_equal(decode_chunked(codes, tokenizer.decoder), decode(codes, tokenizer.decoder))


def test_later_chunks_start_25_frames_early(tokenizer, monkeypatch):
    """Chunks are shorter here; what is official of the 300 frames is in the goldens ``decode_*``."""
    monkeypatch.setattr(decoder, "CHUNK_FRAMES", chunk := 40)
    # With the window of the tiny model nothing from before the context arrives: then chunks could not be told apart.
    c = dataclasses.replace(tokenizer.config.decoder_config, sliding_window=72)
    d = dataclasses.replace(tokenizer.decoder, config=c)
    codes = random_codes(tokenizer, chunk + 8)
    whole, chunked = decode(codes, d), decode_chunked(codes, d)
    seam = chunk * FRAME
    second = decode(codes[chunk - CONTEXT_FRAMES :], d)
    np.testing.assert_array_equal(chunked[seam:], second[CONTEXT_FRAMES * FRAME :])
    np.testing.assert_allclose(chunked[:seam], whole[:seam], rtol=0, atol=WAVE)
    assert np.abs(chunked[seam:] - whole[seam:]).max() > 10 * WAVE
    wide = dataclasses.replace(tokenizer, decoder=d)
    np.testing.assert_array_equal(wide.decode(codes)[0][0], chunked)
    np.testing.assert_allclose(wide.decode(codes, continuous=True)[0][0], whole, rtol=0, atol=WAVE)


def test_the_window_counts_the_query_itself(tokenizer):
    d = tokenizer.decoder
    alone = dataclasses.replace(d, config=dataclasses.replace(d.config, sliding_window=1))
    with trace("*.layers.0.self_attn.*") as activations:
        decode(random_codes(tokenizer, 12), alone)
    name = "speech_tokenizer.decoder.pre_transformer.layers.0.self_attn"
    assert d.config.num_attention_heads == d.config.num_key_value_heads
    # a query that sees itself only takes its own value, whatever the scores are
    np.testing.assert_allclose(activations[f"{name}.context@0"], activations[f"{name}.v_proj@0"], rtol=1e-6)


# --- encoder --------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(st.integers(1, 6000))
def test_a_frame_for_every_1920_samples_begun(tokenizer, samples):
    codes = tokenizer.encode(hum(samples), sr=24000).audio_codes[0]
    c = tokenizer.config
    assert codes.shape == (math.ceil(samples / FRAME), c.encoder_valid_num_quantizers)
    assert codes.dtype == np.int64
    assert 0 <= codes.min() <= codes.max() < c.encoder_config.codebook_size


@settings(max_examples=15)
@given(st.integers(1, 8), st.data())
def test_later_audio_does_not_change_earlier_codes(tokenizer, frames, data):
    wave = hum(frames * FRAME)
    changed = wave.copy()
    at = data.draw(st.integers(0, len(wave) - 1))
    changed[at:] = hum(len(wave), seed=1)[at:] * 3
    a, b = encode(wave, tokenizer.encoder), encode(changed, tokenizer.encoder)
    whole = at // FRAME
    np.testing.assert_array_equal(a[:whole], b[:whole])
    if len(wave) - at > FRAME:
        assert (a[whole:] != b[whole:]).any()


def test_the_encoder_has_no_window(tokenizer):
    """Frames far beyond the window that its configuration states still see the first one."""
    wave = hum(60 * FRAME)
    changed = np.concatenate([hum(FRAME, seed=1) * 3, wave[FRAME:]])
    with trace("speech_tokenizer.encoder.downsample") as a:
        encode(wave, tokenizer.encoder)
    with trace("speech_tokenizer.encoder.downsample") as b:
        encode(changed, tokenizer.encoder)
    name = "speech_tokenizer.encoder.downsample@0"
    assert np.abs(a[name][:, -1] - b[name][:, -1]).max() > 1e-6 * np.abs(a[name][:, -1]).max()


@given(st.integers(1, 9))
def test_at_both_ends_the_downsampling_repeats_a_frame(tokenizer, frames):
    weight = tokenizer.encoder.weights.downsample.weight.astype(np.float64)
    steady = downsample(np.ones((weight.shape[1], frames)), weight)
    assert steady.shape == (len(weight), math.ceil(frames / 2))
    np.testing.assert_allclose(steady, np.tile(weight.sum(axis=(1, 2))[:, None], steady.shape[1]), atol=1e-12)


def test_in_a_list_silence_follows_the_shorter_clips(tokenizer):
    clips = [hum(n, seed=n) for n in (5000, 2 * FRAME, 9001, 1)]
    together = tokenizer.encode(clips, sr=24000).audio_codes
    for clip, codes in zip(clips, together, strict=True):
        expected = encode(np.pad(clip, (0, 9001 - len(clip))), tokenizer.encoder)
        np.testing.assert_array_equal(codes, expected[: math.ceil(len(clip) / FRAME)])
    alone = [tokenizer.encode(clip, sr=24000).audio_codes[0] for clip in clips]
    assert (together[0] != alone[0]).any()
    np.testing.assert_array_equal(together[1], alone[1])  # whole frames do not see what follows


# --- float32 and float64 --------------------------------------------------------------------------


def test_float32_agrees_with_float64_in_every_activation(tokenizer, double):
    single, exact = run(tokenizer), run(double)
    assert list(single) == list(exact)
    assert {v.dtype.name for k, v in single.items() if ".codes" not in k} == {"float32"}
    assert {v.dtype.name for k, v in exact.items() if ".codes" not in k} == {"float64"}
    assert {k: d for k, d in differences(single, exact).items() if d > FLOAT32} == {}


@pytest.mark.parametrize(
    ("weight", "shows"),
    [
        ("decoder.pre_conv.weight", "speech_tokenizer.decoder.pre_conv@0"),
        ("decoder.last_snake.alpha", "speech_tokenizer.decoder.decoder.5@0"),
        ("encoder.downsample.weight", "speech_tokenizer.encoder.downsample@0"),
        ("encoder.seanet.first.bias", "speech_tokenizer.encoder.encoder.layers.0@0"),
    ],
)
def test_a_weight_off_by_a_thousandth_is_seen(tokenizer, double, weight, shows):
    part, *path, last = weight.split(".")
    holders = [getattr(tokenizer, part).weights]
    for step in path:
        holders.append(getattr(holders[-1], step))
    value = getattr(holders[-1], last) * np.float32(1.001)
    for holder, step in zip(reversed(holders), reversed([*path, last]), strict=True):
        value = dataclasses.replace(holder, **{step: value})
    changed = dataclasses.replace(getattr(tokenizer, part), weights=value)
    found = differences(run(dataclasses.replace(tokenizer, **{part: changed})), run(double))
    assert found[shows] > FLOAT32


# --- the official call surface --------------------------------------------------------------------


def test_all_forms_of_codes_decode_alike(tokenizer):
    a, b = random_codes(tokenizer, 7), random_codes(tokenizer, 3)
    expected, rate = tokenizer.decode([a, b])
    assert rate == tokenizer.get_output_sample_rate() == 24000
    assert [len(wave) for wave in expected] == [7 * FRAME, 3 * FRAME]
    assert {wave.dtype.name for wave in expected} == {"float32"}
    padded = np.full((2, 7, a.shape[1]), -1)
    padded[0], padded[1, :3] = a, b
    for form in (
        {"audio_codes": [a, b]},
        [{"audio_codes": a}, {"audio_codes": b}],
        (a, b),
        padded,
        {"audio_codes": padded},
        [a.astype(np.uint16), b.astype(np.int32)],
    ):
        for wave, same in zip(tokenizer.decode(form)[0], expected, strict=True):
            np.testing.assert_array_equal(wave, same)
    np.testing.assert_array_equal(tokenizer.decode(b)[0][0], expected[1])
    np.testing.assert_array_equal(tokenizer.decode({"audio_codes": b})[0][0], expected[1])


def test_encode_and_decode_fit_together(tokenizer):
    encoded = tokenizer.encode([hum(5000), hum(3000)], sr=24000)
    waves, _ = tokenizer.decode(encoded)
    assert [len(wave) for wave in waves] == [3 * FRAME, 2 * FRAME]
    (codes,) = tokenizer.encode([hum(5000), hum(3000)], sr=24000, return_dict=False)
    for form in (codes, {"audio_codes": codes}):
        for a, b in zip(tokenizer.decode(form)[0], waves, strict=True):
            np.testing.assert_array_equal(a, b)


def test_samples_beyond_full_scale_are_clipped(tokenizer):
    w = tokenizer.decoder.weights
    codes = random_codes(tokenizer, 3)
    quiet = decode(codes, tokenizer.decoder)
    gain = 2 / np.abs(quiet).max()
    last = dataclasses.replace(w.last_conv, weight=w.last_conv.weight * gain, bias=w.last_conv.bias * gain)
    loud = decode(codes, dataclasses.replace(tokenizer.decoder, weights=dataclasses.replace(w, last_conv=last)))
    np.testing.assert_allclose(loud, np.clip(quiet * gain, -1, 1), atol=1e-6)
    assert np.abs(quiet * gain).max() > 1.9


def test_nothing_in_nothing_out(tokenizer):
    assert tokenizer.encode([]).audio_codes == []
    assert tokenizer.decode([]) == ([], 24000)
    (wave,), _ = tokenizer.decode(random_codes(tokenizer, 0))
    assert wave.shape == (0,)
    assert wave.dtype == np.float32


def test_a_model_directory_stands_for_its_codec(folder, tokenizer):
    options = {"dtype": np.float32, "device_map": "cpu", "backend": "reference"}
    inner = Qwen3TTSTokenizer.from_pretrained(str(folder / "speech_tokenizer"), **options)
    codes = random_codes(tokenizer, 2)
    np.testing.assert_array_equal(inner.decode(codes)[0][0], tokenizer.decode(codes)[0][0])
    assert inner.get_model_type() == "qwen3_tts_tokenizer_12hz"
    assert inner.get_input_sample_rate() == 24000
    assert inner.get_encode_downsample_rate() == inner.get_decode_upsample_rate() == FRAME


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"pretrained_model_name_or_path": "nowhere"}, CheckpointError, "nowhere"),
        ({"dtype": "int8"}, RequestError, "int8"),
        ({"backend": "cuda"}, RequestError, "cuda"),
        ({"colour": 1}, RequestError, "colour"),
    ],
)
def test_what_cannot_be_loaded_is_named(folder, arguments, error, match):
    with pytest.raises(error, match=match):
        Qwen3TTSTokenizer.from_pretrained(**{"pretrained_model_name_or_path": folder, **arguments})


def test_another_model_is_not_a_codec(folder, tmp_path):
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(ConfigError, match="qwen3_tts_tokenizer_12hz"):
        Qwen3TTSTokenizer.from_pretrained(tmp_path)


def test_codes_that_cannot_be_are_refused_in_one_sentence(tokenizer):
    codes = random_codes(tokenizer, 3)
    c = tokenizer.config.decoder_config
    too_high, too_low = codes.copy(), codes.copy()
    too_high[2, 1], too_low[0, 4] = c.codebook_size, -1
    cases = [
        (too_high, rf"code {c.codebook_size} \(frame 2, group 1\) is not from 0 to {c.codebook_size - 1}"),
        (too_low, r"code -1 \(frame 0, group 4\)"),
        (codes[:, :3], r"\[3, 3\], expected integers \[frames, 16\]"),
        (codes.astype(np.float32), "float32"),
        (codes[0], r"\[16\]"),
        ({"codes": codes}, "no 'audio_codes'"),
        ("codes.npy", "expected integers"),
        (None, "expected integers"),
    ]
    for wrong, match in cases:
        with pytest.raises(RequestError, match=match) as caught:
            tokenizer.decode(wrong)
        assert "\n" not in str(caught.value)


@settings(max_examples=40)
@given(
    st.one_of(
        st.none(),
        st.integers(),
        st.text(max_size=20),
        st.lists(st.integers(), max_size=3),
        hnp.arrays(
            st.sampled_from([np.float32, np.float64, np.int16, np.int64, np.bool_]), hnp.array_shapes(max_dims=3)
        ),
    ),
    st.one_of(st.none(), st.integers(-1, 10**7), st.floats()),
)
def test_any_audio_gives_codes_or_one_sentence(tokenizer, audio, sr):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sentence, codes = "", []
        try:
            codes = tokenizer.encode(audio, sr=sr).audio_codes
        except QwenTTSError as e:
            sentence = str(e)
    assert "\n" not in sentence
    assert all(clip.shape[1] == 16 for clip in codes)


def test_floats_at_the_scale_of_integers_are_named(tokenizer):
    wave = np.round(np.sin(np.arange(24_000) / 10) * 14_745).astype(np.float32)
    with pytest.warns(ReferenceClipWarning, match="the audio has values up to 14,7"):
        tokenizer.encode(wave, 24_000)
