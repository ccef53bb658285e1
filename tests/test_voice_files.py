"""Files that are given as voices: those of the official demo, which are read, and other kinds, which are named."""

from __future__ import annotations

import io
import zipfile
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch_files import Rebuilt, fake_torch, torch_save

from qwen3tts_np import CheckpointError, QwenTTSError, VoiceClonePromptItem
from qwen3tts_np.files.output import npy_of
from qwen3tts_np.voice.prompt_item import voice_prompt_items

RNG = np.random.default_rng(0)
CODES, EMBEDDING = RNG.integers(0, 2048, (5, 16)), RNG.standard_normal(8).astype(np.float32)


@pytest.fixture(autouse=True)
def torch(monkeypatch) -> None:
    fake_torch(monkeypatch)


def item(**changes: Any) -> dict[str, Any]:
    entry = {
        "ref_code": Rebuilt("LongStorage", CODES.astype("<i8"), (5, 16), (16, 1)),
        "ref_spk_embedding": Rebuilt("FloatStorage", EMBEDDING, (8,), (1,)),
        "x_vector_only_mode": False,
        "icl_mode": True,
        "ref_text": "What it says.",
    }
    return entry | changes


def test_a_voice_of_the_official_demo(tmp_path):
    voice = VoiceClonePromptItem.load(torch_save(tmp_path / "voice.pt", {"items": [item()]}))
    np.testing.assert_array_equal(voice.ref_code, CODES)
    np.testing.assert_array_equal(voice.ref_spk_embedding, EMBEDDING)
    assert (voice.icl_mode, voice.x_vector_only_mode, voice.ref_text) == (True, False, "What it says.")
    voice.save(tmp_path / "voice.safetensors")
    again = VoiceClonePromptItem.load(tmp_path / "voice.safetensors")
    np.testing.assert_array_equal(again.ref_spk_embedding, EMBEDDING)


def test_a_header_whose_length_looks_like_a_brace(tmp_path):
    path = tmp_path / "voice.safetensors"
    header = b'{"__metadata__":{"format":"other"}}'.ljust(0x7B)
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    assert path.read_bytes().startswith(b"{")
    with pytest.raises(CheckpointError, match="holds no voice"):
        VoiceClonePromptItem.load(path)


def test_bfloat16_a_stride_and_several_voices(tmp_path):
    halves = (EMBEDDING.view(np.uint32) >> 16).astype("<u2")
    turned = Rebuilt("LongStorage", np.ascontiguousarray(CODES.T).astype("<i8"), (5, 16), (1, 5))
    short = item(ref_spk_embedding=Rebuilt("BFloat16Storage", halves, (8,), (1,)), ref_code=turned)
    path = torch_save(tmp_path / "voices.pt", {"items": [short, item()]})
    first, second = voice_prompt_items(path)
    np.testing.assert_array_equal(first.ref_code, CODES)
    np.testing.assert_allclose(first.ref_spk_embedding, EMBEDDING, rtol=2**-7)
    np.testing.assert_array_equal(second.ref_spk_embedding, EMBEDDING)
    with pytest.raises(CheckpointError, match="holds 2 voices"):
        VoiceClonePromptItem.load(path)


class Evil:
    def __reduce__(self) -> Any:
        return print, ("executed",)


@pytest.mark.parametrize("value", [Evil(), {"items": [item(ref_text=Evil())]}])
def test_nothing_is_executed(tmp_path, value, capsys):
    with pytest.raises(CheckpointError, match=r"it holds (builtins|__builtin__)\.print"):
        VoiceClonePromptItem.load(torch_save(tmp_path / "voice.pt", value))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ({"state_dict": 3}, "there is no list 'items'"),
        ({"items": [item(ref_spk_embedding=Rebuilt("FloatStorage", EMBEDDING, (9,), (1,)))]}, "larger than what is"),
        ({"items": [item(ref_text=None)]}, "ref_text is missing"),
    ],
)
def test_other_pytorch_files(tmp_path, value, sentence):
    with pytest.raises(CheckpointError, match=sentence):
        VoiceClonePromptItem.load(torch_save(tmp_path / "voice.pt", value))


def test_a_compressed_member_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"it holds data\.pkl of"):
        VoiceClonePromptItem.load(torch_save(tmp_path / "voice.pt", {"items": [item()]}, zipfile.ZIP_DEFLATED))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), min_size=1, max_size=4))
def test_whatever_is_in_the_pickle_it_is_read_or_refused(tmp_path, changes):
    with zipfile.ZipFile(torch_save(tmp_path / "voice.pt", {"items": [item()]})) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    description = bytearray(members["voice/data.pkl"])
    for place, value in changes:
        description[place % len(description)] = value
    with zipfile.ZipFile(tmp_path / "changed.pt", "w") as archive:
        for name, content in (members | {"voice/data.pkl": bytes(description)}).items():
            archive.writestr(name, content)
    with suppress(QwenTTSError):
        VoiceClonePromptItem.load(tmp_path / "changed.pt")


def zipped(name: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(name, "x")
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b'{"name": "x"}', "is JSON, not a saved voice"),
        (b"QVCE\x01" + bytes(100), "none of this program's voices"),
        ("Hallo".encode("utf-16"), "none of this program's voices"),
        (b"\0\0\0\x20ftypM4A ", r"audio \(MP4\).*--ref-audio"),
        (b"\xff\xfb\x90\0" + bytes(100), r"audio \(MP3\).*--ref-audio"),
        (b"\xff\xf1" + bytes(100), r"audio \(AAC\).*--ref-audio"),
        (b"\x1a\x45\xdf\xa3" + bytes(100), r"audio \(WebM\).*--ref-audio"),
        (b"#!AMR\n" + bytes(100), r"audio \(AMR\).*--ref-audio"),
        (b"GGUF" + bytes(100), "is GGUF weights, not a saved voice"),
        (b"\x80\x04" + bytes(100), "is a pickle, which is not read because it could run anything, not a saved voice"),
        (npy_of(np.zeros(64)), "is a NumPy array, not a saved voice"),
        (zipped("ref_code.npy"), r"is NumPy arrays \(\.npz\), not a saved voice"),
        (zipped("voice.txt"), "is a zip archive, not a saved voice"),
        ("WAV", r"audio \(WAV\).*--ref-audio"),
        ("FLAC", r"audio \(FLAC\).*voice create"),
    ],
)
def test_other_kinds_are_named_and_not_called_damaged(tmp_path, content, sentence):
    path = tmp_path / "voice"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        soundfile.write(path, np.zeros(2400), 24000, format=content)
    with pytest.raises(CheckpointError, match=sentence) as caught:
        VoiceClonePromptItem.load(path)
    assert "damaged" not in str(caught.value)
