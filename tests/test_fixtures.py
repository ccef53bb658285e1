"""Fixtures: what is exported is what the model computes, a step needs only its inputs, and compare finds things."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from parity import CASES, assert_matches
from qwen3tts_np_kernels.bfloat16 import round_ref, widen_ref

from qwen3tts_np import ConfigError, Qwen3TTSModel, RequestError, cli, ops
from qwen3tts_np.audio.files import write_audio
from qwen3tts_np.codec.decoder import DILATIONS, snake
from qwen3tts_np.generate import embed_frame
from qwen3tts_np.inspect.request_file import read_request
from qwen3tts_np.mlp import mlp
from qwen3tts_np.parity.causes import CAUSES, PLACES
from qwen3tts_np.parity.compare import Comparison, compare
from qwen3tts_np.parity.export import export
from qwen3tts_np.parity.fixture import Fixture, read_fixture, renamed
from qwen3tts_np.parity.ladder import RUNGS
from qwen3tts_np.parity.report import as_html, as_json, as_markdown, as_text
from qwen3tts_np.parity.steps import Step
from qwen3tts_np.talker.cache import LayerCache
from qwen3tts_np.talker.code_predictor import last_logits, predict_frame
from qwen3tts_np.talker.talker import new_cache, read, text_projection

GREEDY = {"do_sample": False, "subtalker_dosample": False}


def request_file(folder: Path, method: str, arguments: dict[str, Any], **more: Any) -> Path:
    path = folder / "request.json"
    path.write_text(json.dumps({"method": method, "arguments": arguments, **more}))
    return path


def speech(folder: Path, **more: Any) -> Path:
    arguments = {"text": "Hello world", "speaker": "vivian", "max_new_tokens": 4, **GREEDY}
    return request_file(folder, "generate_custom_voice", arguments, **more)


@pytest.fixture
def model(synthetic: Any) -> Path:
    return synthetic("tiny", "custom_voice")


@pytest.fixture
def base(synthetic: Any) -> Path:
    return synthetic("tiny", "base")


@pytest.fixture(scope="module")
def whole(synthetic: Any, tmp_path_factory: Any) -> Fixture:
    """Everything of a short greedy request."""
    folder = tmp_path_factory.mktemp("whole")
    export(synthetic("tiny", "custom_voice"), read_request(speech(folder)), folder / "fixture")
    return read_fixture(folder / "fixture")


# --- export ---


@pytest.mark.parametrize("storage", ["safetensors", "npy", "raw"])
def test_all_formats_hold_the_same(storage: str, model: Path, whole: Fixture, tmp_path: Path) -> None:
    export(model, read_request(speech(tmp_path)), tmp_path / "out", ("talker.model.layers.0.*",), storage)
    found = read_fixture(tmp_path / "out")
    layer = [name for name in whole.tensors if name.startswith("talker.model.layers.0.")]
    assert len(layer) > 40
    assert [name for name in found.tensors if name in layer] == layer, "in the order of execution"
    for name, tensor in found.tensors.items():
        assert tensor.tobytes() == whole.tensors[name].tobytes()
        assert found.atol(name) == whole.atol(name)


@pytest.mark.parametrize("storage", ["npy", "raw"])
def test_inputs_are_in_that_format_too(storage: str, base: Path, tmp_path: Path) -> None:
    """And what is written is a request again."""
    np.save(tmp_path / "codes.npy", np.random.RandomState(0).randint(0, 128, (3, 16)))
    request = request_file(tmp_path, "decode", {"audio_codes": {"codes": "codes.npy"}})
    export(base, read_request(request), tmp_path / "out", ("nothing",), storage)
    assert not list((tmp_path / "out").rglob("*.safetensors"))
    found = read_fixture(tmp_path / "out")
    again = read_request(tmp_path / "out")
    assert found.inputs.keys() == again.inputs.keys() == {"given_codes.0"}
    for inputs in (found.inputs, again.inputs):
        assert (inputs["given_codes.0"] == np.load(tmp_path / "codes.npy")).all()


def test_inputs_of_older_cases_are_safetensors(base: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "codes.npy", np.zeros((2, 16), int))
    request = request_file(tmp_path, "decode", {"audio_codes": {"codes": "codes.npy"}})
    export(base, read_request(request), tmp_path / "out", ("nothing",), "raw")
    (tmp_path / "out" / "inputs.bin").unlink()
    codes = {"given_codes.0": np.ones((2, 16), np.int32)}
    safetensors.numpy.save_file(codes, tmp_path / "out" / "inputs.safetensors")
    assert read_fixture(tmp_path / "out").inputs["given_codes.0"].all()
    assert read_request(tmp_path / "out").inputs["given_codes.0"].all()


@pytest.mark.parametrize("damage", [{"shape": [9, 16]}, {"dtype": "nonsense"}, {"offset": "x"}, None])
def test_damaged_inputs_of_a_case_are_refused(damage: Any, base: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "codes.npy", np.zeros((2, 16), int))
    request = request_file(tmp_path, "decode", {"audio_codes": {"codes": "codes.npy"}})
    export(base, read_request(request), tmp_path / "out", ("nothing",), "raw")
    case = json.loads((tmp_path / "out" / "case.json").read_text())
    case["inputs"]["given_codes.0"] = None if damage is None else case["inputs"]["given_codes.0"] | damage
    (tmp_path / "out" / "case.json").write_text(json.dumps(case))
    with pytest.raises(RequestError, match="cannot be read"):
        read_request(tmp_path / "out")


def test_raw_is_read_with_nothing_but_the_index(model: Path, whole: Fixture, tmp_path: Path) -> None:
    export(model, read_request(speech(tmp_path)), tmp_path / "out", ("talker.codec_head",), "raw")
    table = json.loads((tmp_path / "out" / "case.json").read_text())["tensors"]
    data = (tmp_path / "out" / "expected.bin").read_bytes()
    entry = table["talker.codec_head@1"]
    values = np.frombuffer(data[entry["offset"] : entry["offset"] + entry["bytes"]], "<f4").reshape(entry["shape"])
    assert entry["dtype"] == "float32"
    assert (values == whole.tensors["talker.codec_head@1"]).all()


def test_the_manifest_says_what_it_is(whole: Fixture, model: Path) -> None:
    m = whole.manifest
    assert m["call"]["method"] == "generate_custom_voice"
    assert m["checkpoint"]["sha256"].keys() == {"model.safetensors", "speech_tokenizer/model.safetensors"}
    assert m["generator"] is None, "nothing was drawn"
    assert list(m["tensors"]) == list(whole.tensors)
    for name, entry in m["tensors"].items():
        assert entry["shape"] == list(whole.tensors[name].shape)
        assert entry["dtype"] == whole.tensors[name].dtype.name
        if entry["dtype"].startswith("float") and entry.get("check", True):
            # An atol that could hide a mistake would be no use: a thousandth of the values at most.
            assert 0 < entry["atol"] <= 1e-3 * max(entry["peak"], 1e-6), name


def test_a_seeded_request_names_its_generator(model: Path, tmp_path: Path) -> None:
    arguments = {"text": "Hello", "speaker": "vivian", "max_new_tokens": 3}
    path = request_file(tmp_path, "generate_custom_voice", arguments, seed=7)
    export(model, read_request(path), tmp_path / "out", ("talker.scores", "talker.token"))
    found = read_fixture(tmp_path / "out")
    assert found.manifest["generator"]["seed"] == found.manifest["call"]["seed"] == "7"
    (_, _, codes) = Qwen3TTSModel.from_pretrained(model, backend="reference").generate_custom_voice(
        **arguments, seed=7, return_codes=True
    )
    assert (found.tensors["codes.0"] == codes[0]).all()


@pytest.mark.parametrize(
    "name",
    ["activations_custom_voice", "activations_instruct", "decode_7", "encode_16k", "clone_x_vector", "sampled_seed"],
)
def test_a_golden_case_is_a_request_and_the_official_tensors_agree(name: str, synthetic: Any, tmp_path: Path) -> None:
    golden = read_fixture(CASES / name)
    wanted = golden.manifest["checkpoint"]
    export(synthetic(wanted["like"], wanted["type"]), read_request(CASES / name / "case.json"), tmp_path / "out")
    ours = read_fixture(tmp_path / "out")
    assert ours.manifest["checkpoint"]["like"] == wanted["like"], "the same weights, so it says how to make them"
    found = compare(golden, ours)
    assert found.first is None, as_text(found)
    assert {row.name for row in found.compared} & {"codes.0", "wav.0"}


def test_clones_with_a_file_next_to_the_request(base: Path, tmp_path: Path) -> None:
    t = np.arange(20000) / 24000
    write_audio(tmp_path / "clip.wav", (0.3 * np.sin(1500 * t * (1 + t))).astype(np.float32), 24000)
    clip = {"ref_audio": {"audio": "clip.wav"}, "ref_text": "It is"}
    arguments = {"text": "Hello", **clip, "max_new_tokens": 3, **GREEDY}
    export(base, read_request(request_file(tmp_path, "generate_voice_clone", arguments)), tmp_path / "clone")
    names = read_fixture(tmp_path / "clone").tensors
    parts = ("speaker_encoder.mel@0", "speech_tokenizer.encoder.downsample@0", "talker.codec_head@1", "wav.0")
    assert all(part in names for part in parts)
    embedding = request_file(tmp_path, "speaker_embedding", {"audio": {"audio": "clip.wav"}})
    export(base, read_request(embedding), tmp_path / "embedding")
    found = read_fixture(tmp_path / "embedding").tensors
    assert (found["speaker_embedding.0"] == names["speaker_encoder@0"]).all()
    assert not any(name.startswith("talker") for name in found)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"method": "sing", "arguments": {}}, "method 'sing' is not one of"),
        ({"blocks.*.q": "talker.*"}, r"is no request: it has 'blocks\.\*\.q', and no 'method' or 'text'"),
        ([1], "request .* a JSON object was expected, found list"),
        ({"method": "decode"}, "'arguments' must be an object"),
        ({"method": "generate_custom_voice", "arguments": {"text": ["a", "b"]}}, "has one item, this one has 2"),
        ({"method": "decode", "arguments": {"audio_codes": {"codes": "gone.npy"}}}, "gone.npy cannot be read"),
    ],
)
def test_what_is_no_request_is_refused(content: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "request.json"
    path.write_text(json.dumps(content))
    with pytest.raises((RequestError, ConfigError), match=message):
        read_request(path)


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("generate_custom_voice", {"speaker": "vivian"}, "missing a required argument: 'text'"),
        ("generate_custom_voice", {"text": "a", "speaker": "vivian", "speed": 2}, "there is no argument 'speed'"),
        ("encode", {"audio": "x"}, "encode: "),
        ("decode", {"codes": 3}, "decode takes the argument 'audio_codes' alone"),
        ("generate_voice_design", {"text": "a", "instruct": "b"}, "needs a voice_design model"),
    ],
)
def test_arguments_that_a_call_does_not_take_are_refused(
    method: str, arguments: dict[str, Any], message: str, model: Path, tmp_path: Path
) -> None:
    with pytest.raises(RequestError, match=message):
        export(model, read_request(request_file(tmp_path, method, arguments)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_voice_design(synthetic: Any, tmp_path: Path) -> None:
    arguments = {"text": "Hello", "instruct": "Calm.", "language": "german", "max_new_tokens": 2, **GREEDY}
    request = read_request(request_file(tmp_path, "generate_voice_design", arguments))
    export(synthetic("tiny-1.7b", "voice_design"), request, tmp_path / "out", ("talker.model.inputs_embeds",))
    found = read_fixture(tmp_path / "out").tensors
    assert "instruct_ids.0" in found
    assert "talker.model.inputs_embeds@0" in found


# --- teacher forcing ---


def test_given_codes_are_followed(model: Path, whole: Fixture, tmp_path: Path) -> None:
    """Other codes give other ranks, and the first frame's logits do not know about them."""
    codes = np.random.RandomState(3).randint(0, 128, (4, 16))
    np.save(tmp_path / "codes.npy", codes)
    export(model, read_request(speech(tmp_path), tmp_path / "codes.npy"), tmp_path / "out")
    found = read_fixture(tmp_path / "out")
    assert (found.tensors["codes.0"] == codes).all()
    assert (found.inputs["forced_codes"] == codes).all()
    assert (found.tensors["talker.codec_head@0"] == whole.tensors["talker.codec_head@0"]).all()
    assert (found.tensors["talker.codec_head@1"] != whole.tensors["talker.codec_head@1"]).any()
    for t in range(4):
        logits = found.tensors[f"talker.codec_head@{t}"][0]
        assert found.tensors["ranks.talker"][t] == (logits > logits[codes[t, 0]]).sum()
        for g in range(15):
            logits = found.tensors[f"talker.code_predictor.lm_head.{g}@{t}"][0]
            best = np.delete(logits, codes[t, g + 1]).max()
            assert found.tensors["ranks.code_predictor"][t, g] == (logits > logits[codes[t, g + 1]]).sum()
            assert found.tensors["margins.code_predictor"][t, g] == pytest.approx(logits[codes[t, g + 1]] - best, 1e-5)


def test_following_its_own_codes_changes_nothing(model: Path, whole: Fixture, tmp_path: Path) -> None:
    np.save(tmp_path / "codes.npy", whole.tensors["codes.0"])
    export(model, read_request(speech(tmp_path), tmp_path / "codes.npy"), tmp_path / "out", float64=False)
    found = read_fixture(tmp_path / "out")
    last = f"talker.token@{len(whole.tensors['codes.0'])}"  # forced codes end with the end of speech
    for name in whole.tensors:
        assert name == last or (found.tensors[name] == whole.tensors[name]).all(), name
    assert (whole.tensors["ranks.code_predictor"] == 0).all(), "greedy codes are the best ones"
    assert (whole.tensors["margins.code_predictor"] > 0).all()


def test_the_encoder_follows_given_codes(base: Path, tmp_path: Path) -> None:
    t = np.arange(9600) / 24000
    write_audio(tmp_path / "clip.wav", (0.3 * np.sin(1500 * t * (1 + t))).astype(np.float32), 24000)
    request = request_file(tmp_path, "encode", {"audios": {"audio": "clip.wav"}})
    export(base, read_request(request), tmp_path / "free")
    free = read_fixture(tmp_path / "free").tensors
    assert (free["ranks.encoder"] == 0).all(), "the nearest entry is taken"
    assert (free["margins.encoder"] >= 0).all()
    codes = free["codes.0"].copy()
    codes[:, 2] = (codes[:, 2] + 1) % 128  # one wrong layer: those before it stay, those after it see another residual
    np.save(tmp_path / "codes.npy", codes)
    export(base, read_request(request, tmp_path / "codes.npy"), tmp_path / "forced")
    forced = read_fixture(tmp_path / "forced").tensors
    assert (forced["codes.0"] == codes).all()
    assert (forced["ranks.encoder"][:, :2] == 0).all()
    assert (forced["ranks.encoder"][:, 2] > 0).all()
    layers = "speech_tokenizer.encoder.quantizer.acoustic_residual_vector_quantizer.layers"
    assert (forced[f"{layers}.1.residual@0"] == free[f"{layers}.1.residual@0"]).all()
    assert (forced[f"{layers}.2.residual@0"] != free[f"{layers}.2.residual@0"]).any()


@pytest.mark.parametrize(
    ("codes", "message"),
    [(np.zeros((2, 15), int), "expected integers"), (np.full((2, 16), 128), "is not from 0 to 127")],
)
def test_codes_that_no_model_has_are_refused(codes: Any, message: str, model: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "codes.npy", codes)
    with pytest.raises(RequestError, match=message):
        export(model, read_request(speech(tmp_path), tmp_path / "codes.npy"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- steps: run again from their inputs alone ---


def cache_of(step: Fixture, layer: int) -> LayerCache:
    cache = LayerCache()
    cache.append(step.inputs[f"past_key.{layer}"], step.inputs[f"past_value.{layer}"])
    return cache


def check(step: Fixture, name: str, found: Any) -> None:
    """A step cut out of a longer run: matrix products of one row may sum in another order than those of many."""
    assert_matches(name, np.asarray(found).reshape(step.tensors[name].shape), step.tensors[name], atol=step.atol(name))


def test_a_talker_step_needs_only_its_inputs(model: Path, tmp_path: Path) -> None:
    export(model, read_request(speech(tmp_path)), tmp_path / "out", step=Step("talker", frame=2))
    step = read_fixture(tmp_path / "out")
    loaded = Qwen3TTSModel.from_pretrained(model, backend="reference")
    c, w = loaded.config.talker_config, loaded.frame_loop.weights.talker
    caches = [cache_of(step, i) for i in range(c.num_hidden_layers)]
    assert [cache.length for cache in caches] == [int(step.inputs["position"][0])] * len(caches)
    hidden, logits = read(step.inputs["inputs_embeds"], w, caches, c)
    check(step, "talker.model.norm@0", hidden)
    check(step, "talker.codec_head@0", logits)
    for i, cache in enumerate(caches):
        nothing = np.zeros((0, *step.inputs["past_key.0"].shape[1:]), np.float32)
        keys, values = cache.append(nothing, nothing)
        check(step, f"present_key.{i}", keys)
        check(step, f"present_value.{i}", values)


@pytest.mark.parametrize("like", ["tiny", "tiny-1.7b"])
def test_a_code_predictor_step_needs_only_its_inputs(like: str, synthetic: Any, tmp_path: Path) -> None:
    """On 1.7B the input has the talker's width, and the projection is part of the step."""
    model = synthetic(like, "custom_voice")
    export(model, read_request(speech(tmp_path)), tmp_path / "out", step=Step("code_predictor", frame=1, group=5))
    step = read_fixture(tmp_path / "out")
    loaded = Qwen3TTSModel.from_pretrained(model, backend="reference")
    c, w = loaded.config.talker_config.code_predictor_config, loaded.frame_loop.weights.code_predictor
    assert step.inputs["position"] == [5]  # two first inputs, then codes 1 to 3
    caches = [cache_of(step, i) for i in range(c.num_hidden_layers)]
    logits = last_logits(step.inputs["inputs_embeds"], w, w.lm_head[4].weight, caches, c, 4)
    check(step, "talker.code_predictor.lm_head.4@0", logits)


def test_the_first_call_of_the_code_predictor_has_two_inputs(model: Path, tmp_path: Path) -> None:
    export(model, read_request(speech(tmp_path)), tmp_path / "out", step=Step("code_predictor", frame=1, group=1))
    step = read_fixture(tmp_path / "out")
    loaded = Qwen3TTSModel.from_pretrained(model, backend="reference")
    c, w = loaded.config.talker_config.code_predictor_config, loaded.frame_loop.weights.code_predictor
    assert step.inputs["position"].tolist() == [0, 1]
    assert step.inputs["past_key.0"].shape[0] == 0
    caches = new_cache(c)
    logits = last_logits(step.inputs["inputs_embeds"], w, w.lm_head[0].weight, caches, c, 0)
    check(step, "talker.code_predictor.lm_head.0@0", logits)


@pytest.mark.parametrize("kind", ["custom_voice", "base"])
def test_prompt_and_prefill_need_only_their_inputs(kind: str, synthetic: Any, tmp_path: Path) -> None:
    """The sum of embeddings and the text projection, and the talker's first call on them."""
    if kind == "base":
        t = np.arange(20000) / 24000
        write_audio(tmp_path / "clip.wav", (0.3 * np.sin(1500 * t * (1 + t))).astype(np.float32), 24000)
        clip = {"ref_audio": {"audio": "clip.wav"}, "ref_text": "It is"}
        arguments = {"text": "Hello", **clip, "max_new_tokens": 2, **GREEDY}
        written = request_file(tmp_path, "generate_voice_clone", arguments)
    else:
        written = speech(tmp_path)
    model = synthetic("tiny", kind)
    export(model, read_request(written), tmp_path / "prompt", step=Step("prompt"))
    export(model, read_request(written), tmp_path / "prefill", step=Step("prefill"))
    prompt, prefill = read_fixture(tmp_path / "prompt"), read_fixture(tmp_path / "prefill")
    loaded = Qwen3TTSModel.from_pretrained(model, backend="reference")
    w, c = loaded.frame_loop.weights, loaded.config.talker_config
    codes = prompt.inputs["codes"]
    x = text_projection(w.talker, prompt.inputs["text_ids"])
    tables = [w.talker.codec_embedding, *(part.weight for part in w.code_predictor.codec_embedding)]
    for table, ids in zip(tables, codes.T, strict=True):
        x = x + table[np.maximum(ids, 0)] * (ids >= 0)[:, None]
    x = x + prompt.inputs["x_vector"]
    check(prompt, "talker.model.inputs_embeds@0", x)
    if kind == "base":
        assert (codes[-1] >= 0).all() and (codes[:3] < 0).all() and prompt.inputs["x_vector"].any()
    assert (prefill.inputs["inputs_embeds"] == prompt.tensors["talker.model.inputs_embeds@0"]).all()
    _, logits = read(prefill.inputs["inputs_embeds"], w.talker, new_cache(c), c)
    check(prefill, "talker.codec_head@0", logits)
    assert len(prefill.tensors["present_key.0"]) == len(x)


def test_a_whole_frame_needs_only_its_inputs(model: Path, tmp_path: Path) -> None:
    """In the streaming layout, where each frame has a text row of its own."""
    arguments = {"text": "Hello world", "speaker": "vivian", "max_new_tokens": 4, "non_streaming_mode": False, **GREEDY}
    request = read_request(request_file(tmp_path, "generate_custom_voice", arguments))
    export(model, request, tmp_path / "out", step=Step("frame", frame=1))
    step = read_fixture(tmp_path / "out")
    loaded = Qwen3TTSModel.from_pretrained(model, backend="reference")
    w, c, given = loaded.frame_loop.weights, loaded.config.talker_config, step.inputs
    code_0 = given["code_0"]
    embedding = w.talker.codec_embedding[code_0]
    frame = predict_frame(
        given["hidden"], embedding, code_0, w.code_predictor, c.code_predictor_config, lambda x: x.argmax(axis=-1)
    )
    assert (frame == step.tensors["codes"]).all()
    x = embed_frame(frame[0], w)[None] + given["text"]
    check(step, "talker.model.inputs_embeds@0", x)
    hidden, logits = read(x, w.talker, [cache_of(step, i) for i in range(c.num_hidden_layers)], c)
    check(step, "talker.model.norm@0", hidden)
    check(step, "talker.codec_head@0", logits)


def test_a_frame_that_was_drawn_is_no_whole_frame(model: Path, tmp_path: Path) -> None:
    arguments = {"text": "Hello", "speaker": "vivian", "max_new_tokens": 3}
    path = request_file(tmp_path, "generate_custom_voice", arguments, seed=7)
    with pytest.raises(RequestError, match="not the best of their logits"):
        export(model, read_request(path), tmp_path / "out", step=Step("frame", frame=0))


def test_padded_caches_hold_the_same_rows(model: Path, tmp_path: Path) -> None:
    """Attention over all 64 rows with the mask is attention over those that are written."""
    export(model, read_request(speech(tmp_path)), tmp_path / "out", step=Step("talker", frame=2, positions=64))
    export(model, read_request(speech(tmp_path)), tmp_path / "short", step=Step("talker", frame=2))
    padded, short = read_fixture(tmp_path / "out"), read_fixture(tmp_path / "short")
    at = int(padded.inputs["write_index"][0])
    assert padded.inputs["mask"].shape == (1, 64) and padded.inputs["mask"].sum() == at + 1
    for name in short.inputs:
        if name.startswith("past_"):
            written = padded.inputs[name]
            assert written.shape[0] == 64 and not written[at:].any()
            assert (written[:at] == short.inputs[name]).all()
            name = name.replace("past_", "present_")
            assert (padded.tensors[name][: at + 1] == short.tensors[name]).all()
    assert padded.manifest["step"] == {"of": "talker", "frame": 2, "positions": 64}


def chunk(step: Fixture, model: Qwen3TTSModel) -> tuple[Any, dict[str, Any]]:
    """The codec decoder on one chunk, written as a converter would: state in, state out, no branch."""
    d = model.speech_tokenizer.decoder
    w, c, past, present = d.weights, d.config, step.inputs, {}
    codes = past["codes"]

    def joined(state: str, x: Any, axis: int = 1) -> Any:
        whole = np.concatenate([past[f"past_{state}"], x], axis)
        keep = past[f"past_{state}"].shape[axis]
        present[f"present_{state}"] = whole.take(range(whole.shape[axis] - keep, whole.shape[axis]), axis)
        return whole

    def conv(state: str, x: Any, weights: Any, dilation: int = 1) -> Any:
        return ops.conv1d(joined(state, x), weights.weight, weights.bias, dilation=dilation)

    def transposed(state: str | None, x: Any, weights: Any, stride: int) -> Any:
        before = past[f"past_{state}"].shape[1] if state else 0
        y = ops.conv_transpose1d(joined(state, x) if state else x, weights.weight, weights.bias, stride)
        return y[:, before * stride : (before + x.shape[1]) * stride]

    x = ops.conv1d(ops.lookup(codes[:, :1], d.codebooks[:1]).T, w.rvq_first.output_proj)
    x = x + ops.conv1d(ops.lookup(codes[:, 1:], d.codebooks[1:]).T, w.rvq_rest.output_proj)
    h = ops.linear(conv("pre_conv", x, w.pre_conv).T, w.pre_transformer.input_proj, w.pre_transformer.input_proj_bias)
    rope = ops.rope_angles(past["position"], c.head_dim, c.rope_theta)
    for i, layer in enumerate(w.pre_transformer.layers):
        n, w_attn = ops.rms_norm(h, layer.input_layernorm, c.rms_norm_eps), layer.self_attn
        q, k = (ops.linear(n, p).reshape(len(n), -1, c.head_dim) for p in (w_attn.q_proj, w_attn.k_proj))
        q, k = ops.rotate(q, *rope), ops.rotate(k, *rope)
        k, v = (
            joined(f"key.{i}", k, 0),
            joined(f"value.{i}", ops.linear(n, w_attn.v_proj), 0).reshape(-1, *k.shape[1:]),
        )
        scores = np.einsum("tnd,snd->nts", q, k) / np.sqrt(c.head_dim)
        p = ops.softmax(np.where(past["mask"] == 1, scores, np.float32(-1e30)))
        context = np.einsum("nts,snd->tnd", p, v).reshape(len(n), -1)
        h = h + layer.self_attn_layer_scale * ops.linear(context, w_attn.o_proj)
        n = ops.rms_norm(h, layer.post_attention_layernorm, c.rms_norm_eps)
        h = h + layer.mlp_layer_scale * mlp(n, layer.mlp, "")
    h = ops.rms_norm(h, w.pre_transformer.norm, c.rms_norm_eps)
    x = ops.linear(h, w.pre_transformer.output_proj, w.pre_transformer.output_proj_bias).T
    for i, (up, ratio) in enumerate(zip(w.upsample, c.upsampling_ratios, strict=True)):
        x, n = transposed(None, x, up.conv, ratio), up.convnext
        h = ops.depthwise_conv1d(joined(f"upsample.{i}.1.dwconv", x), n.dwconv, n.dwconv_bias).T
        h = ops.linear(ops.layer_norm(h, n.norm, n.norm_bias, 1e-6), n.pwconv1, n.pwconv1_bias)
        x = x + (n.gamma * ops.linear(ops.gelu(h), n.pwconv2, n.pwconv2_bias)).T
    x = conv("decoder.0", x, w.first_conv)
    for i, (block, rate) in enumerate(zip(w.waveform_blocks, c.upsample_rates, strict=True), start=1):
        x = transposed(f"decoder.{i}.block.1", snake(x, block.snake, ""), block.conv, rate)
        for u, (unit, dilation) in enumerate(zip(block.units, DILATIONS, strict=True), start=2):
            h = conv(f"decoder.{i}.block.{u}.conv1", snake(x, unit.act1, ""), unit.conv1, dilation)
            x = x + ops.conv1d(snake(h, unit.act2, ""), unit.conv2.weight, unit.conv2.bias)
    last = len(w.waveform_blocks) + 1
    return np.clip(conv(f"decoder.{last + 1}", snake(x, w.last_snake, ""), w.last_conv), -1, 1), present


@pytest.mark.parametrize(("frame", "frames"), [(0, 2), (3, 1), (26, 3)], ids=["first", "near the start", "full window"])
def test_a_codec_chunk_needs_only_its_inputs(frame: int, frames: int, base: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "codes.npy", np.random.RandomState(0).randint(0, 128, (30, 16)))
    request = request_file(tmp_path, "decode", {"audio_codes": {"codes": "codes.npy"}})
    export(base, read_request(request), tmp_path / "out", step=Step("codec", frame, frames=frames))
    step = read_fixture(tmp_path / "out")
    wave, present = chunk(step, Qwen3TTSModel.from_pretrained(base, backend="reference"))
    assert wave.shape == (1, frames * 1920)
    check(step, "speech_tokenizer.decoder@0", wave)
    assert present.keys() == {name for name in step.tensors if name.startswith("present_")}
    for name, state in present.items():
        check(step, name, state)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (Step("talker", frame=0), "frame 0 follows the prompt"),
        (Step("talker", frame=9), "never computes"),
        (Step("code_predictor", group=0), "must be from 1 to 15"),
        (Step("code_predictor", group=16), "must be from 1 to 15"),
        (Step("frame", frame=5), "within the 3 frames"),
        (Step("talker", frame=2, positions=3), "3 positions are too few: this step needs"),
        (Step("codec", frame=0, positions=9), "this one has none to pad"),
        (Step("prompt", positions=9), "this one has none to pad"),
        (Step("codec", frame=2, frames=9), "must lie within the 3 frames"),
    ],
)
def test_steps_that_are_not_there_are_refused(step: Step, message: str, model: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=message):
        export(model, read_request(speech(tmp_path)), tmp_path / "out", step=step)
    assert not (tmp_path / "out").exists()


# --- compare ---

LAYER = "talker.model.layers.1"


def with_changes(whole: Fixture, **changes: Any) -> Fixture:
    return Fixture(whole.path, {**whole.tensors, **{name: f(whole.tensors[name]) for name, f in changes.items()}})


def changed(whole: Fixture, name: str, change: Callable[[Any], Any]) -> Comparison:
    return compare(whole, with_changes(whole, **{name: change}))


def test_the_first_of_several_is_named(whole: Fixture) -> None:
    factors = {"talker.codec_head@1": 1.01, f"{LAYER}.mlp.up_proj@0": 1.001, f"{LAYER}.mlp.down_proj@0": 1.5}
    found = compare(whole, with_changes(whole, **{n: lambda x, f=f: x * np.float32(f) for n, f in factors.items()}))
    assert found.first is not None
    assert found.first.name == f"{LAYER}.mlp.up_proj@0"
    assert sum(row.wrong for row in found.rows) == 3


@pytest.mark.parametrize(
    ("cause", "name", "change", "said"),
    [
        ("scaled", f"{LAYER}.mlp.up_proj@0", lambda x: x * np.float32(8), "8 times"),
        ("scaled", f"{LAYER}.mlp.up_proj@0", lambda x: -x, "the sign"),
        ("scaled", f"{LAYER}.self_attn.k_proj@0", lambda x: x * np.float32(32**-0.5), r"1 / sqrt\(32\)"),
        ("transposed", f"{LAYER}.mlp.up_proj@0", lambda x: x.T.copy(), r"\[1, 0\]"),
        ("heads mixed", f"{LAYER}.self_attn.context@0",
         lambda x: x.reshape(-1, 4, 32).transpose(1, 0, 2).reshape(x.shape), "with 4 heads"),
        ("permuted", f"{LAYER}.self_attn.q_rot@0", lambda x: x[:, ::-1], "in reverse"),
        ("permuted", f"{LAYER}.mlp.up_proj@0", lambda x: np.roll(x, 80, axis=1), "halves swapped"),
        ("permuted", "codes.0", lambda x: x[:, ::-1], "in reverse"),
        ("shifted", f"{LAYER}.mlp.up_proj@0", lambda x: np.concatenate([0 * x[:1], x[:-1]]), "1 later along axis 0"),
        ("rounded", f"{LAYER}.mlp.up_proj@0", lambda x: widen_ref(round_ref(x)), "bfloat16"),
        ("rounded", f"{LAYER}.mlp.up_proj@0", lambda x: x.astype(np.float16), "float16"),
        ("bias", f"{LAYER}.mlp.up_proj@0", lambda x: x + np.arange(160, dtype=np.float32), "off by a constant"),
        ("own factors", f"{LAYER}.mlp.up_proj@0",
         lambda x: x * np.linspace(1, 2, 160, dtype=np.float32), "160 factors"),
        ("other length", f"{LAYER}.mlp.up_proj@0", lambda x: x[1:], "1 fewer along axis 0, at the beginning"),
        ("edges", "speech_tokenizer.decoder.decoder.0@0",
         lambda x: np.hstack([x[:, 2:4] ** 2, x[:, 2:]]), "the first 2"),
        ("another tensor", f"{LAYER}@0", lambda x: x[::-1] * 0 + 1, ""),
    ],
)  # fmt: skip
def test_a_transformation_is_recognised(cause: str, name: str, change: Any, said: str, whole: Fixture) -> None:
    found = changed(whole, name, change)
    assert found.first is not None
    assert found.first.name == name
    if not said:  # a constant is nobody's mistake
        assert found.findings == []
        return
    assert found.findings[0].cause == cause, found.findings
    assert re.search(said, found.findings[0].message), found.findings[0].message


def test_noise_is_no_known_mistake(whole: Fixture) -> None:
    noise = np.random.RandomState(0).standard_normal
    found = changed(whole, f"{LAYER}.mlp.up_proj@0", lambda x: x + noise(x.shape).astype(np.float32))
    assert found.first is not None
    assert found.findings == []


def test_nan_is_off(whole: Fixture) -> None:
    found = changed(whole, f"{LAYER}@0", lambda x: np.where(np.arange(x.shape[1]) == 3, np.nan, x))
    assert found.first is not None
    assert found.first.name == f"{LAYER}@0"


def test_fewer_tensors_other_types_and_names(whole: Fixture, tmp_path: Path) -> None:
    theirs = {
        "blocks.1.attn.q": whole.tensors[f"{LAYER}.self_attn.q_proj@0"].astype(np.float64),
        "blocks.0.attn.q": whole.tensors["talker.model.layers.0.self_attn.q_proj@0"][None],
        "talker.codec_head": whole.tensors["talker.codec_head@0"],
        "scratch": np.zeros(3),
    }
    names = {"blocks.*.attn.q": "talker.model.layers.*.self_attn.q_proj@0"}
    for stored in ("npy", "safetensors"):
        path = tmp_path / f"theirs.{stored}"
        if stored == "npy":
            path.mkdir()
            for name, tensor in theirs.items():
                np.save(path / f"{name}.npy", tensor)
        else:
            path.write_bytes(safetensors.numpy.save(theirs))
        found = compare(whole, read_fixture(path), names)
        assert found.first is None
        assert len(found.compared) == 3
        assert found.unknown == ["scratch"]


def test_stars_stand_for_parts_of_a_name() -> None:
    theirs = Fixture(Path(), {"a.12.b.3.w": np.zeros(1), "a.b": np.zeros(1)})
    assert list(renamed(theirs, {"a.*.b.*.w": "x.*.y.*"}, ["x.12.y.3@0"])) == ["x.12.y.3@0", "a.b"]


def test_nothing_in_common_is_an_error(whole: Fixture) -> None:
    with pytest.raises(RequestError, match="has no tensor of"):
        compare(whole, Fixture(Path("theirs"), {"x": np.zeros(1)}))


def test_reports_are_well_formed(whole: Fixture, tmp_path: Path, capsys: Any) -> None:
    theirs = {name: t for name, t in whole.tensors.items() if "code_predictor" not in name}
    theirs[f"{LAYER}.mlp.up_proj@0"] = theirs[f"{LAYER}.mlp.up_proj@0"].T
    data = safetensors.numpy.save({name: np.ascontiguousarray(tensor) for name, tensor in theirs.items()})
    (tmp_path / "theirs.safetensors").write_bytes(data)
    files = {kind: tmp_path / f"report.{kind}" for kind in ("json", "markdown", "html", "svg")}
    options = [text for kind, path in files.items() for text in (f"--{kind}", str(path))]
    assert cli.main(["fixtures", "compare", str(whole.path), str(tmp_path / "theirs.safetensors"), *options]) == 1
    printed = capsys.readouterr().out
    assert f"the first of them {LAYER}.mlp.up_proj@0" in printed
    assert "looks like: transposed" in printed
    content = json.loads(files["json"].read_text())
    assert content["first"] == f"{LAYER}.mlp.up_proj@0"
    assert content["causes"][0]["cause"] == "transposed"
    assert content["missing"]
    row = next(t for t in content["tensors"] if t["name"] == "talker.codec_head@0")
    assert row["error"].keys() >= {"greatest", "relative", "rms", "cosine", "snr"}
    svg = ET.fromstring(files["svg"].read_text())
    compared = len(content["tensors"])
    assert len(svg.findall("{http://www.w3.org/2000/svg}circle")) == compared
    html = files["html"].read_text()
    assert html.count("<tr") == compared + 1
    assert "http://www.w3.org/2000/svg" in html and "src=" not in html, "one file"
    assert f"| {LAYER}.mlp.up_proj@0 |" in files["markdown"].read_text()


def test_a_comparison_without_fault(whole: Fixture, capsys: Any) -> None:
    assert cli.main(["fixtures", "compare", str(whole.path), str(whole.path)]) == 0
    assert "all within their tolerances" in capsys.readouterr().out
    found = compare(whole, whole)
    assert json.loads(as_json(found))["first"] is None
    assert "all within" in as_markdown(found)
    assert "<table>" in as_html(found)


def test_export_on_the_command_line(model: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    folders = [str(model), str(speech(tmp_path)), str(out)]
    command = ["fixtures", "export", *folders, "--tensor-format", "npy", "--no-float64"]
    assert cli.main([*command, "--tensors", "talker.codec_head"]) == 0
    assert "tensors" in capsys.readouterr().out
    assert (out / "expected" / "talker.codec_head@0.npy").exists()
    assert cli.main([*command, "--tensors", "talker.codec_head"]) == 2
    assert "exists already" in capsys.readouterr().err


def test_the_limits_of_formats_are_those_of_the_ladder() -> None:
    errors = json.loads((CASES.parent / "ladder" / "0.6b.json").read_text(encoding="utf-8"))["errors"]
    rungs = {"float32": "float32", "bfloat16": "official bfloat16", "int8": "int8 weights", "int4": "int4 weights"}
    assert {
        name: {
            "talker": max(error for point, error in errors[rung].items() if point.startswith(("prompt", "frames"))),
            "code_predictor": max(error for point, error in errors[rung].items() if point.startswith("predictor")),
        }
        for name, rung in rungs.items()
    } == RUNGS


def test_a_port_in_another_format_is_held_to_what_is_normal_there(whole: Fixture) -> None:
    """Noise of 1.5 % is nothing in int8 and a fault in float32; a real fault is one in either."""
    noise = np.random.RandomState(0).standard_normal
    name = f"{LAYER}.mlp.up_proj@0"
    theirs = with_changes(whole, **{name: lambda x: x + 0.015 * x.std() * noise(x.shape).astype(np.float32)})
    assert compare(whole, theirs, weights_format="int8").first is None
    first = compare(whole, theirs, weights_format="float32").first
    assert first is not None and first.name == name
    wrong = compare(whole, with_changes(whole, **{name: lambda x: x * np.float32(1.5)}), weights_format="int8")
    assert wrong.findings[0].cause == "scaled"
    assert "this format is allowed 0.0474" in as_text(wrong)


def test_the_manifest_says_what_each_format_is_allowed(whole: Fixture) -> None:
    assert whole.manifest["tolerance"]["formats"]["int8"]["talker"] == pytest.approx(0.0474)
    assert whole.manifest["checkpoint"]["weights_format"] == "bfloat16"


def test_the_weight_format_of_a_converted_checkpoint(model: Path, tmp_path: Path) -> None:
    assert cli.main(["convert", "--format", "int4", str(model), str(tmp_path / "int4")]) == 0
    export(tmp_path / "int4", read_request(speech(tmp_path)), tmp_path / "out", ("nothing",), float64=False)
    assert json.loads((tmp_path / "out" / "case.json").read_text())["checkpoint"]["weights_format"] == "int4"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"file of names .*names.json not found$"),
        ("[1]", "file of names .*names.json: a JSON object was expected"),
        ('{"a": 1}', "names.json is no file of names: 'a' is 1, expected one of our names"),
    ],
)
def test_what_is_no_file_of_names_is_called_so(content: Any, message: str, tmp_path: Path, capsys: Any) -> None:
    names = tmp_path / "names.json"
    if content:
        names.write_text(content)
    case = str(CASES / "decode_1")
    assert cli.main(["fixtures", "compare", case, case, "--names", str(names)]) == 2
    assert re.search(message, capsys.readouterr().err.strip())


def test_every_cause_says_what_it_is() -> None:
    names = [cause.__name__ for cause in (*CAUSES, *PLACES)]
    assert len(set(names)) == len(names)
    assert all(cause.__doc__ for cause in (*CAUSES, *PLACES))
