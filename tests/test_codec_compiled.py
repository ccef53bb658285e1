"""The compiled codec and speaker encoder against the reference path, whatever the threads, blocks and calls."""

from __future__ import annotations

import threading
import time
import weakref
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qwen3tts_np_kernels.cpu import compiled
from qwen3tts_np_kernels.program_jit import Program
from qwen3tts_np_kernels.team import Team

from qwen3tts_np.audio.files import read_audio, resample
from qwen3tts_np.checkpoint.config_file import read_codec_config, read_model_config
from qwen3tts_np.checkpoint.keys import load
from qwen3tts_np.checkpoint.safetensors import Checkpoint
from qwen3tts_np.codec import decoder, encoder
from qwen3tts_np.compiled.codec import decoder as compiled_decoder
from qwen3tts_np.compiled.codec import encoder as compiled_encoder
from qwen3tts_np.compiled.codec import passes, pipeline
from qwen3tts_np.compiled.codec.decoder import CompiledCodecDecoder
from qwen3tts_np.compiled.codec.decoder_weights import CompiledDecoderWeights
from qwen3tts_np.compiled.codec.encoder import CompiledCodecEncoder
from qwen3tts_np.compiled.codec.pipeline import Stream, run_in_turns
from qwen3tts_np.compiled.speaker.encoder import CompiledSpeakerEncoder
from qwen3tts_np.speaker.encoder import SpeakerEncoderWeights, shortest_clip, speaker_encoder, speaker_encoder_sizes
from qwen3tts_np.speaker.mel import log_mel

FRAMES = 23
# |compiled - reference| of a waveform from -1 to 1. Two float32 sums in different orders differ by 5e-7 here, minimal
# filtering by 2.6e-6 (and by 6e-6 with the full-size model).
EXACT, MINIMAL = 2e-6, 8e-6
needs_compiler = pytest.mark.skipif(not compiled(), reason="NumPy's sums depend on the shape")
one, two = Team(1), Team(2)


class Codec:
    """The tokenizer of a checkpoint, both ways."""

    def __init__(self, folder):
        config, self.checkpoint = read_codec_config(folder), Checkpoint.open(folder)
        self.decoder_config, self.encoder_config = config.decoder_config, config.encoder_config
        self.groups = config.encoder_valid_num_quantizers
        self.decoder = decoder.CodecDecoder.load(self.checkpoint, self.decoder_config, np.dtype(np.float32))
        self.encoder = encoder.CodecEncoder.load(
            self.checkpoint, self.encoder_config, self.groups, np.dtype(np.float32)
        )

    def compiled_decoder(self, team=two, exact=False, weights="float32"):
        return CompiledCodecDecoder.load(self.checkpoint, self.decoder_config, team, exact, weights)

    def compiled_encoder(self, team=two):
        return CompiledCodecEncoder.load(self.checkpoint, self.encoder_config, self.groups, team)

    def codes(self, frames=FRAMES):
        return np.random.default_rng(0).integers(0, self.decoder_config.codebook_size, (frames, self.groups))


@pytest.fixture(scope="module")
def folder(synthetic):
    return synthetic("tiny", "base")


@pytest.fixture(scope="module")
def codec(folder):
    return Codec(folder / "speech_tokenizer")


def hum(samples):
    """Two tones that drift, and some noise."""
    t = np.arange(samples) / 24000
    tones = sum(np.sin(2 * np.pi * (f * t + 3 * np.sin(2 * t + f))) for f in (140, 900))
    return (0.2 * tones + 0.02 * np.random.default_rng(0).standard_normal(samples)).astype(np.float32)


# ---- decoder ----


@pytest.mark.parametrize(("exact", "tolerance"), [(True, EXACT), (False, MINIMAL)])
@pytest.mark.parametrize("frames", [1, 2, FRAMES])
def test_decoding_is_the_reference(codec, exact, tolerance, frames):
    codes = codec.codes(frames)
    actual, expected = codec.compiled_decoder(exact=exact).decode(codes), decoder.decode(codes, codec.decoder)
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("part", ["pre_conv", "first_conv"])
def test_the_tolerance_tells_a_weight_that_is_off_by_a_thousandth(codec, part):
    twin, codes = codec.compiled_decoder(), codec.codes()
    convolution = getattr(twin.weights, part)
    convolution.weight[np.abs(convolution.weight).argmax()] *= 1.001
    difference = np.abs(twin.decode(codes) - decoder.decode(codes, codec.decoder)).max()
    assert difference > MINIMAL


def test_samples_beyond_full_scale_are_clipped(codec):
    w, codes = codec.decoder.weights, codec.codes(3)
    quiet = decoder.decode(codes, codec.decoder)
    gain = np.float32(2 / np.abs(quiet).max())
    last = replace(w.last_conv, weight=w.last_conv.weight * gain, bias=w.last_conv.bias * gain)
    packed = CompiledDecoderWeights.pack(replace(w, last_conv=last), codec.decoder_config, False)
    loud = CompiledCodecDecoder(codec.decoder_config, packed, two).decode(codes)
    np.testing.assert_allclose(loud, np.clip(quiet * gain, -1, 1), atol=MINIMAL * gain, rtol=0)
    assert np.abs(loud).max() == 1


def test_weights_of_16_bits_change_what_cannot_be_heard(codec):
    codes = codec.codes()
    wide, narrow = (codec.compiled_decoder(weights=form).decode(codes) for form in ("float32", "int16"))
    frames = [wave.reshape(FRAMES, -1).astype(np.float64) for wave in (wide, narrow)]
    error, power = (np.square(x).sum(axis=1) for x in (frames[1] - frames[0], frames[0]))
    worst = 10 * np.log10((error / power).max())
    assert -130 < worst < -70  # decibels


@needs_compiler
@pytest.mark.parametrize(("exact", "weights"), [(True, "float32"), (False, "float32"), (False, "int16")])
def test_threads_and_blocks_change_no_bit(codec, exact, weights, monkeypatch):
    codes, expected = codec.codes(), codec.compiled_decoder(one, exact, weights).decode(codec.codes())
    for team, blocks, fewest in (
        (two, (64, 8, 2), (0, 0, 0)),
        (Team(3), (4, 3, 1), (99, 99, 99)),
        (one, (1, 1, 1), (16, 4, 2)),
        (two, (7, 100, 5), (16, 99, 2)),
    ):
        monkeypatch.setattr(compiled_decoder, "BLOCK_FRAMES", blocks)
        monkeypatch.setattr(compiled_decoder, "FEWEST_FRAMES", fewest)
        np.testing.assert_array_equal(codec.compiled_decoder(team, exact, weights).decode(codes), expected)


@needs_compiler
@pytest.mark.parametrize("weights", ["float32", "int16"])
@pytest.mark.parametrize("cuts", [(1, 2, 3), (FRAMES // 2,), range(1, FRAMES)])
def test_a_stream_is_the_whole(codec, cuts, weights):
    twin, codes = codec.compiled_decoder(weights=weights), codec.codes()
    past, edges = twin.stream(), [0, *cuts, FRAMES]
    parts = [twin.decode(codes[first:end], past) for first, end in pairwise(edges)]
    np.testing.assert_array_equal(np.concatenate(parts), twin.decode(codes))


@needs_compiler
@settings(max_examples=10)
@given(st.data(), st.sampled_from([one, two, Team(3)]))
def test_streams_decoded_together_are_those_alone(codec, data, team):
    """Whoever is in a pass, with how many frames, and whoever joins later."""
    twin, count = codec.compiled_decoder(team, weights=data.draw(st.sampled_from(["float32", "int16"]))), 4
    codes = [np.roll(codec.codes(), i, axis=0) for i in range(count)]
    streams, done, parts = [twin.stream() for _ in codes], [0] * count, [[] for _ in codes]
    while unfinished := [i for i in range(count) if done[i] < FRAMES]:
        steps = {i: min(data.draw(st.integers(0, 12)), FRAMES - done[i]) for i in unfinished}
        here = [i for i in unfinished if steps[i]] or unfinished[:1]
        now = [codes[i][done[i] : done[i] + max(steps[i], 1)] for i in here]
        for i, wave in zip(here, twin.decode_together(now, [streams[i] for i in here]), strict=True):
            parts[i].append(wave)
            done[i] += max(steps[i], 1)
    for part, alone in zip(parts, codes, strict=True):
        np.testing.assert_array_equal(np.concatenate(part), twin.decode(alone))


@needs_compiler
@settings(max_examples=10)
@given(st.data(), st.sampled_from([one, two, Team(3)]))
def test_packets_of_several_streams_share_their_passes(codec, data, team):
    """A pass that one packet has recorded is run by those of other streams, wherever they are, one after another."""
    twin, streams, done = codec.compiled_decoder(team), 3, [0] * 3
    codes, whole = codec.codes(), codec.compiled_decoder(team).decode(codec.codes()).reshape(FRAMES, -1)
    pasts = [twin.stream() for _ in range(streams)]
    for _ in range(12):
        i, frames = data.draw(st.integers(0, streams - 1)), data.draw(st.sampled_from([1, 1, 2, 5]))
        now = slice(done[i], min(done[i] + frames, FRAMES))
        np.testing.assert_array_equal(twin.decode(codes[now], pasts[i]), whole[now].reshape(-1))
        done[i] = now.stop
    (place,) = twin.passes._idle
    assert len(place.passes) <= passes.MOST


@needs_compiler
def test_a_pass_forgets_what_it_was_of(codec):
    twin, codes = codec.compiled_decoder(), codec.codes()
    stream = twin.stream()
    twin.decode(codes[:1], stream)
    gone = [weakref.ref(part) for part in stream]
    del stream
    assert [part() for part in gone] == [None] * 3
    for frames in range(1, passes.MOST + 3):
        twin.decode(codes[:frames])
    (place,) = twin.passes._idle
    assert len(place.passes) == passes.MOST
    decoder_gone = weakref.ref(twin)
    del twin, place
    assert decoder_gone() is None


@needs_compiler
@pytest.mark.parametrize("team", [one, two])
def test_short_packets_of_several_threads_at_once(codec, team):
    """A team of one has no thread of its own: both callers work."""
    twin, codes, waves = codec.compiled_decoder(team), codec.codes(), {}

    def decode(i):
        past = twin.stream()
        waves[i] = np.concatenate([twin.decode(codes[f : f + 1], past) for f in range(FRAMES)])

    threads = [threading.Thread(target=decode, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for wave in waves.values():
        np.testing.assert_array_equal(wave, twin.decode(codes))
    assert len(waves) == 3


@needs_compiler
def test_a_pass_that_is_interrupted_is_not_used_again(codec, monkeypatch):
    twin, codes, past = codec.compiled_decoder(), codec.codes(), codec.compiled_decoder().stream()
    expected = twin.decode(codes[:2])

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(Program, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            twin.decode(codes[:2], past)
    assert not twin.passes._idle
    with pytest.raises(RuntimeError, match="has failed before"):
        twin.decode(codes[:2], past)
    np.testing.assert_array_equal(twin.decode(codes[:2]), expected)


@pytest.mark.parametrize("wrong", [-1, 1 << 20])
def test_a_code_that_is_not_in_the_codebook(codec, wrong):
    codes = codec.codes(2)
    codes[1, 3] = wrong
    with pytest.raises(ValueError, match=rf"codes {min(wrong, codes.min())} to {codes.max()}: expected 0 to"):
        codec.compiled_decoder().decode(codes)


def test_chunks_are_the_official_ones(codec, monkeypatch):
    for module in (decoder, compiled_decoder):
        monkeypatch.setattr(module, "CHUNK_FRAMES", 9)
        monkeypatch.setattr(module, "CONTEXT_FRAMES", 4)
    twin, codes = codec.compiled_decoder(), codec.codes()
    chunked, expected = twin.decode_chunked(codes), decoder.decode_chunked(codes, codec.decoder)
    np.testing.assert_allclose(chunked, expected, atol=MINIMAL, rtol=0)
    assert np.abs(chunked - twin.decode(codes)).max() > 10 * MINIMAL


# ---- encoder ----


@pytest.mark.parametrize("samples", [1, 959, 1920, 1921, 5000, 41_234])
def test_codes_are_the_reference_s(codec, samples):
    """All of them: on these clips no two entries tie within the rounding of float32."""
    wave = hum(samples)
    np.testing.assert_array_equal(codec.compiled_encoder().encode(wave), encoder.encode(wave, codec.encoder))


def test_an_encoder_weight_that_is_off_is_told(codec):
    twin, wave = codec.compiled_encoder(), hum(41_234)
    twin.last.weight[:] *= np.float32(1.01)
    assert (twin.encode(wave) != encoder.encode(wave, codec.encoder)).any()


@needs_compiler
def test_encoder_threads_and_blocks_change_nothing(codec, monkeypatch):
    wave = hum(41_234)
    expected = codec.compiled_encoder(one).encode(wave)
    for team, blocks in ((two, (3, 16, 64, 64)), (Team(3), (1, 2, 5, 3)), (one, (2, 3, 1, 1))):
        names = "FAST_STEPS", "SLOW_STEPS", "TRANSFORMER_STEPS", "QUANTISER_FRAMES"
        for name, block in zip(names, blocks, strict=True):
            monkeypatch.setattr(compiled_encoder, name, block)
        np.testing.assert_array_equal(codec.compiled_encoder(team).encode(wave), expected)


# ---- speaker encoder ----


def speaker_weights(folder, dtype):
    config, checkpoint = read_model_config(folder).speaker_encoder_config, Checkpoint.open(folder)
    sizes = speaker_encoder_sizes(config)
    return load(SpeakerEncoderWeights, checkpoint, sizes, "speaker_encoder.", np.dtype(dtype)), config


@pytest.mark.parametrize("samples", [0, 24_000, 70_001])
def test_the_embedding_is_the_reference_s(folder, samples):
    (weights, config), (double, _) = (speaker_weights(folder, dtype) for dtype in (np.float32, np.float64))
    mel = log_mel(hum(max(samples, shortest_clip(config))))
    actual = CompiledSpeakerEncoder.pack(weights, config, two)(mel)
    expected = speaker_encoder(mel.astype(np.float64), double, config, "speaker_encoder")
    # float32 against float64: 1e-6 of the length of the vector, in either path
    assert np.linalg.norm(actual - expected) <= 1e-5 * np.linalg.norm(expected)


def test_a_speaker_weight_that_is_off_is_told(folder):
    weights, config = speaker_weights(folder, np.float32)
    mel, twin = log_mel(hum(24_000)), CompiledSpeakerEncoder.pack(weights, config, two)
    expected = twin(mel)
    twin.mfa.weight.weight[:] *= np.float32(1.001)
    assert np.linalg.norm(twin(mel) - expected) > 1e-5 * np.linalg.norm(expected)


# ---- real checkpoints and clips, where they are there ----


def test_a_real_clip_through_the_demo_checkpoint():
    shared = Path(__file__).parents[2] / "shared"
    folder = shared / "demo-study" / "checkpoint" / "speech_tokenizer"
    clip = shared / "audio" / "librispeech-1272-128104-0000.wav"
    if not (folder.is_dir() and clip.is_file()):
        pytest.skip("needs ../shared/demo-study and ../shared/audio")
    codec, wave = Codec(folder), resample(*read_audio(str(clip), None), 24_000)[:72_000].astype(np.float32)
    codes = codec.compiled_encoder().encode(wave)
    np.testing.assert_array_equal(codes, encoder.encode(wave, codec.encoder))
    expected = decoder.decode(codes, codec.decoder)
    np.testing.assert_allclose(codec.compiled_decoder().decode(codes), expected, atol=MINIMAL, rtol=0)


# ---- blocks that follow one another ----


def test_every_layer_sees_the_rows_before_a_block():
    x = np.arange(1, 41, dtype=np.float32)[:, None]
    for team, rows, past in ((one, 4, 3), (two, 4, 3), (Team(3), 1, 5), (two, 40, 0)):
        y, stream = np.empty((40, past + 1), np.float32), Stream()

        def work(rows, block, past=past):
            with_past = block.after_past("layer", np.concatenate([np.full((past, 1), -1, np.float32), rows]), past)
            return np.stack([with_past[i : i + past + 1, 0] for i in range(len(rows))])

        for part in (slice(0, 13), slice(13, 14), slice(14, 40)):
            stream.run(team, x[part], y[part], rows, work)
        padded = np.pad(x[:, 0], (past, 0))
        np.testing.assert_array_equal(y, [padded[i : i + past + 1] for i in range(40)])


@pytest.mark.parametrize("team", [one, two])
def test_a_failure_in_one_block_ends_them_all(team):
    entered = []

    def work(rows, block):
        block.after_past("layer", rows, 0)
        entered.append(block.position)
        if block.position >= 4:
            raise KeyError("no such block")
        return rows

    x, stream = np.zeros((40, 1), np.float32), Stream()
    with pytest.raises(KeyError, match="no such block"):
        stream.run(team, x, x, 1, work)
    assert len(entered) < 40
    with pytest.raises(RuntimeError, match="has failed before"):
        stream.run(team, x, x, 1, work)


def test_others_have_their_turns_while_a_long_signal_is_computed():
    order, began = [], threading.Event()

    def work(rows, block):
        order.append("block")
        began.set()
        time.sleep(0.002)
        return rows

    x = np.zeros((40, 1), np.float32)
    long = threading.Thread(target=run_in_turns, args=(two, x, np.empty_like(x), 1, work))
    long.start()
    began.wait()
    two.run(lambda me: order.append("other"))
    long.join()
    assert order.count("block") == 40
    assert order.index("other") < 20


def test_a_complete_signal_is_computed_by_four_threads_at_most():
    many, at_work = Team(6), set()

    def work(rows, block):
        at_work.add(threading.current_thread())
        time.sleep(0.002)
        return 2 * block.after_past("layer", rows, 0)

    x = np.arange(40, dtype=np.float32)[:, None]
    y = np.empty_like(x)
    run_in_turns(many, x, y, 1, work)
    assert len(at_work) == pipeline.TURN_THREADS == 4
    np.testing.assert_array_equal(y, 2 * x)


def test_a_block_waits_for_the_one_ahead():
    """The second thread would be through at once; it must not enter the layer first."""
    order, gate = [], threading.Event()

    def work(rows, block):
        if block.position == 0:
            gate.wait(0.2)
        block.after_past("layer", rows, 0)
        order.append(block.position)
        gate.set()
        return rows

    x = np.zeros((2, 1), np.float32)
    Stream().run(two, x, x, 1, work)
    assert order[0] == 0


# ---- the same without the compiler ----
