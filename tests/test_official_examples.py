"""Scripts written for the official package, with nothing but the import changed.

The calls are those of the official README and of its ``examples/`` folder, in words of our own, on tiny models and
local clips. What is left out by name: lines that call torch itself, and ``.cpu()`` on codes.
"""

from __future__ import annotations

import io
import pickle
import sys
import types
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import qwen3tts_np
from qwen3tts_np import (
    Qwen3TTSModel,
    Qwen3TTSTokenizer,
    RequestError,
    RequestTypeError,
    VoiceClonePromptItem,
)
from qwen3tts_np.errors import InputError, MissingInputError

SHORT = {"max_new_tokens": 4}


class DType:
    """What PyTorch's dtypes look like to a program that has only their names."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"torch.{self.name}"


class Tensor:
    """An array behind the methods of a tensor, which refuses to be taken for an array directly."""

    def __init__(self, array: np.ndarray, dtype: str = "torch.float32") -> None:
        self._array, self.dtype = array, dtype

    def detach(self) -> Tensor:
        return self

    def cpu(self) -> Tensor:
        return self

    def float(self) -> Tensor:
        return Tensor(self._array.astype(np.float32))

    def numpy(self) -> np.ndarray:
        if "bfloat16" in str(self.dtype):
            raise TypeError("Got unsupported ScalarType BFloat16")
        return self._array

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise RuntimeError("Can't call numpy() on Tensor that requires grad")


@pytest.fixture
def torch(monkeypatch) -> Any:
    stub = types.ModuleType("torch")
    for name in ("bfloat16", "float16", "float32"):
        setattr(stub, name, DType(name))
    monkeypatch.setitem(sys.modules, "torch", stub)
    return stub


@pytest.fixture
def clip(tmp_path) -> Path:
    t = np.arange(4 * 24000) / 24000
    path = tmp_path / "clone.wav"
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * 180 * t) * (1 + 0.5 * np.sin(2 * np.pi * 3 * t)), 24000)
    return path


@pytest.fixture(autouse=True)
def quiet() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def official(folder: Path, torch: Any) -> Qwen3TTSModel:
    return Qwen3TTSModel.from_pretrained(
        str(folder), device_map="cuda:0", dtype=torch.bfloat16, attn_implementation="flash_attention_2"
    )


@pytest.fixture
def synthetic_model(synthetic: Callable[..., Path], torch: Any) -> Callable[[str], Qwen3TTSModel]:
    return lambda kind: official(synthetic("tiny", kind), torch)


def test_custom_voice(synthetic_model, tmp_path):
    model = synthetic_model("custom_voice")
    assert model.get_supported_speakers() and model.get_supported_languages()
    wavs, sr = model.generate_custom_voice(
        text="Good morning, and welcome.", language="English", speaker="Vivian", instruct="Very happy.", **SHORT
    )
    soundfile.write(tmp_path / "one.wav", wavs[0], sr)
    wavs, sr = model.generate_custom_voice(
        text=["你好。", "Hello."],
        language=["Chinese", "English"],
        speaker=["Vivian", "Ryan"],
        instruct=["", "Sad."],
        **SHORT,
    )
    assert len(wavs) == 2 and sr == 24000


def test_voice_design_then_clone(synthetic_model):
    design, clone = synthetic_model("voice_design"), synthetic_model("base")
    words = "H-hey! You dropped your notebook there."
    wavs, sr = design.generate_voice_design(
        text=words, language="English", instruct="Male, 17 years old, gaining confidence", **SHORT, seed=1
    )
    voice = clone.create_voice_clone_prompt(ref_audio=(wavs[0], sr), ref_text=words)
    wavs, sr = clone.generate_voice_clone(
        text=["No problem.", "Not yet."], language=["English", "English"], voice_clone_prompt=voice, **SHORT
    )
    assert len(wavs) == 2


def test_voice_clone(synthetic_model, clip):
    model = synthetic_model("base")
    common = {"max_new_tokens": 4, "do_sample": True, "top_k": 50, "top_p": 1.0, "temperature": 0.9}
    common |= {"repetition_penalty": 1.05, "subtalker_dosample": True, "subtalker_top_k": 50}
    common |= {"subtalker_top_p": 1.0, "subtalker_temperature": 0.9}
    for alone in (False, True):
        (one,), rate = model.generate_voice_clone(
            text="A reply.",
            language="Auto",
            ref_audio=str(clip),
            ref_text="What the clip says.",
            x_vector_only_mode=alone,
            **common,
        )
        items = model.create_voice_clone_prompt(
            ref_audio=[str(clip), str(clip)], ref_text=["What it says.", "And this."], x_vector_only_mode=[alone, alone]
        )
        wavs, _ = model.generate_voice_clone(
            text=["One.", "Two."], language=["Chinese", "English"], voice_clone_prompt=items, **common
        )
        assert rate == 24000 and len(wavs) == 2
        assert all(0 < len(wave) <= 4 * 1920 for wave in (one, *wavs))


def test_tokenizer(synthetic: Callable[..., Path], clip, torch):
    folder = synthetic("tiny", "base") / "speech_tokenizer"
    tokenizer = Qwen3TTSTokenizer.from_pretrained(str(folder), device_map="cuda:0")
    encoded = tokenizer.encode(str(clip))
    wavs, sr = tokenizer.decode(encoded)
    assert sr == tokenizer.get_output_sample_rate()
    samples, rate = soundfile.read(clip)
    for same in (tokenizer.encode([samples], sr=rate), tokenizer.encode(samples, sr=np.int64(rate))):
        np.testing.assert_array_equal(same.audio_codes[0], encoded.audio_codes[0])
    np.testing.assert_array_equal(encoded["audio_codes"][0], encoded.audio_codes[0])
    again, _ = tokenizer.decode([{"audio_codes": codes} for codes in encoded.audio_codes])
    np.testing.assert_array_equal(again[0], wavs[0])
    again, _ = tokenizer.decode({"audio_codes": [Tensor(encoded.audio_codes[0], "torch.int64")]})
    np.testing.assert_array_equal(again[0], wavs[0])


def test_every_kind_of_clip_is_the_same_clip(synthetic_model, clip):
    model = synthetic_model("base")
    samples, rate = soundfile.read(clip, dtype="float32")

    def embedding(audio: Any) -> np.ndarray:
        return model.create_voice_clone_prompt(audio, x_vector_only_mode=True)[0].ref_spk_embedding

    expected = embedding(str(clip))
    with clip.open("rb") as file:
        np.testing.assert_array_equal(embedding(file), expected)
    for same in (clip, clip.read_bytes(), io.BytesIO(clip.read_bytes()), (samples, rate), (Tensor(samples), rate)):
        np.testing.assert_array_equal(embedding(same), expected)
    with pytest.raises(RequestTypeError, match="a file opened as text"):
        embedding(io.StringIO("RIFF"))
    with pytest.raises(RequestTypeError, match="audio is int"):
        embedding(3)


def test_an_item_built_by_hand_of_tensors(synthetic_model, clip):
    model = synthetic_model("base")
    (made,) = model.create_voice_clone_prompt(str(clip), "What it says.")
    item = VoiceClonePromptItem(
        ref_code=Tensor(made.ref_code, "torch.int64"),  # type: ignore[arg-type]
        ref_spk_embedding=Tensor(made.ref_spk_embedding, "torch.bfloat16"),  # type: ignore[arg-type]
        x_vector_only_mode=False,
        icl_mode=True,
        ref_text="What it says.",
    )
    options = {**SHORT, "return_codes": True, "do_sample": False, "subtalker_dosample": False}
    *_, expected = model.generate_voice_clone("A reply.", voice_clone_prompt=[made], **options)
    *_, got = model.generate_voice_clone("A reply.", voice_clone_prompt=[item], **options)
    np.testing.assert_array_equal(got[0], expected[0])


# --- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        {"torch_dtype": "float32"},
        {"device_map": "auto"},
        {"device_map": {"": "cpu", "talker": "cpu:0"}},
        {"device_map": None, "attn_implementation": None, "trust_remote_code": False, "revision": None, "token": ""},
        {"local_files_only": True, "quantization_config": None},
        {"device_map": False, "use_flash_attention_2": False, "dtype": "", "torch_dtype": False, "cache_dir": ""},
        {"device_map": "balanced", "something_of_a_later_version": None},
    ],
)
def test_harmless_arguments_say_nothing(synthetic: Callable[..., Path], arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Qwen3TTSModel.from_pretrained(synthetic("tiny", "custom_voice"), backend="reference", **arguments)


def test_arguments_of_generate_that_nothing_is_done_with(synthetic: Callable[..., Path]):
    """The official package takes all that transformers knows, and hands on its own. Switches may be NumPy's."""
    model = Qwen3TTSModel.from_pretrained(synthetic("tiny", "custom_voice"), backend="reference")
    said: dict[str, Any] = {**SPEAK, "seed": 1, "return_codes": True}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        *_, expected = model.generate_custom_voice(**said, do_sample=False)
        *_, same = model.generate_custom_voice(**said, do_sample=np.False_, streamer=None, eos_token_id=None, later="")
        nothing: dict[str, Any] = {"instruct": False, "language": False, "non_streaming_mode": 1, "progress": None}
        *_, again = model.generate_custom_voice(**{**said, **nothing}, do_sample=0)
    np.testing.assert_array_equal(same[0], expected[0])
    np.testing.assert_array_equal(again[0], expected[0])
    with pytest.warns(UserWarning, match="num_beams has no effect, here and in the official package"):
        *_, same = model.generate_custom_voice(**said, do_sample=False, num_beams=4)
    np.testing.assert_array_equal(same[0], expected[0])
    with pytest.raises(TypeError, match="there is no argument 'eos_token_id'"):  # this one has an effect there
        model.generate_custom_voice(**said, eos_token_id=3)


@pytest.mark.parametrize("device", ["cuda:0", {"": 0}, 0, {"": "cpu", "talker": "mps"}, "cuda"])
def test_another_device_is_one_warning_at_the_callers_line(synthetic: Callable[..., Path], device):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        Qwen3TTSModel.from_pretrained(synthetic("tiny", "custom_voice"), backend="reference", device_map=device)
    assert [("CPU only" in str(w.message), w.filename) for w in said] == [(True, __file__)]


def test_by_its_official_name_and_numpy_integers(synthetic: Callable[..., Path], torch):
    model = Qwen3TTSModel.from_pretrained(
        pretrained_model_name_or_path=str(synthetic("tiny", "custom_voice")), torch_dtype=torch.float16
    )
    options = {"max_new_tokens": np.int64(4), "seed": np.uint32(7), "top_k": np.int32(5)}
    *_, codes = model.generate_custom_voice("Hi.", "ryan", return_codes=True, **options)
    *_, same = model.generate_custom_voice("Hi.", "ryan", return_codes=True, max_new_tokens=4, seed=7, top_k=5)
    np.testing.assert_array_equal(codes[0], same[0])
    assert len(list(model.stream_custom_voice("Hi.", "ryan", packet_frames=np.int64(1), max_new_tokens=3)))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def loaded(synthetic: Callable[..., Path]) -> Callable[[str], Qwen3TTSModel]:
    """A model of a type, loaded once."""
    return cache(lambda kind: Qwen3TTSModel.from_pretrained(synthetic("tiny", kind), backend="reference"))


NOISE = np.zeros(24000, np.float32)
SPEAK: dict[str, Any] = {"text": "Hi.", "speaker": "ryan", "max_new_tokens": 2}
CLONE: dict[str, Any] = {"text": "Hi.", "ref_audio": (NOISE, 24000), "x_vector_only_mode": True, "max_new_tokens": 2}
CODES = np.zeros((2, 16), np.int64)


@pytest.mark.parametrize(
    ("error", "method", "arguments"),
    [
        (ValueError, "speak", {"speaker": "nobody"}),
        (ValueError, "speak", {"language": "Klingon"}),
        (ValueError, "speak", {"text": ["Hi.", "You."], "language": ["English"] * 3}),
        (ValueError, "speak", {"text": []}),
        (ValueError, "speak", {"temperature": -1.0}),
        (ValueError, "speak", {"max_new_tokens": 0}),
        (TypeError, "speak", {"text": 3}),
        (TypeError, "speak", {"text": ("Hi.", "You.")}),
        (TypeError, "speak", {"speaker": 3}),
        (TypeError, "speak", {"language": 3}),
        (TypeError, "design", {"instruct": 3}),
        (TypeError, "speak", {"beams": 4}),
        (ValueError, "describe", {}),  # of another type of model
        (ValueError, "clone", {"ref_audio": None}),
        (ValueError, "clone", {"ref_audio": NOISE}),  # without its rate
        (ValueError, "clone", {"ref_audio": (NOISE, 0)}),
        (ValueError, "clone", {"x_vector_only_mode": False}),  # in context, without a transcript
        (ValueError, "clone", {"voice_clone_prompt": {}}),
        (TypeError, "clone", {"ref_audio": 3}),
        (TypeError, "clone", {"ref_audio": (24000, NOISE)}),
        (TypeError, "clone", {"voice_clone_prompt": 3}),
        (FileNotFoundError, "clone", {"ref_audio": "none.wav"}),
        (FileNotFoundError, "clone", {"voice_clone_prompt": "none.safetensors"}),
        (FileNotFoundError, "voice", {"path": "none.safetensors"}),
        (ValueError, "encode", {"audios": NOISE}),
        (TypeError, "encode", {"audios": 3}),
        (FileNotFoundError, "encode", {"audios": ["none.wav"]}),
        (ValueError, "decode", {"encoded": {"codes": CODES}}),
        (ValueError, "decode", {"encoded": CODES + 5000}),
        (ValueError, "load", {"dtype": "int8"}),
        (TypeError, "load", {"devices": "cpu"}),
        (FileNotFoundError, "load", {"pretrained_model_name_or_path": "nowhere"}),
        (FileNotFoundError, "load", {"pretrained_model_name_or_path": "."}),  # without a config.json
        (FileNotFoundError, "load codec", {"pretrained_model_name_or_path": "nowhere"}),
    ],
)
def test_errors_are_those_that_scripts_catch(loaded, synthetic, tmp_path, monkeypatch, error, method, arguments):
    monkeypatch.chdir(tmp_path)
    kind = {"clone": "base", "design": "voice_design"}.get(method, "custom_voice")
    model = loaded(kind)
    call, usual = {
        "speak": (model.generate_custom_voice, SPEAK),
        "design": (model.generate_voice_design, {"text": "Hi.", "instruct": "Calm."}),
        "describe": (model.generate_voice_design, {"text": "Hi.", "instruct": "Calm."}),
        "clone": (model.generate_voice_clone, CLONE),
        "voice": (VoiceClonePromptItem.load, {}),
        "encode": (model.speech_tokenizer.encode, {}),
        "decode": (model.speech_tokenizer.decode, {}),
        "load": (Qwen3TTSModel.from_pretrained, {"pretrained_model_name_or_path": synthetic("tiny", kind)}),
        "load codec": (Qwen3TTSTokenizer.from_pretrained, {}),
    }[method]
    with pytest.raises(error) as caught:
        call(**{**usual, **arguments})
    assert isinstance(caught.value, qwen3tts_np.QwenTTSError)
    assert "\n" not in str(caught.value)


def test_an_error_goes_from_one_process_to_another():
    for error in (InputError("a.json", "it is a pipe"), MissingInputError("a.json", "No such file")):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), again.reason) == (type(error), str(error), error.reason)


def test_a_view_of_the_network(synthetic: Callable[..., Path]):
    model = Qwen3TTSModel.from_pretrained(synthetic("tiny", "base"), backend="reference")
    inside = model.model
    assert (inside.tts_model_type, inside.tts_model_size) == ("base", model.config.tts_model_size)
    assert inside.tokenizer_type == "qwen3_tts_tokenizer_12hz" and inside.device == model.device == "cpu"
    assert inside.speech_tokenizer is model.speech_tokenizer and inside.speaker_encoder is model.speaker_encoder
    assert inside.get_supported_languages() == model.get_supported_languages()
    assert inside.get_supported_speakers() == model.get_supported_speakers()
    assert inside.speaker_encoder_sample_rate == 24000
    assert model.generate_defaults["top_k"] == model.generation_config.top_k and model.processor is model.text_tokenizer
    tokenizer = model.speech_tokenizer
    assert tokenizer.model.get_input_sample_rate() == tokenizer.feature_extractor.sampling_rate
    for shown in (repr(model), repr(tokenizer)):
        assert "\n" not in shown and len(shown) < 120
    assert repr(model).startswith("Qwen3TTSModel(")


# --- languages and checkpoints of others ----------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("en", "english"),
        ("EN_gb", "english"),
        ("zh-CN", "chinese"),
        ("zh-Hans-CN", "chinese"),
        ("de", "german"),
        ("pt-BR", "portuguese"),
        ("jpn", "japanese"),
        ("fr_FR.UTF-8", "french"),
    ],
)
def test_codes_are_languages(synthetic: Callable[..., Path], code, name):
    model = Qwen3TTSModel.from_pretrained(synthetic("tiny", "custom_voice"), backend="reference")
    voice = qwen3tts_np.CustomVoice("ryan")
    by_code, by_name = (model.prepare("Hi.", voice, language=one).prompt for one in (code, name))
    assert by_code == by_name
    with pytest.raises(RequestError, match="language 'xx-en' is not in this model"):
        model.prepare("Hi.", voice, language="xx-en")
