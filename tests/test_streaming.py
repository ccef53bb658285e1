"""Speech in packets and text in pieces: the same codes and samples as all at once."""

from __future__ import annotations

import dataclasses
import signal
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_info, threadpool_limits

from qwen3tts_np import Qwen3TTSModel, RequestError
from qwen3tts_np.codec.decoder import decode, decode_continuous
from qwen3tts_np.codec.past import Past
from qwen3tts_np.generate import FrameWriter
from qwen3tts_np.ops import Ints
from qwen3tts_np.speech_tokenizer import Qwen3TTSTokenizer

FRAME = 1920  # samples
PACKETS = (1, 2, 4, 7, 300)
BACKENDS = ("compiled", "reference")
KINDS = ("custom_voice", "voice_design", "x_vector", "in_context")
TEXT = "Hello there, how are you today? It's 7:45, I think. 你好，世界。"

Load = Callable[[str, str], Qwen3TTSModel]


@pytest.fixture(scope="session")
def load(synthetic: Callable[..., Path]) -> Load:
    models: dict[tuple[str, str], Qwen3TTSModel] = {}

    def loaded(kind: str, backend: str) -> Qwen3TTSModel:
        key = (kind if kind in KINDS[:2] else "base", backend)
        if key not in models:
            models[key] = Qwen3TTSModel.from_pretrained(synthetic("tiny", key[0]), backend=backend, threads=1)
        return models[key]

    return loaded


@pytest.fixture(scope="session")
def double(synthetic: Callable[..., Path]) -> Qwen3TTSTokenizer:
    return Qwen3TTSTokenizer.from_pretrained(synthetic("tiny", "base"), dtype="float64")


def clip(samples: int) -> tuple[np.ndarray, int]:
    noise = np.random.default_rng(0).standard_normal(samples)
    return (0.1 * noise).astype(np.float32), 24000


def voice(model: Qwen3TTSModel, kind: str) -> dict[str, Any]:
    """What the methods of a kind of voice need beside the text."""
    if kind == "custom_voice":
        return {"speaker": "ryan", "language": "english"}
    if kind == "voice_design":
        return {"instruct": "A calm voice."}
    alone = kind == "x_vector"
    frames = 4 if alone else 12
    prompt = model.create_voice_clone_prompt(clip(frames * FRAME), None if alone else "It is good.", alone)
    return {"voice_clone_prompt": prompt}


def method(model: Qwen3TTSModel, verb: str, kind: str) -> Callable[..., Any]:
    return getattr(model, f"{verb}_{kind if kind in KINDS[:2] else 'voice_clone'}")


def lasting(
    model: Qwen3TTSModel, kind: str, frames: int, text: str = TEXT, non_streaming_mode: bool = True
) -> dict[str, Any]:
    """A voice, and sampling with the first seed that gives so many frames: random weights may end early."""
    options: dict[str, Any] = voice(model, kind) | {"temperature": 2.0, "max_new_tokens": frames + 1}
    for seed in range(99):
        options["seed"] = seed
        stream = method(model, "stream", kind)(text, **options, non_streaming_mode=non_streaming_mode)
        if sum(map(len, stream)) == frames * FRAME:
            return options
    raise AssertionError("no seed lasts so long")


def random_codes(tokenizer: Qwen3TTSTokenizer, frames: int, seed: int = 0) -> Ints:
    c = tokenizer.config.decoder_config
    return np.random.default_rng(seed).integers(0, c.codebook_size, (frames, c.num_quantizers))


def streamed(tokenizer: Qwen3TTSTokenizer, codes: Ints, cuts: list[int]) -> np.ndarray:
    stream = tokenizer.stream()
    return np.concatenate([stream(codes[a:b]) for a, b in pairwise([0, *cuts, len(codes)]) if a < b])


def whole(tokenizer: Qwen3TTSTokenizer, codes: Ints) -> np.ndarray:
    return tokenizer.decode(codes, continuous=True)[0][0]


# --- the codec ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frames", "packets"), [*((n, PACKETS) for n in (1, 2, 8, 73)), (301, (4, 300)), (700, (23, 300))]
)
def test_packets_of_compiled_samples_are_the_whole(load: Load, frames: int, packets: tuple[int, ...]) -> None:
    tokenizer = load("base", "compiled").speech_tokenizer
    codes = random_codes(tokenizer, frames)
    expected = whole(tokenizer, codes)
    for packet in packets:
        cuts = list(range(packet, frames, packet))
        np.testing.assert_array_equal(streamed(tokenizer, codes, cuts), expected)


@settings(max_examples=6)
@given(frames=st.integers(1, 330), data=st.data())
def test_any_packets_of_compiled_samples_are_the_whole(load: Load, frames: int, data: st.DataObject) -> None:
    tokenizer = load("base", "compiled").speech_tokenizer
    codes = random_codes(tokenizer, frames, frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, frames), max_size=20)))
    np.testing.assert_array_equal(streamed(tokenizer, codes, cuts), whole(tokenizer, codes))


@pytest.mark.parametrize("backend", ["compiled", "reference"])
def test_streams_decoded_together_are_the_whole(load: Load, backend: str) -> None:
    tokenizer = load("base", backend).speech_tokenizer
    codes = [random_codes(tokenizer, 9, seed) for seed in range(3)]
    streams, parts = [tokenizer.stream() for _ in codes], [[] for _ in codes]
    for cuts in (((0, 4), (0, 1), (0, 0)), ((4, 9), (1, 1), (0, 9)), ((9, 9), (1, 9), (9, 9))):
        now = [(stream, one[slice(*cut)]) for stream, one, cut in zip(streams, codes, cuts, strict=True)]
        for part, wave in zip(parts, tokenizer.decode_together(now), strict=True):
            part.append(wave)
    for part, alone in zip(parts, codes, strict=True):
        np.testing.assert_array_equal(np.concatenate(part), whole(tokenizer, alone))


@pytest.mark.parametrize(("packet", "frames"), [(1, 1), (1, 9), (2, 20), (4, 74), (7, 30), (100, 103)])
def test_packets_of_numpy_samples_are_the_whole(load: Load, packet: int, frames: int) -> None:
    tokenizer = load("base", "reference").speech_tokenizer
    codes = random_codes(tokenizer, frames)
    cuts = list(range(packet, frames, packet))
    np.testing.assert_array_equal(streamed(tokenizer, codes, cuts), whole(tokenizer, codes))


@settings(max_examples=5)
@given(frames=st.integers(1, 24), window=st.sampled_from([1, 3, 8]), data=st.data())
def test_a_stream_is_one_pass(double: Qwen3TTSTokenizer, frames: int, window: int, data: st.DataObject) -> None:
    c = dataclasses.replace(double.config.decoder_config, sliding_window=window)
    d = dataclasses.replace(double.decoder, config=c)
    codes, past = random_codes(double, frames), Past()
    cut = data.draw(st.integers(0, frames))
    one_pass = decode(codes, d)
    pieces = [decode(part, d, past) for part in (codes[:cut], codes[cut:]) if len(part)]
    for wave in (np.concatenate(pieces), decode_continuous(codes, d)):
        np.testing.assert_allclose(wave, one_pass, rtol=0, atol=1e-12)  # float64: sums of another order


def test_the_past_does_not_grow(load: Load) -> None:
    tokenizer = load("base", "reference").speech_tokenizer
    past, sizes = Past(), []
    for frames in (30, 20):
        decode(random_codes(tokenizer, frames), tokenizer.decoder, past)
        sizes.append(past.lengths)
    assert sizes[0] == sizes[1]
    window = tokenizer.config.decoder_config.sliding_window
    assert {kept for layer, kept in sizes[0].items() if layer.endswith((".k", ".v"))} == {window - 1}
    assert max(sizes[0].values()) < 100
    twin = load("base", "compiled").speech_tokenizer.compiled_decoder
    streams, sizes = twin.stream(), []
    for frames in (30, 20):
        twin.decode(random_codes(tokenizer, frames), streams)
        sizes.append([stream.lengths for stream in streams])
    assert sizes[0] == sizes[1]


# --- speech out -----------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_has_the_codes_of_the_twin_continuously_decoded(load: Load, kind: str, backend: str) -> None:
    model = load(kind, backend)
    options = lasting(load(kind, "auto"), kind, 15, non_streaming_mode=False) | {"non_streaming_mode": False}
    (wave,), rate, (codes,) = method(model, "generate", kind)(TEXT, **options, return_codes=True)
    before = np.zeros((0, codes.shape[1]), np.int64)
    if kind == "in_context":
        before = options["voice_clone_prompt"][0].ref_code
    expected = whole(model.speech_tokenizer, np.concatenate([before, codes]))[len(before) * FRAME :]
    for packet in PACKETS if backend == "compiled" else (4, 300):
        stream = method(model, "stream", kind)(TEXT, **options, packet_frames=packet)
        packets = list(stream)
        assert all(p.dtype == np.float32 for p in packets)
        assert [len(p) for p in packets[:-1]] == [packet * FRAME] * ((len(codes) - 1) // packet)
        np.testing.assert_array_equal(stream.codes, codes)
        np.testing.assert_array_equal(np.concatenate(packets), expected)
        assert stream.sample_rate == rate
    # Up to 300 frames generate_* decodes the same, compiled to the last bit; its cut may be a sample early.
    tolerance = {"compiled": 0.0, "reference": 5e-6}[backend]  # float32 noise of one pass, as in test_codec.py
    assert 0 <= len(wave) - len(expected) <= (kind == "in_context")
    np.testing.assert_allclose(wave[len(wave) - len(expected) :], expected, rtol=0, atol=tolerance)


class Counting:
    """Counts frames, and notices when nobody wants more."""

    def __init__(self, loop: FrameWriter) -> None:
        self._loop = loop
        self.written, self.closed = 0, False

    def frames(self, *arguments: Any) -> Iterator[Any]:
        try:
            for frame in self._loop.frames(*arguments):
                self.written += 1
                yield frame
        finally:
            self.closed = True


@pytest.mark.parametrize("backend", BACKENDS)
def test_packets_come_as_soon_as_their_frames_and_leaving_ends_the_work(load: Load, backend: str) -> None:
    model = load("custom_voice", backend)
    counting = Counting(model.frame_loop)
    counted = dataclasses.replace(model, frame_loop=counting)
    options = lasting(model, "custom_voice", 12)
    expected = model.generate_custom_voice(TEXT, **options, return_codes=True)[2][0]
    stream = counted.stream_custom_voice(TEXT, packet_frames=3, **options)
    assert counting.written == 0
    with threadpool_limits(4, user_api="blas"):
        alive, blas = threading.active_count(), threadpool_info()
        for i, _ in enumerate(stream, 1):
            assert counting.written == 3 * i
            assert threadpool_info() == blas  # a paused stream holds no process-wide setting
            if i == 3:
                break
    stream.close()
    assert counting.closed
    assert list(stream) == []
    np.testing.assert_array_equal(stream.codes, expected[:9])
    assert threading.active_count() <= alive + 2  # the team of the codec, if this was its first work
    again = model.generate_custom_voice(TEXT, **options, return_codes=True)[2][0]
    np.testing.assert_array_equal(again, expected)


def test_streams_of_one_model_may_alternate(load: Load) -> None:
    model = load("custom_voice", "compiled")
    options: dict[str, Any] = {"max_new_tokens": 12, "temperature": 2.0, "packet_frames": 2}
    alone = [np.concatenate(list(model.stream_custom_voice(TEXT, "ryan", seed=seed, **options))) for seed in (1, 2)]
    streams = [model.stream_custom_voice(TEXT, "ryan", seed=seed, **options) for seed in (1, 2)]
    in_turn = zip_longest(*streams)
    for one, packets in zip(alone, zip(*in_turn, strict=True), strict=True):
        np.testing.assert_array_equal(one, np.concatenate([packet for packet in packets if packet is not None]))


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer signal")
@pytest.mark.parametrize("backend", BACKENDS)
def test_an_interrupt_ends_a_stream_and_leaves_the_model_whole(load: Load, backend: str) -> None:
    model = load("custom_voice", backend)
    options: dict[str, Any] = {"max_new_tokens": 20, "seed": 1, "temperature": 2.0}
    expected = np.concatenate(list(model.stream_custom_voice(TEXT, "ryan", **options)))

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def listen() -> None:
        while True:
            stream.append(model.stream_custom_voice(TEXT, "ryan", **options))
            for _ in stream[-1]:
                pass

    stream: list[Any] = []
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            listen()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert list(stream[-1]) == []
    np.testing.assert_array_equal(np.concatenate(list(model.stream_custom_voice(TEXT, "ryan", **options))), expected)


# --- text in --------------------------------------------------------------------------------------

WORDS = ["Hello", " world", ", ", "it", "'s", " 5", "  ", "\n", "。", "你好", "!", " <|im", "e\u0301", " and", "7"]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=25).map("".join)


@settings(max_examples=10)
@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXTS, data=st.data())
def test_text_in_pieces_is_spoken_as_the_whole(load: Load, kind: str, text: str, data: st.DataObject) -> None:
    check_session(load(kind, "compiled"), kind, text, data)


@settings(max_examples=3)
@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXTS, data=st.data())
def test_text_in_pieces_is_spoken_by_numpy_as_the_whole(load: Load, kind: str, text: str, data: st.DataObject) -> None:
    check_session(load(kind, "reference"), kind, text, data)


def check_session(model: Qwen3TTSModel, kind: str, text: str, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=8).map(sorted))
    options = voice(model, kind) | {"max_new_tokens": data.draw(st.sampled_from([2, 12])), "temperature": 2.0}
    options |= {"seed": data.draw(st.integers(0, 99)), "packet_frames": data.draw(st.sampled_from(PACKETS))}
    stream = method(model, "stream", kind)(text, **options, non_streaming_mode=False)
    expected = list(stream)
    heard: list[np.ndarray] = []
    with method(model, "open", kind)(**options) as session:
        for a, b in pairwise([0, *cuts, len(text)]):
            packets = session.feed(text[a:b])
            if data.draw(st.booleans()):  # what is not asked for now comes later
                heard += packets
        heard += session.finish()
    np.testing.assert_array_equal(session.codes, stream.codes)
    assert [len(packet) for packet in heard] == [len(packet) for packet in expected]
    np.testing.assert_array_equal(np.concatenate([*heard, []]), np.concatenate([*expected, []]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_speech_waits_for_text_that_nothing_can_change(load: Load, backend: str) -> None:
    model = load("custom_voice", backend)
    pieces = ["Hel", "lo", " world", ", it", " is", " 7:45", "."]
    options = lasting(model, "custom_voice", 12, "".join(pieces), non_streaming_mode=False)
    # The last letters may go on, the last digit may get a mark.
    settled = ["", "", "Hello", "Hello world,", "Hello world, it", "Hello world, it is 7:4", "Hello world, it is 7:45"]
    frames = []
    with model.open_custom_voice(**options, packet_frames=1) as session:
        for piece, text in zip(pieces, settled, strict=True):
            packets = list(session.feed(piece))
            frames.append(len(model.text_tokenizer.encode(text)))  # a frame is written as soon as its token is settled
            assert len(session.codes) == frames[-1]
            assert len(packets) == frames[-1] - (frames[-2] if len(frames) > 1 else 0)
            assert list(session.feed("")) == []
        assert frames[-1] > 6 and not session.ended
        assert len(list(session.finish())) == 12 - frames[-1]
        assert session.ended


def test_in_context_speech_waits_for_the_end_of_the_reference(load: Load) -> None:
    model = load("in_context", "compiled")
    prompt = voice(model, "in_context")["voice_clone_prompt"]
    beside = 1 + len(prompt[0].ref_code) - len(model.text_tokenizer.encode("It is good."))
    assert beside > 3
    with model.open_voice_clone(voice_clone_prompt=prompt, max_new_tokens=60, packet_frames=1, seed=1) as session:
        for token in range(beside + 3):
            list(session.feed(" 5"))  # two tokens each time, and a digit waits for what follows it
            tokens = 2 * (token + 1) - 1
            assert session.ended or len(session.codes) == max(0, tokens - beside + 1)


def test_text_after_the_end_of_speech_is_not_spoken(load: Load) -> None:
    model = load("custom_voice", "compiled")
    options: dict[str, Any] = {"seed": 5, "max_new_tokens": 4, "temperature": 2.0}
    expected = model.stream_custom_voice(TEXT, "ryan", non_streaming_mode=False, **options)
    samples = np.concatenate(list(expected))
    with model.open_custom_voice("ryan", **options) as session:
        (packet,) = session.feed(TEXT)
        assert session.ended
        assert list(session.feed(TEXT)) == [] == list(session.finish())
    assert len(session.codes) == 3
    np.testing.assert_array_equal(packet, samples)


def test_a_session_ends_once(load: Load) -> None:
    model = load("custom_voice", "compiled")
    with model.open_custom_voice("ryan", max_new_tokens=8) as session:
        waiting = session.finish()
        for call in (session.finish, lambda: session.feed("more")):
            with pytest.raises(RequestError, match="this session is finished"):
                call()
    assert list(waiting) == []  # closed before anybody listened
    with pytest.raises(RequestError, match="this session is closed"):
        session.feed("more")


@pytest.mark.parametrize(
    ("kind", "call", "arguments", "sentence"),
    [
        ("custom_voice", "stream_custom_voice", {"text": ["a"], "speaker": "ryan"}, "text is list; a stream speaks"),
        ("custom_voice", "stream_custom_voice", {"text": "a", "speaker": "Bob"}, "speaker 'Bob' is not"),
        ("custom_voice", "stream_custom_voice", {"text": "", "speaker": "ryan", "packet_frames": 0}, "_frames=0 must"),
        ("custom_voice", "stream_voice_design", {"text": "a", "instruct": ""}, "needs a voice_design model"),
        ("custom_voice", "open_custom_voice", {"speaker": "Bob"}, "speaker 'Bob' is not"),
        ("custom_voice", "open_custom_voice", {"speaker": "ryan", "language": "x"}, "language 'x' is not"),
        ("custom_voice", "open_custom_voice", {"speaker": "ryan", "beams": 2}, "no argument 'beams'"),
        ("custom_voice", "open_custom_voice", {"speaker": "ryan", "packet_frames": 1.5}, "packet_frames=1.5"),
        ("custom_voice", "open_voice_clone", {}, "open_voice_clone needs a base model"),
        ("in_context", "open_voice_clone", {}, "give ref_audio or voice_clone_prompt"),
        ("in_context", "stream_voice_clone", {"text": "a"}, "give ref_audio or voice_clone_prompt"),
    ],
)
def test_refusals_come_with_the_call(
    load: Load, kind: str, call: str, arguments: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(RequestError, match=sentence):
        getattr(load(kind, "reference"), call)(**arguments)
