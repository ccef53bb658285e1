"""Voices as files, what they fit, and what is said of a poor reference clip."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from qwen3tts_np import CheckpointError, Qwen3TTSModel, ReferenceClipWarning, RequestError, VoiceClonePromptItem
from qwen3tts_np.voice.prompt_item import Fingerprint, check_fits, digest
from qwen3tts_np.voice.reference_clip import clip_problems, sound_seconds

RATE = 24000
GREEDY: dict[str, Any] = {"do_sample": False, "subtalker_dosample": False, "max_new_tokens": 4}
MADE = Fingerprint("0b6", "a" * 64, "b" * 64)


@pytest.fixture(scope="module")
def base(synthetic: Callable[..., Path]) -> Qwen3TTSModel:
    return Qwen3TTSModel.from_pretrained(synthetic("tiny", "base"))


@pytest.fixture(scope="module")
def voice(base: Qwen3TTSModel) -> VoiceClonePromptItem:
    return base.create_voice_clone_prompt((speech(1.0), RATE), "It is good.")[0]


def speech(seconds: float, level: float = 0.3, rate: int = RATE) -> np.ndarray:
    """A hum whose loudness rises and falls four times a second, as that of syllables does."""
    t = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(0).standard_normal(len(t))
    return (level * np.sin(np.pi * 4 * t) ** 2 * (np.sin(2 * np.pi * 140 * t) + 0.1 * noise)).astype(np.float32)


def made_of(**changes: Any) -> VoiceClonePromptItem:
    embedding, codes = np.arange(4, dtype=np.float32), np.arange(6).reshape(3, 2)
    return dataclasses.replace(VoiceClonePromptItem(codes, embedding, False, True, "Hi.", MADE, "low"), **changes)


def same(a: VoiceClonePromptItem, b: VoiceClonePromptItem) -> bool:
    pairs = [(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(VoiceClonePromptItem)]
    return all(np.array_equal(x, y) and x.dtype == y.dtype if isinstance(x, np.ndarray) else x == y for x, y in pairs)


# --- the file -------------------------------------------------------------------------------------


@given(
    codes=st.none() | st.integers(1, 5).map(lambda n: np.arange(16 * n).reshape(n, 16)),
    embedding=st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=8),
    dtype=st.sampled_from([np.float32, np.float64]),
    x_vector=st.booleans(),
    text=st.none() | st.text(max_size=30),
    description=st.text(max_size=30),
    made=st.sampled_from([None, MADE]),
)
def test_what_is_saved_is_loaded(tmp_path_factory, codes, embedding, dtype, x_vector, text, description, made):
    icl = codes is not None and bool(text)
    item = VoiceClonePromptItem(codes, np.array(embedding, dtype), x_vector, icl, text, made, description)
    path = tmp_path_factory.getbasetemp() / "round.safetensors"
    item.save(path)
    assert same(VoiceClonePromptItem.load(path), item)


def test_a_saved_voice_speaks_the_same(base, voice, tmp_path):
    path = tmp_path / "ada.safetensors"
    voice.save(path)
    direct, _ = base.generate_voice_clone("Hello.", voice_clone_prompt=voice, **GREEDY)
    for prompt in (path, str(path), [path], VoiceClonePromptItem.load(path)):
        again, _ = base.generate_voice_clone("Hello.", voice_clone_prompt=prompt, **GREEDY)
        np.testing.assert_array_equal(again[0], direct[0])
    both, _ = base.generate_voice_clone(["Hello.", "Hello."], voice_clone_prompt=[voice, path], **GREEDY)
    np.testing.assert_array_equal(both[0], both[1])


def test_any_reader_of_safetensors_can_read_it(voice, tmp_path):
    """Official names, plain types, and no word of where it was made."""
    path = tmp_path / "ada.safetensors"
    voice.save(path)
    arrays = safetensors.numpy.load_file(path)
    np.testing.assert_array_equal(arrays["ref_code"], voice.ref_code)
    np.testing.assert_array_equal(arrays["ref_spk_embedding"], voice.ref_spk_embedding)
    with safetensors.safe_open(path, "np") as file:
        metadata = file.metadata()
    assert metadata["ref_text"] == "It is good."
    assert (metadata["icl_mode"], metadata["x_vector_only_mode"]) == ("true", "false")
    assert metadata["model_size"] == "0b6"
    assert str(tmp_path).encode() not in path.read_bytes()


def test_the_file_is_the_same_in_another_process(tmp_path):
    """Names come out sorted, so nothing depends on the order of a dictionary or a hash seed."""
    made_of().save(tmp_path / "a")
    source = f"import test_voice as t; t.made_of().save({str(tmp_path / 'b')!r})"
    root = Path(__file__).parents[1]
    path = ":".join(map(str, (root, root / "kernels", root / "tests")))
    subprocess.run([sys.executable, "-c", source], env={"PYTHONPATH": path, "PYTHONHASHSEED": "7"}, check=True)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@given(data=st.data())
def test_no_damage_goes_unnoticed(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    made_of().save(path)
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        path.write_bytes(whole[:at])
    else:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :])
    with contextlib.suppress(CheckpointError):
        # The header is JSON: a blank may become a tab. Whatever is read must be what was written.
        assert same(VoiceClonePromptItem.load(path), made_of())


def rewrite(path: Path, arrays: dict[str, np.ndarray], **metadata: str) -> None:
    """A file as another program could write it, with a checksum that is right."""
    from qwen3tts_np.voice.prompt_item import checksum

    metadata["sha256"] = checksum(metadata, arrays)
    safetensors.numpy.save_file(arrays, path, metadata)


VALID = {"format": "qwen3tts-np voice", "version": "1", "icl_mode": "false", "x_vector_only_mode": "true"}
EMBEDDING = np.ones(4, np.float32)


@pytest.mark.parametrize(
    ("arrays", "metadata", "sentence"),
    [
        ({"x": EMBEDDING}, {"format": "pt"}, "holds no voice; 'qwen3tts-np voice create' makes one"),
        ({"ref_spk_embedding": EMBEDDING}, {**VALID, "version": "2"}, "a voice of format '2', this program reads"),
        ({"x": EMBEDDING}, VALID, "is not a complete voice: 'ref_spk_embedding'"),
        ({"ref_spk_embedding": EMBEDDING[None]}, VALID, r"ref_spk_embedding \[1, 4\] is not one finite vector"),
        ({"ref_spk_embedding": EMBEDDING * np.nan}, VALID, "is not one finite vector"),
        ({"ref_spk_embedding": EMBEDDING, "ref_code": EMBEDDING}, VALID, r"ref_code is float32 \[4\]"),
        ({"ref_spk_embedding": EMBEDDING}, {**VALID, "icl_mode": "yes"}, "is not a complete voice"),
        ({"ref_spk_embedding": EMBEDDING}, {**VALID, "icl_mode": "true"}, "ref_code is missing"),
    ],
)
def test_what_is_no_voice_is_refused(tmp_path, arrays, metadata, sentence):
    rewrite(tmp_path / "v.safetensors", arrays, **metadata)
    with pytest.raises(CheckpointError, match=sentence) as error:
        VoiceClonePromptItem.load(tmp_path / "v.safetensors")
    assert "\n" not in str(error.value)


def test_a_changed_transcript_is_damage(tmp_path):
    path = tmp_path / "v.safetensors"
    made_of().save(path)
    path.write_bytes(path.read_bytes().replace(b'"Hi."', b'"Ho."'))
    with pytest.raises(CheckpointError, match="is damaged"):
        VoiceClonePromptItem.load(path)


def test_where_nothing_can_be_read_or_written(tmp_path):
    with pytest.raises(CheckpointError, match="No such file"):
        VoiceClonePromptItem.load(tmp_path / "none")
    with pytest.raises(CheckpointError, match="is a directory"):
        VoiceClonePromptItem.load(tmp_path)
    with pytest.raises(RequestError, match="cannot be written: No such file"):
        made_of().save(tmp_path / "none" / "v.safetensors")


def test_a_failure_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "v.safetensors"
    made_of().save(path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(RequestError, match="No space left"):
        made_of(ref_text="Other.").save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# --- what a voice fits ----------------------------------------------------------------------------


def test_a_model_of_another_width_refuses_the_file(voice, synthetic, tmp_path):
    voice.save(tmp_path / "v.safetensors")
    other = Qwen3TTSModel.from_pretrained(synthetic("tiny-1.7b", "base"))
    sentence = r"the voice of a 0.6B model has an embedding of shape \[64\], this model needs \[96\]; make the voice"
    with pytest.raises(RequestError, match=sentence):
        other.generate_voice_clone("Hello.", voice_clone_prompt=tmp_path / "v.safetensors")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"ref_code": np.zeros((3, 5), np.int64)}, r"codes of shape \[3, 5\], this model needs \[frames, 2\]"),
        ({"ref_code": np.full((3, 2), 8)}, "codes from 8 to 8, this model knows those from 0 to 7"),
        ({"ref_code": np.full((3, 2), -1)}, "codes from -1 to -1"),
    ],
)
def test_codes_that_a_model_does_not_know_are_refused(changes, sentence):
    with pytest.raises(RequestError, match=sentence):
        check_fits(made_of(**changes), lambda: MADE, width=4, groups=2, codebook_size=8)
    alone = made_of(**changes, icl_mode=False, x_vector_only_mode=True)
    check_fits(alone, lambda: MADE, width=4, groups=2, codebook_size=8)  # which does not use them


@pytest.mark.parametrize(
    ("made", "icl", "warned"),
    [
        (MADE, True, []),
        (None, True, []),
        (dataclasses.replace(MADE, model_size="1b7"), True, []),
        (dataclasses.replace(MADE, speaker_encoder="c"), True, ["other weights of the speaker encoder"]),
        (dataclasses.replace(MADE, codebooks="c"), True, ["other codebooks"]),
        (dataclasses.replace(MADE, codebooks="c"), False, []),
    ],
)
def test_other_weights_are_worth_a_warning(made, icl, warned):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        item = made_of(fingerprint=made, icl_mode=icl)
        check_fits(item, lambda: MADE, width=4, groups=2, codebook_size=8)
    assert len(caught) == len(warned)
    assert all(part in str(w.message) for part, w in zip(warned, caught, strict=True))


def test_the_fingerprint_does_not_depend_on_how_weights_are_held(base, synthetic, tmp_path):
    from qwen3tts_np.layout.convert import convert

    source = synthetic("tiny", "base")
    assert Qwen3TTSModel.from_pretrained(source, dtype="float64").fingerprint == base.fingerprint
    for stored in ("float32", "float16", "int4"):
        convert(source, tmp_path / stored, stored)
        assert Qwen3TTSModel.from_pretrained(tmp_path / stored).fingerprint == base.fingerprint


@pytest.mark.parametrize(
    ("file", "tensor", "part"),
    [
        ("model.safetensors", "speaker_encoder.fc.weight", "speaker_encoder"),
        (
            "speech_tokenizer/model.safetensors",
            "encoder.quantizer.acoustic_residual_vector_quantizer.layers.3.codebook.embed_sum",
            "codebooks",
        ),
        ("speech_tokenizer/model.safetensors", "encoder.encoder.layers.0.conv.weight", None),
    ],
)
def test_the_fingerprint_changes_with_the_weights_it_is_of(base, synthetic, tmp_path, file, tensor, part):
    from qwen3tts_np.checkpoint.safetensors import Checkpoint

    copy = shutil.copytree(synthetic("tiny", "base"), tmp_path / "copy")
    data = Checkpoint.open(copy / file)[tensor].data
    raw = bytearray((copy / file).read_bytes())
    length = int.from_bytes(raw[:8], "little")
    at = 8 + length + json.loads(raw[8 : 8 + length])[tensor]["data_offsets"][0] + data.itemsize - 1
    raw[at] ^= 1  # in the exponent of one value
    (copy / file).write_bytes(raw)
    changed = dataclasses.asdict(Qwen3TTSModel.from_pretrained(copy).fingerprint)
    before = dataclasses.asdict(base.fingerprint)
    assert [name for name in before if before[name] != changed[name]] == [part][: part is not None]


def test_a_digest_is_of_values_and_their_order():
    a, b = np.arange(3, dtype=np.float32), np.ones(2, np.float32)
    assert digest((a, b), np.float32) == digest((a.astype(np.float64), (b,)), np.float32)
    assert digest((a, b), np.float32) != digest((b, a), np.float32)


# --- reference clips ------------------------------------------------------------------------------


def problems(wave: np.ndarray, text: str | None = None, rate: int = RATE) -> list[str]:
    return clip_problems(wave.astype(np.float32), rate, text)


def test_a_good_clip_is_left_in_peace():
    assert problems(speech(8.0)) == []
    assert problems(speech(8.0), "The ferry leaves the harbour at half past nine, if the wind does not turn.") == []
    assert problems(speech(8.0), "渡轮九点半离开港口，如果风向变了，我们就在这里等着喝茶。") == []


@pytest.mark.parametrize(
    ("wave", "told"),
    [
        (speech(2.9), "is 2.9 s long; less than 3 s is too little of a voice"),
        (speech(31), "is 31.0 s long; all of it is used"),
        (np.zeros(RATE * 5), "is silent"),
        (speech(5) * 1e-3, "is silent"),
        (np.full(RATE * 5, 0.5), "is silent"),  # whatever its offset is
        (np.pad(speech(2), (RATE, RATE)), "has only 1.92 s of sound in 4.00 s"),
        (speech(5) + 0.02, "has a DC offset of +0.020"),
        (np.clip(speech(5, level=2.0), -1, 1), "is clipped"),
        (np.clip(speech(5, level=2.0), -1, 1) * 0.4, "is clipped"),  # and turned down afterwards
        (np.clip(speech(5), -1, 0.1), "is clipped"),  # on one side
    ],
)
def test_one_problem_is_named(wave, told):
    found = [problem for problem in problems(wave) if not (told == "is clipped" and "DC offset" in problem)]
    assert len(found) == 1
    assert found[0].startswith(told)


def test_loud_is_not_clipped():
    assert problems(speech(5) / np.abs(speech(5)).max()) == []


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
def test_the_rate_changes_nothing(rate):
    assert problems(speech(8.0, rate=rate), "The ferry leaves the harbour at half past nine.", rate) == []
    assert sound_seconds(speech(8.0, rate=rate), rate) == pytest.approx(sound_seconds(speech(8.0), RATE), abs=0.2)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("It is good. " * 40, "nobody says that in 5.0 s"),
        ("你好世界" * 20, "nobody says that in 5.0 s"),
        ("こんにちは" * 25, "nobody says that in 5.0 s"),
        ("Yes.", "that does not fill"),
        ("好", "that does not fill"),
        ("🎉 ...", "that has neither letters nor digits"),
    ],
)
def test_a_transcript_of_another_clip(text, told):
    (problem,) = problems(speech(5.0), text)
    assert told in problem


@pytest.mark.parametrize(
    ("text", "seconds"),  # recordings of the public domain, and fast readers
    [
        (
            "And so, my fellow Americans, ask not what your country can do for you, ask what you can do for your "
            "country.",
            11.0,
        ),
        ("MISTER QUILTER IS THE APOSTLE OF THE MIDDLE CLASSES AND WE ARE GLAD TO WELCOME HIS GOSPEL", 5.9),
        ("We are glad to welcome his gospel, and the middle classes are glad of it too.", 3.2),  # 20 letters a second
        ("渡轮九点半离开港口如果风向变了我们就在这里等着", 3.1),  # 7.4 characters a second
        ("In 1984 it cost $77.50.", 4.0),
    ],
)
def test_a_transcript_that_fits(text, seconds):
    assert problems(speech(seconds), text) == problems(speech(seconds))


def paused(noise: float, seed: int = 0) -> np.ndarray:
    """5 s of a voice with a pause in every second, over white noise of this RMS."""
    t = np.arange(5 * RATE) / RATE
    return speech(5.0) * (t % 1 < 0.7) + noise * np.random.default_rng(seed).standard_normal(len(t))


@pytest.mark.parametrize(("noise", "told"), [(0.0, False), (1e-4, False), (0.03, True), (0.08, True)])
def test_background_noise_is_estimated_where_the_voice_pauses(noise, told):
    assert any("background noise" in problem for problem in problems(paused(noise))) == told


def test_a_sound_without_a_pause_is_no_noise():
    t = np.arange(5 * RATE) / RATE
    for wave in (0.3 * np.sin(2 * np.pi * 220 * t), 0.3 * np.sin(2 * np.pi * 220 * t) * (1 + 0.5 * np.sin(18 * t))):
        assert not any("background noise" in problem for problem in problems(wave))


def test_floats_at_the_scale_of_integers():
    wave = np.round(speech(5.0) * 32767)
    (problem,) = problems(wave)
    assert "full scale is 1" in problem
    assert problems(wave / 32768) == problems(speech(5.0)) == []


def test_a_poor_clip_is_used_all_the_same(base):
    with pytest.warns(ReferenceClipWarning) as caught:
        items = base.create_voice_clone_prompt([(speech(1.0), RATE), (speech(4.0), RATE)], ["Hi there.", "No."])
    assert len(items) == 2
    told = [str(w.message) for w in caught]
    assert len(told) == 2
    assert told[0].startswith("reference clip 0 is 1.0 s long")
    assert told[1].startswith("reference clip 1 and its transcript of 3 characters do not fit")
    with pytest.warns(ReferenceClipWarning, match="^the reference clip is 1.0 s long"):
        base.create_voice_clone_prompt((speech(1.0), RATE), x_vector_only_mode=True)
