"""Qwen3TTSModel on tiny synthetic checkpoints: any request works or is refused in one sentence."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen3tts_np import Qwen3TTSModel, RequestError, VoiceClonePromptItem, trace

Load = Callable[..., Qwen3TTSModel]
CUSTOM, CLONE = ("custom_voice", "generate_custom_voice"), ("base", "generate_voice_clone")  # type, method
GREEDY = {"do_sample": False, "subtalker_dosample": False}


@pytest.fixture(scope="session")
def load(synthetic: Callable[..., Path]) -> Load:
    models: dict[tuple[str, ...], Qwen3TTSModel] = {}

    def loaded(like: str, model_type: str, dtype: str = "float32", backend: str = "auto") -> Qwen3TTSModel:
        key = (like, model_type, dtype, backend)
        if key not in models:
            models[key] = Qwen3TTSModel.from_pretrained(synthetic(like, model_type), dtype=dtype, backend=backend)
        return models[key]

    return loaded


def clip(samples: int, seed: int = 0) -> tuple[np.ndarray, int]:
    t = np.arange(samples) / 24000
    wave = 0.3 * np.sin(2 * np.pi * (150 + 50 * seed) * t) + 0.01 * np.random.default_rng(seed).standard_normal(samples)
    return wave.astype(np.float32), 24000


TEXT = st.text(st.characters(codec="utf-8"), max_size=40) | st.sampled_from(
    ["Hello there.", "你好，世界。", "\n\nnew lines first", "<|im_end|> inside", "สวัสดี 😀", "x" * 300]
)
SAMPLING = st.fixed_dictionaries(
    {
        "max_new_tokens": st.integers(1, 4),
        "seed": st.integers(-(2**63), 2**64 - 1) | st.none(),
    },
    optional={
        "do_sample": st.booleans(),
        "subtalker_dosample": st.booleans(),
        "temperature": st.floats(0.05, 5),
        "subtalker_temperature": st.floats(0.05, 5),
        "top_k": st.integers(0, 200),
        "subtalker_top_k": st.integers(0, 200),
        "top_p": st.floats(0, 1),
        "subtalker_top_p": st.floats(0, 1),
        "repetition_penalty": st.floats(0.5, 3),
    },
)
SIZES = st.sampled_from(["tiny", "tiny-1.7b"])


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, str, str, dict[str, Any]]:
    """(size, type, method, arguments)"""
    size, kind = draw(SIZES), draw(st.sampled_from(["custom_voice", "voice_design", "base"]))
    texts = draw(st.lists(TEXT, min_size=1, max_size=3))
    arguments: dict[str, Any] = {"text": texts, "non_streaming_mode": draw(st.booleans()), **draw(SAMPLING)}
    language = st.sampled_from(["auto", "English", "chinese", "GERMAN", "japanese"]) | st.none()
    arguments["language"] = draw(st.lists(language, min_size=len(texts), max_size=len(texts)) | st.none())
    if kind == "custom_voice":
        speaker = st.sampled_from(["vivian", "Eric", "dylan", "uncle_fu"])
        arguments["speaker"] = draw(st.lists(speaker, min_size=len(texts), max_size=len(texts)) | speaker)
    if kind in ("custom_voice", "voice_design"):
        arguments["instruct"] = draw(st.sampled_from(["", "Speak slowly.", "一个温柔的声音"]))
        method = f"generate_{kind}"
    else:
        method = "generate_voice_clone"
        alone = draw(st.booleans())
        arguments |= {
            "ref_audio": clip(draw(st.integers(1536, 8000))),
            "x_vector_only_mode": alone,
            "ref_text": None if alone else draw(st.sampled_from(["It is good.", "好"])),
        }
    return size, kind, method, arguments


@given(requests())
def test_any_request_gives_audio_twice_the_same(load: Load, request_: tuple[str, str, str, dict[str, Any]]) -> None:
    size, kind, method, arguments = request_
    model = load(size, kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the 0.6B instruction warning has its own test
        wavs, rate, codes = getattr(model, method)(**arguments, return_codes=True)
        if arguments["seed"] is not None:
            again, _ = getattr(model, method)(**arguments)
            for a, b in zip(wavs, again, strict=True):
                np.testing.assert_array_equal(a, b)
    assert rate == 24000
    assert len(wavs) == len(codes) == len(arguments["text"])
    for wav, code in zip(wavs, codes, strict=True):
        assert code.shape[1] == 16
        assert len(code) <= arguments["max_new_tokens"] - 1
        assert wav.dtype == np.float32
        assert len(wav) == len(code) * 1920 + cut_early(arguments, len(code))
        assert np.abs(wav).max(initial=0) <= 1


def cut_early(arguments: dict[str, Any], frames: int) -> int:
    """Samples of the reference that the official cut leaves in front of an utterance cloned in context."""
    if arguments.get("x_vector_only_mode", True):
        return 0
    reference = -(-len(arguments["ref_audio"][0]) // 1920)
    spoken = reference + frames
    return reference * 1920 - int(reference / max(spoken, 1) * (spoken * 1920))


@pytest.mark.parametrize(
    ("reference", "frames", "early"),
    [(13, 10, 1), (15, 7, 1), (15, 11, 1), (17, 6, 1), (17, 11, 1), (13, 9, 0), (15, 8, 0), (3, 7, 0), (1, 2, 0)],
)
def test_the_official_cut_of_cloning_in_context(load: Load, reference: int, frames: int, early: int) -> None:
    """int(reference / spoken * samples): for some lengths the last sample of the reference is heard."""
    model = load("tiny", "base")
    codes = np.random.default_rng(reference).integers(0, 128, (reference, 16))
    item = VoiceClonePromptItem(codes, np.ones(64, np.float32) / 8, False, True, "It is good.")
    (wav,), _, (spoken,) = model.generate_voice_clone(
        "Hello there.", voice_clone_prompt=item, max_new_tokens=frames + 1, return_codes=True, seed=1, temperature=5.0
    )
    assert len(spoken) == frames  # hot enough not to end before
    assert len(wav) == frames * 1920 + early
    (both,), _ = model.speech_tokenizer.decode({"audio_codes": np.concatenate([codes, spoken])})
    np.testing.assert_array_equal(wav, both[reference * 1920 - early :])


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("limit", [1, 2, 3, 6])
def test_n_new_tokens_are_n_minus_1_frames(load: Load, limit: int, backend: str) -> None:
    model = load("tiny", "custom_voice", backend=backend)
    _, _, codes = model.generate_custom_voice(
        "Hello.", "vivian", max_new_tokens=limit, return_codes=True, seed=0, temperature=5.0
    )
    assert len(codes[0]) == limit - 1


@pytest.mark.parametrize("streaming", [False, True])
def test_a_batch_seeded_item_by_item_equals_single_runs(load: Load, streaming: bool) -> None:
    model = load("tiny-1.7b", "custom_voice")
    texts, seeds = ["Hello there.", "你好。", "A rather longer sentence than the others."], [11, 5, 2**40]
    options: dict[str, Any] = {"max_new_tokens": 12, "non_streaming_mode": not streaming, "return_codes": True}
    wavs, _, codes = model.generate_custom_voice(texts, "ryan", seed=seeds, **options)
    for i, (text, seed) in enumerate(zip(texts, seeds, strict=True)):
        alone, _, code = model.generate_custom_voice(text, "ryan", seed=[seed], **options)
        np.testing.assert_array_equal(code[0], codes[i])
        np.testing.assert_array_equal(alone[0], wavs[i])
        # and one seed for a batch of one is the same stream
        np.testing.assert_array_equal(model.generate_custom_voice(text, "ryan", seed=seed, **options)[2][0], code[0])


def test_another_seed_gives_other_codes(load: Load) -> None:
    model = load("tiny", "custom_voice")
    options: dict[str, Any] = {"max_new_tokens": 6, "return_codes": True}
    a, b = (model.generate_custom_voice("Hello.", "ryan", seed=seed, **options)[2][0] for seed in (1, 2))
    assert not np.array_equal(a, b)


def test_float64_gives_the_greedy_codes_of_float32(load: Load) -> None:
    runs = [
        load("tiny", "custom_voice", dtype).generate_custom_voice(
            "Hello there.", "vivian", max_new_tokens=8, return_codes=True, **GREEDY
        )
        for dtype in ("float32", "float64")
    ]
    np.testing.assert_array_equal(runs[0][2][0], runs[1][2][0])
    np.testing.assert_allclose(runs[0][0][0], runs[1][0][0], rtol=0, atol=1e-5)  # float32 noise of the codec


def test_a_voice_prompt_is_reusable_in_every_form(load: Load) -> None:
    model = load("tiny", "base")
    items = model.create_voice_clone_prompt([clip(5000), clip(7000, 1)], ["One.", "Two."])
    options: dict[str, Any] = {"max_new_tokens": 4, **GREEDY}
    direct, _ = model.generate_voice_clone(
        ["a", "b"], ref_audio=[clip(5000), clip(7000, 1)], ref_text=["One.", "Two."], **options
    )
    as_items, _ = model.generate_voice_clone(["a", "b"], voice_clone_prompt=items, **options)
    as_dict, _ = model.generate_voice_clone(
        ["a", "b"],
        voice_clone_prompt={
            "ref_code": [item.ref_code for item in items],
            "ref_spk_embedding": [item.ref_spk_embedding for item in items],
            "x_vector_only_mode": [False, False],
            "icl_mode": [True, True],
            "ref_text": ["One.", "Two."],
        },
        **options,
    )
    for other in (as_items, as_dict):
        for a, b in zip(direct, other, strict=True):
            np.testing.assert_array_equal(a, b)
    one, _ = model.generate_voice_clone(["a", "b"], voice_clone_prompt=items[0], **options)
    assert len(one) == 2


def test_stereo_and_mono_references_of_one_sound_are_one_voice(load: Load) -> None:
    model = load("tiny", "base")
    wave, rate = clip(6000)
    mono, stereo = (
        model.create_voice_clone_prompt((w, rate), x_vector_only_mode=True)[0].ref_spk_embedding
        for w in (wave, np.stack([wave, wave], axis=1))
    )
    np.testing.assert_array_equal(mono, stereo)


def test_instructions_are_dropped_with_a_warning_on_0_6b_only(load: Load) -> None:
    def codes(size: str, instruct: str) -> np.ndarray:
        model = load(size, "custom_voice")
        return model.generate_custom_voice(
            "Hello.", "vivian", instruct=instruct, max_new_tokens=6, return_codes=True, **GREEDY
        )[2][0]

    with pytest.warns(UserWarning, match="instruct is ignored"):
        dropped = codes("tiny", "Very happy!")
    np.testing.assert_array_equal(dropped, codes("tiny", ""))
    assert not np.array_equal(codes("tiny-1.7b", "Very happy!"), codes("tiny-1.7b", ""))


def test_trace_keeps_what_it_is_asked_for_in_order(load: Load) -> None:
    model = load("tiny", "custom_voice")
    with trace("talker.model.layers.0.self_attn.?_norm", "talker.codec_head") as t:
        model.generate_custom_voice("Hello.", "vivian", max_new_tokens=3, **GREEDY)
    names = ["talker.model.layers.0.self_attn.q_norm", "talker.model.layers.0.self_attn.k_norm", "talker.codec_head"]
    assert list(t) == [f"{name}@{n}" for n in range(3) for name in names]
    assert t[f"{names[0]}@1"].shape == (1, 4, 32)


@pytest.mark.parametrize(
    ("call", "arguments", "sentence"),
    [
        (CUSTOM, {"speaker": "Bob"}, r"speaker 'Bob' is not in this model; it has aiden, "),
        (CUSTOM, {"speaker": "ryan", "language": "Klingon"}, "language 'Klingon' is not"),
        (CUSTOM, {"speaker": "ryan", "language": "sichuan_dialect"}, "is not in this"),
        (CUSTOM, {"speaker": ["ryan"] * 3}, "speaker has 3 values for 1 items"),
        (CUSTOM, {"speaker": "ryan", "seed": [1, 2]}, "seed has 2 values for 1 items"),
        (CUSTOM, {"speaker": "ryan", "beams": 4}, "there is no argument 'beams'"),
        (CUSTOM, {"speaker": "ryan", "max_new_tokens": 0}, "max_new_tokens=0 must be"),
        (CUSTOM, {"speaker": "ryan", "temperature": 0}, "temperature=0 must be"),
        (CUSTOM, {"speaker": "ryan", "text": 5}, "text"),
        (CUSTOM, {"speaker": "ryan", "text": []}, "at least one text"),
        (("custom_voice", "generate_voice_design"), {"instruct": ""}, "this is a custom_voice model"),
        (("custom_voice", "generate_voice_clone"), {"ref_audio": clip(4000)}, "needs a base model"),
        (CLONE, {}, "give ref_audio or voice_clone_prompt"),
        (CLONE, {"ref_audio": clip(4000)}, "ref_text of item 0 is missing"),
        (CLONE, {"ref_audio": clip(100), "x_vector_only_mode": True}, "100 samples at 24000 Hz"),
        (CLONE, {"voice_clone_prompt": {"ref_code": []}}, "needs 'ref_spk_embedding'"),
        (CLONE, {"voice_clone_prompt": 3}, "voice_clone_prompt is int"),
    ],
)
def test_what_a_model_cannot_do_is_said_in_one_sentence(
    load: Load, call: tuple[str, str], arguments: dict[str, Any], sentence: str
) -> None:
    kind, method = call
    with pytest.raises(RequestError, match=sentence) as error:
        getattr(load("tiny", kind), method)(**{"text": "Hello.", **arguments})
    assert "\n" not in str(error.value)


def test_a_voice_of_another_width_is_refused(load: Load) -> None:
    voice = VoiceClonePromptItem(None, np.zeros(3, np.float32), True, False)
    with pytest.raises(RequestError, match=r"shape \[3\], this model needs \[64\]"):
        load("tiny", "base").generate_voice_clone("Hello.", voice_clone_prompt=voice)


def test_context_without_its_transcript_is_refused() -> None:
    with pytest.raises(RequestError, match="ref_text is missing"):
        VoiceClonePromptItem(np.zeros((1, 16), np.int64), np.zeros(4, np.float32), False, True)


def test_arguments_of_pytorch_are_accepted_ignored_or_refused(synthetic: Callable[..., Path]) -> None:
    directory = synthetic("tiny", "custom_voice")
    with pytest.warns(UserWarning, match="attn_implementation has no effect"):
        Qwen3TTSModel.from_pretrained(str(directory), device_map="cpu", attn_implementation="flash_attention_2")
    with pytest.warns(UserWarning, match="runs on the CPU only"):
        Qwen3TTSModel.from_pretrained(directory, device_map="cuda:0")
    with pytest.warns(UserWarning, match="computing in float32"):
        Qwen3TTSModel.from_pretrained(directory, dtype="torch.bfloat16")
    for arguments, sentence in (
        ({"colour": "red"}, "no argument 'colour'"),
        ({"dtype": "int8"}, "use float32 or float64"),
        ({"backend": "gpu"}, "backend='gpu'"),
        ({"weights_format": "int3"}, "weights_format='int3'"),
        ({"weights_format": "int4", "dtype": "float64"}, "which need float32"),
        ({"backend": "compiled", "dtype": "float64"}, "the kernels need float32"),
        ({"threads": 0}, "threads=0"),
    ):
        with pytest.raises(RequestError, match=sentence):
            Qwen3TTSModel.from_pretrained(directory, **arguments)


def test_speakers_and_languages_are_listed(load: Load) -> None:
    model = load("tiny", "custom_voice")
    assert model.get_supported_speakers()[:3] == ["aiden", "dylan", "eric"]
    assert "auto" in model.get_supported_languages()
    assert not any("dialect" in name for name in model.get_supported_languages())
