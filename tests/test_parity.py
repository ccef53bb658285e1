"""The model against the goldens: codes equal, activations and waveforms within the tolerance stored with each case."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from parity import Case, assert_matches, case_names, changed, checkpoint_of, load_case

from qwen3tts_np import Qwen3TTSModel, trace
from qwen3tts_np.ops import rope_angles
from qwen3tts_np.talker.talker import text_projection
from qwen3tts_np.text.templates import reference_ids, text_ids

pytestmark = pytest.mark.usefixtures("all_cores")
Load = Callable[..., Qwen3TTSModel]
ACTIVATIONS = list(case_names("activations"))
SPEECH = [n for n in case_names() if not n.startswith(("activations", "encode", "decode"))]
ENCODE, DECODE = list(case_names("encode")), list(case_names("decode"))
# The prompt is looked up in one piece here and piece by piece there; test_prompts compares what comes of it.
PROMPT = ("talker.model.text_embedding", "talker.text_projection")
# What no function of ours returns, and what is compared instead.
ELSEWHERE = {
    "prompt": "inputs_embeds",
    "rotary_emb": "test_rotary_tables",
    ".input": "the codes themselves, or the output of the module before",
}


@pytest.fixture(scope="session")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    folder = tmp_path_factory.mktemp("parity")

    @cache
    def model(directory: Path, options: tuple[tuple[str, str], ...]) -> Qwen3TTSModel:
        return Qwen3TTSModel.from_pretrained(directory, **dict(options))

    def loaded(case: Case, **options: str) -> Qwen3TTSModel:
        return model(checkpoint_of(case.json, folder), tuple({"backend": "reference", **options}.items()))

    return loaded


def speak(model: Qwen3TTSModel, case: Case, **changed: Any) -> tuple[list[Any], int, list[Any]]:
    call = case.json["call"]
    arguments = {**case.arguments(), "seed": call["seed"], "return_codes": True, **changed}
    if case.name == "custom_voice_instruct_dropped":
        with pytest.warns(UserWarning, match="instruct is ignored"):
            return getattr(model, call["method"])(**arguments)
    return getattr(model, call["method"])(**arguments)


def traced(model: Qwen3TTSModel, case: Case) -> dict[str, Any]:
    with trace() as t:
        speak(model, case)
    return {name: array for name, array in t.items() if not name.startswith(PROMPT)}


def parts_of_wave(case: Case, i: int, wave: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """What is recorded of a waveform: all samples or, if it is long, windows, and mean and deviation of each frame."""
    names = [name for name in case.names if name == f"wav.{i}" or name.startswith((f"wav.{i}[", f"wav.{i}."))]
    assert names
    for name in names:
        if name.endswith("]"):
            start, stop = map(int, name[:-1].split("[")[1].split(":"))
            yield name, wave[start:stop]
        elif name.endswith(".frames"):
            frames = wave.reshape(-1, 1920).astype(np.float64)
            yield name, np.stack([frames.mean(axis=1), frames.std(axis=1)], axis=1)
        else:
            yield name, wave


def check_wave(case: Case, i: int, wave: np.ndarray) -> None:
    for name, part in parts_of_wave(case, i, wave):
        case.check(name, part)


@pytest.mark.parametrize("name", SPEECH + ACTIVATIONS)
def test_codes_and_waveforms(load: Load, name: str) -> None:
    case = load_case(name)
    wavs, rate, codes = speak(load(case), case)
    assert rate == case.json["outcome"]["sample_rate"]
    assert [len(c) for c in codes] == case.json["outcome"]["frames"]
    for i, (wave, code) in enumerate(zip(wavs, codes, strict=True)):
        case.check(f"codes.{i}", code)
        check_wave(case, i, wave)


@pytest.mark.parametrize("name", [n for n in SPEECH if "batch" in n or "sampled" in n])
def test_float64_gives_the_same_codes(load: Load, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Qwen3TTSModel, "decode", lambda *_, **__: np.zeros(0))  # nobody looks at samples here
    case = load_case(name)
    for i, code in enumerate(speak(load(case, dtype="float64"), case)[2]):
        case.check(f"codes.{i}", code)


@pytest.mark.parametrize("weights_format", ["bfloat16", "float32"])
@pytest.mark.parametrize("name", SPEECH + ACTIVATIONS)
def test_compiled_codes(load: Load, name: str, weights_format: str) -> None:
    case = load_case(name)
    model = load(case, backend="compiled", weights_format=weights_format)
    wavs, _, codes = speak(model, case)
    for i, (wave, code) in enumerate(zip(wavs, codes, strict=True)):
        case.check(f"codes.{i}", code)
        # The kernels filter with fewer products and sum in another order: 6e-6 at worst on the full-size codec.
        for part, values in parts_of_wave(case, i, wave):
            assert_matches(f"{name}: {part}", values, case[part], atol=2e-5)


@pytest.mark.parametrize("name", SPEECH + ACTIVATIONS)
def test_prompts(load: Load, name: str) -> None:
    """Token ids, and the talker's input for the whole prompt of every item."""
    case = load_case(name)
    model = load(case)
    texts = case.json["call"]["arguments"]["text"]
    for i, text in enumerate(texts if isinstance(texts, list) else [texts]):
        ids = text_ids(model.text_tokenizer, text)
        case.check(f"input_ids.{i}", np.array([*ids.role, *ids.text, *ids.tail]))
    with trace("talker.model.inputs_embeds") as t:
        speak(model, case, max_new_tokens=1)  # which is the prompt and no frame
    prefills = list(t.values())
    assert len(prefills) == len(case.json["outcome"]["frames"])
    for i, prefill in enumerate(prefills):
        case.check(f"inputs_embeds.{i}", prefill)


@pytest.mark.parametrize("name", [n for n in SPEECH if n.startswith("clone")])
def test_voice_prompts(load: Load, name: str) -> None:
    case = load_case(name)
    model = load(case)
    given = {k: v for k, v in case.arguments().items() if k in ("ref_audio", "ref_text", "x_vector_only_mode")}
    for i, item in enumerate(model.create_voice_clone_prompt(**given)):
        case.check(f"speaker_embedding.{i}", item.ref_spk_embedding)
        relative = np.linalg.norm(item.ref_spk_embedding - case[f"speaker_embedding.{i}"])
        assert relative <= 1e-5 * np.linalg.norm(case[f"speaker_embedding.{i}"])
        if item.ref_code is not None:
            case.check(f"ref_codes.{i}", item.ref_code)
            assert item.ref_text is not None
            ids = np.array(reference_ids(model.text_tokenizer, item.ref_text))
            np.testing.assert_array_equal(ids, case[f"ref_ids.{i}"][3:-2])


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation(load: Load, name: str) -> None:
    case = load_case(name)
    t = traced(load(case), case)
    case.check_trace(t)
    left = [n for n in case.missing(t) if not n.startswith(PROMPT) and not any(part in n for part in ELSEWHERE)]
    assert left == []


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_text_projection_of_every_piece_of_the_prompt(load: Load, name: str) -> None:
    case = load_case(name)
    w = load(case).frame_loop.weights.talker
    pieces = [n for n in case.names if n.startswith("talker.model.text_embedding") and ".input@" in n]
    assert pieces
    for piece in pieces:
        ids = case[piece].reshape(-1)
        expected = case[piece.replace(".input@", "@").replace("model.text_embedding", "text_projection")]
        case_name = piece.replace(".input@", "@").replace("model.text_embedding", "text_projection")
        assert_matches(piece, text_projection(w, ids), expected.reshape(len(ids), -1), atol=case.atol(case_name))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_rotary_tables(load: Load, name: str) -> None:
    """The official tables hold each angle twice, for both halves of a head."""
    case = load_case(name)
    c = load(case).config.talker_config
    names = [n for n in case.names if n.startswith("talker.model.rotary_emb.cos@")]
    assert len(names) > 1  # the prompt and at least one frame
    for cos_name in names:
        step, expected = int(cos_name.rpartition("@")[2]), case[cos_name]
        prompt = len(case["inputs_embeds.0"])
        positions = np.arange(prompt) if step == 0 else np.array([prompt + step - 1])
        cos, sin = rope_angles(positions, c.head_dim, c.rope_theta)
        case.check(cos_name, np.concatenate([cos, cos], axis=1).reshape(expected.shape))
        case.check(cos_name.replace("cos", "sin"), np.concatenate([sin, sin], axis=1).reshape(expected.shape))


def with_one_weight_off(model: Qwen3TTSModel, path: str) -> Qwen3TTSModel:
    return changed(model, path, lambda w: w * np.float32(1.001))


@pytest.mark.parametrize(
    ("name", "path", "first"),
    [
        (
            "activations_custom_voice",
            "frame_loop.weights.talker.layers.1.self_attn.k_norm",
            "talker.model.layers.1.self_attn.k_norm",
        ),
        (
            "activations_instruct",
            "frame_loop.weights.code_predictor.layers.0.self_attn.q_norm",
            "talker.code_predictor.model.layers.0.self_attn.q_norm",
        ),
        ("activations_clone", "speaker_encoder.fc.weight", "speaker_encoder.fc"),
        (
            "activations_clone",
            "speech_tokenizer.encoder.weights.layers.1.fc2",
            "speech_tokenizer.encoder.encoder_transformer.layers.1.mlp.fc2",
        ),
        (
            "activations_custom_voice",
            "speech_tokenizer.decoder.weights.upsample.1.convnext.pwconv1",
            "speech_tokenizer.decoder.upsample.1.1.pwconv1",
        ),
    ],
)
def test_one_weight_off_by_a_thousandth_is_found_where_it_is(load: Load, name: str, path: str, first: str) -> None:
    case = load_case(name)
    t = traced(with_one_weight_off(load(case), path), case)
    with pytest.raises(AssertionError, match=f"{name}: {first}@0: worst at"):
        case.check_trace(t)


@pytest.mark.parametrize("name", ENCODE)
def test_encode(load: Load, name: str) -> None:
    """Codes are equal; no official distance in these clips comes near a tie (``closest_codebook_entries``)."""
    case = load_case(name)
    codes = load(case).speech_tokenizer.encode(**case.arguments()).audio_codes
    for i, code in enumerate(codes):
        case.check(f"codes.{i}", code)
    assert case.json["outcome"]["closest_codebook_entries"] > 4 * case.json["outcome"]["distance_error"]


@pytest.mark.parametrize("name", DECODE)
def test_decode(load: Load, name: str) -> None:
    case = load_case(name)
    wavs, rate = load(case).speech_tokenizer.decode(case.arguments())
    assert rate == case.json["outcome"]["sample_rate"]
    for i, wave in enumerate(wavs):
        check_wave(case, i, wave)


def test_a_decode_that_does_not_restart_is_found(load: Load) -> None:
    """The twin of the above: one pass over 340 frames is another waveform after frame 300, and the golden sees it."""
    case = load_case("decode_340")
    (wave,), _ = load(case).speech_tokenizer.decode(case.arguments(), continuous=True)
    with pytest.raises(AssertionError, match="worst at"):
        check_wave(case, 0, wave)


def test_no_greedy_choice_was_a_near_tie() -> None:
    """Equal codes mean something only while the official margins are wider than the official noise."""
    for name in SPEECH + ACTIVATIONS:
        outcome = load_case(name).json["outcome"]
        assert outcome["closest_choice"] > 4 * outcome["logit_error"], name
