"""Files of qwentts.cpp: speaker embeddings (.spk) and codes (.rvq), read and written byte for byte."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from qwen3tts_np import ClonedVoice, Qwen3TTSModel, QwenTTSError, RequestError, VoiceClonePromptItem, cli
from qwen3tts_np.audio.files import write_audio
from qwen3tts_np.files.arrays import read_codes
from qwen3tts_np.files.rvq import read_rvq, rvq_of

EMBEDDING = [0.5, -1.25, 3e-39, 65504.0]
TEXT = "What Ada says."


def described(codes: np.ndarray) -> bytes:
    """The bytes as the description has them: one number, of which each code takes the next 11 bits from the lowest.

    A stream [K, T] in rows, 11 bits a code, least significant bit first, no header.
    """
    stream = [int(code) for group in codes.T for code in group]
    whole = sum(code << 11 * place for place, code in enumerate(stream))
    return whole.to_bytes((11 * len(stream) + 7) // 8, "little")


@given(st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_codes_are_the_bytes_of_the_description(tmp_path_factory, frames, seed):
    codes = np.random.default_rng(seed).integers(0, 2048, (frames, 16))
    assert rvq_of(codes) == described(codes)
    assert len(described(codes)) == 22 * frames
    file = tmp_path_factory.mktemp("rvq") / "a.RVQ"
    file.write_bytes(described(codes))
    np.testing.assert_array_equal(read_rvq(file), codes)
    np.testing.assert_array_equal(read_codes(file), codes)


def test_some_bytes_by_hand(tmp_path):
    """The first code of the first two frames: 1 and 2047; all others 0."""
    codes = np.zeros((2, 16), np.int64)
    codes[:, 0] = 1, 2047
    by_hand = bytes([0b00000001, 0b11111000, 0b00111111]) + bytes(41)
    assert rvq_of(codes) == by_hand


@pytest.mark.parametrize(
    "codes", [np.zeros((2, 15), int), np.zeros((0, 16), int), np.full((1, 16), 2048), np.full((1, 16), -1)]
)
def test_codes_that_do_not_fit_are_refused(codes):
    with pytest.raises(RequestError, match=r"do not fit a \.rvq file, which holds \[frames, 16\] from 0 to 2047"):
        rvq_of(codes)


@pytest.mark.parametrize("length", [0, 21, 23])
def test_no_whole_number_of_frames(tmp_path, length):
    (tmp_path / "a.rvq").write_bytes(bytes(length))
    with pytest.raises(RequestError, match=f"has {length} bytes; codes have 22 for each frame"):
        read_codes(tmp_path / "a.rvq")


def test_an_embedding_is_a_voice(tmp_path):
    content = struct.pack("<4f", *EMBEDDING)
    (tmp_path / "a.spk").write_bytes(content)
    voice = VoiceClonePromptItem.load(tmp_path / "a.spk")
    np.testing.assert_array_equal(voice.ref_spk_embedding, np.array(EMBEDDING, np.float32))
    assert (voice.ref_code, voice.x_vector_only_mode, voice.icl_mode) == (None, True, False)
    voice.save(tmp_path / "b.SPK")
    assert (tmp_path / "b.SPK").read_bytes() == content
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.spk", "b.SPK"]


def test_codes_and_words_beside_it_make_a_voice_in_context(tmp_path):
    codes = np.random.default_rng(0).integers(0, 2048, (5, 16))
    (tmp_path / "a.spk").write_bytes(struct.pack("<4f", *EMBEDDING))
    (tmp_path / "a.rvq").write_bytes(described(codes))
    (tmp_path / "a.txt").write_text(f"{TEXT}\n")
    voice = VoiceClonePromptItem.load(tmp_path / "a.spk")
    assert (voice.icl_mode, voice.x_vector_only_mode, voice.ref_text) == (True, False, TEXT)
    np.testing.assert_array_equal(voice.ref_code, codes)
    voice.save(tmp_path / "b.spk")
    assert (tmp_path / "b.rvq").read_bytes() == described(codes)
    assert (tmp_path / "b.txt").read_text() == TEXT
    voice.save(tmp_path / "b.spk")  # again
    (tmp_path / "b.txt").write_text("A book.")
    with pytest.raises(RequestError, match=r"b\.txt exists and says something else than the clip"):
        voice.save(tmp_path / "b.spk")
    only = VoiceClonePromptItem(None, voice.ref_spk_embedding, True, False)
    with pytest.raises(RequestError, match=r"b\.rvq would be read as the codes of .*b\.spk; remove it first"):
        only.save(tmp_path / "b.spk")
    (tmp_path / "a.txt").unlink()
    with pytest.raises(QwenTTSError, match=r"a\.rvq are codes, and their words are missing: .*a\.txt"):
        VoiceClonePromptItem.load(tmp_path / "a.spk")


@pytest.mark.parametrize("content", [b"", bytes(7), struct.pack("<f", float("nan"))])
def test_what_is_no_embedding(tmp_path, content):
    (tmp_path / "a.spk").write_bytes(content)
    with pytest.raises(QwenTTSError, match="holds no speaker embedding: finite numbers of 4 bytes each"):
        VoiceClonePromptItem.load(tmp_path / "a.spk")


def test_a_voice_speaks_as_it_did_and_codes_are_the_same_sound(tmp_path, synthetic: Callable[..., Path], monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = synthetic("tiny", "base")
    model = Qwen3TTSModel.from_pretrained(folder, threads=1)
    t = np.arange(24000) / 24000
    soundfile.write("ada.wav", 0.3 * np.sin(2 * np.pi * 150 * t) * np.sin(2 * np.pi * 2 * t) ** 2, 24000)
    voice = model.voice(ref_audio="ada.wav", ref_text=TEXT)
    assert isinstance(voice, ClonedVoice)
    voice.item.save("ada.spk")
    again = ClonedVoice(VoiceClonePromptItem.load("ada.spk"))
    requests = [model.prepare("Hi.", one, seed=1, max_new_tokens=6) for one in (voice, again)]
    first, second = model.generate(requests)
    np.testing.assert_array_equal(first.codes, second.codes)
    np.testing.assert_array_equal(first.samples, second.samples)

    assert cli.main(["encode", str(folder), "ada.wav", "-o", "codes.rvq"]) == 0
    assert Path("codes.rvq").read_bytes() == Path("ada.rvq").read_bytes() == described(voice.item.ref_code)
    assert cli.main(["decode", str(folder), "codes.rvq", "-o", "again.wav"]) == 0
    (wave,), rate = model.speech_tokenizer.decode(voice.item.ref_code)
    write_audio("wanted.wav", wave, rate)
    assert Path("again.wav").read_bytes() == Path("wanted.wav").read_bytes()
