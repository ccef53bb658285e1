"""The committed store itself: nothing lost, nothing changed, nothing without its reason. Needs no torch."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from parity import (
    CASES,
    FULL,
    GOLDEN,
    Case,
    assert_fingerprint,
    assert_matches,
    case_names,
    load_case,
    load_full,
)

from qwen3tts_np.checkpoint.published import sha256_of
from qwen3tts_np.speech import demo
from qwen3tts_np.synthetic.layouts import codec_config, model_config
from qwen3tts_np.synthetic.text import write_tokenizer_files

LIMIT = 25_000_000  # bytes, all files together
FULL_LIMIT = 1_000_000
NAMES = list(case_names())
METHODS = {"generate_custom_voice", "generate_voice_design", "generate_voice_clone", "encode", "decode"}
VERSIONS = {"qwen-tts", "transformers", "torch", "numpy", "librosa", "soxr", "cpu"}


def faults(golden: Path) -> list[str]:
    """What the manifest says against what is there."""
    listed: dict[str, Any] = json.loads((golden / "manifest.json").read_text(encoding="utf-8"))["files"]
    there = {p.relative_to(golden).as_posix(): p for room in ("cases", "full") for p in (golden / room).rglob("*")}
    there = {name: path for name, path in there.items() if path.is_file()}
    found = [f"{name} is not in manifest.json" for name in sorted(there.keys() - listed.keys())]
    for name, (size, digest) in listed.items():
        if name not in there:
            found.append(f"{name} is missing")
        elif there[name].stat().st_size != size or sha256_of(there[name]) != digest:
            found.append(f"{name} has changed")
    return found


def test_every_file_is_as_recorded():
    assert faults(GOLDEN) == [], "run: python golden/record.py --manifest, if this is what you want"


def test_a_changed_byte_a_lost_and_a_new_file_are_found(tmp_path):
    shutil.copytree(CASES / "decode_1", tmp_path / "cases" / "decode_1")
    listed = json.loads((GOLDEN / "manifest.json").read_text(encoding="utf-8"))["files"]
    mine = {name: entry for name, entry in listed.items() if name.startswith("cases/decode_1/")}
    (tmp_path / "manifest.json").write_text(json.dumps({"files": mine}))
    assert faults(tmp_path) == []
    expected = tmp_path / "cases" / "decode_1" / "expected.safetensors"
    data = bytearray(expected.read_bytes())
    data[-1] ^= 1
    expected.write_bytes(data)
    assert faults(tmp_path) == ["cases/decode_1/expected.safetensors has changed"]
    expected.rename(tmp_path / "cases" / "stray")
    assert faults(tmp_path) == ["cases/stray is not in manifest.json", "cases/decode_1/expected.safetensors is missing"]


def test_the_store_stays_small():
    sizes = {path: path.stat().st_size for room in (CASES, FULL) for path in room.rglob("*") if path.is_file()}
    assert sum(sizes.values()) <= LIMIT
    assert sum(size for path, size in sizes.items() if path.is_relative_to(FULL)) <= FULL_LIMIT


def test_every_kind_of_request_is_there():
    methods = {load_case(name).json["call"]["method"] for name in NAMES}
    assert methods == METHODS
    sampled = [name for name in NAMES if load_case(name).json["call"]["seed"] is not None]
    assert len(sampled) >= 10
    assert any(len(load_case(name).json["outcome"]["frames"]) > 1 for name in sampled)
    ended = [load_case(name).json["outcome"].get("ended", []) for name in NAMES]
    assert any(all(items) and len(items) > 1 for items in ended)


@pytest.mark.parametrize("name", NAMES)
def test_a_case_is_complete(name):
    case = load_case(name)
    assert case.json["about"]
    assert {"rule", "why"} == case.json["tolerance"].keys()
    assert case.json["versions"].keys() == VERSIONS
    assert {"like", "type", "seed", "sha256"} == case.json["checkpoint"].keys()
    assert case.json["call"]["method"] in METHODS
    assert {k: list(v.shape) for k, v in case.inputs.items()} == {k: v["shape"] for k, v in case.json["inputs"].items()}

    table = case.json["tensors"]
    assert {name for name, entry in table.items() if "same_as" not in entry} == case.stored.keys()
    for tensor, entry in table.items():
        value = case[tensor]  # also: an equal tensor has as many values, and is there
        assert list(value.shape) == entry["shape"]
        assert value.dtype == np.int32 if value.dtype.kind == "i" else np.isfinite(value).all()
        if value.dtype.kind == "f" and "same_as" not in entry:
            peak = float(np.abs(value).max())
            assert 0 <= entry["atol"] <= 1e-3 * peak, f"{tensor}: atol {entry['atol']} says nothing of values to {peak}"
            assert entry["atol"] >= 4 * entry["error"] * 0.99
            assert entry["peak"] == pytest.approx(peak, rel=1e-2)
    known = {*case.stored, *(f"{tensor}.T" for tensor in case.stored)}
    for call, given in case.json.get("flow", {}).items():
        assert set(given) <= known, call


@pytest.fixture(scope="module")
def text_rows(tmp_path_factory) -> Any:
    return write_tokenizer_files(tmp_path_factory.mktemp("tokenizer"))


def configurations(case: Case, text_rows: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of the talker and of the codec."""
    like, kind = (case.json["checkpoint"][key] for key in ("like", "type"))
    if like != "demo":
        return model_config(like, kind, text_rows)["talker_config"], codec_config(like)
    files = (demo.CHECKPOINT / name for name in ("config.json", "speech_tokenizer/config.json"))
    main, codec = (json.loads(file.read_text(encoding="utf-8")) for file in files)
    return main["talker_config"], codec


@pytest.mark.parametrize("name", NAMES)
def test_ids_and_lengths_make_sense(name, text_rows):
    case = load_case(name)
    talker, codec = configurations(case, text_rows)
    groups, entries = talker["num_code_groups"], codec["decoder_config"]["codebook_size"]
    outcome = case.json["outcome"]
    for tensor, value in [*case.inputs.items(), *((n, case[n]) for n in case.names if "@" not in n)]:
        what, _, item = tensor.partition(".")
        if what in ("input_ids", "instruct_ids", "ref_ids"):
            assert 0 <= value.min() <= value.max() < talker["text_vocab_size"]
        elif what in ("codes", "ref_codes", "given_codes"):
            assert value.shape[1] == groups
            assert 0 <= value.min(initial=0) <= value.max(initial=0) < entries
        elif what == "tokens":
            assert 0 <= value.min() <= value.max() < talker["vocab_size"]
        elif what == "audio":
            assert value.dtype == np.int16
        if what == "codes":
            assert len(value) == outcome["frames"][int(item)]
            uncut = f"uncut_codes.{item}"
            if uncut in case:
                assert_matches(tensor, value, case[uncut][: len(value)], atol=0)
                assert (case["tokens"][int(item), : len(value)] == value[:, 0]).all()
        if what == "wav" and item.isdigit():
            assert value.shape == (outcome["samples"][int(item)],)
            assert np.abs(value).max() <= 1


def test_activations_keep_the_order_of_execution():
    names = load_case("activations_custom_voice").names
    layer = "talker.model.layers.0"
    order = [
        "talker.model.text_embedding.prompt@0", "talker.text_projection.prompt@0", "talker.model.inputs_embeds@0",
        f"{layer}.input_layernorm@0", f"{layer}.self_attn.q_proj@0", f"{layer}.self_attn.q_norm@0",
        f"{layer}.self_attn.q_rot@0", f"{layer}.self_attn.k_rot@0", f"{layer}.self_attn.context@0",
        f"{layer}.self_attn.o_proj@0", f"{layer}.post_attention_layernorm.input@0", f"{layer}.mlp.down_proj@0",
        f"{layer}@0", "talker.model.layers.1.input_layernorm@0", "talker.model.norm@0", "talker.codec_head@0",
        "talker.model.codec_embedding@0", "talker.code_predictor.model.inputs_embeds@0",
        "talker.code_predictor.lm_head.0@0", "talker.code_predictor.model.inputs_embeds@1",
        "talker.code_predictor.lm_head.14@0", "talker.code_predictor.model.codec_embedding.14@0",
        "talker.model.inputs_embeds@1", "talker.codec_head@1", "talker.code_predictor.lm_head.14@1",
        "talker.codec_head@2", "speech_tokenizer.decoder.quantizer@0", "speech_tokenizer.decoder.pre_conv@0",
        "speech_tokenizer.decoder.pre_transformer.output_proj@0", "speech_tokenizer.decoder.decoder.1.block.1@0",
        "speech_tokenizer.decoder@0",
    ]  # fmt: skip
    places = [names.index(name) for name in order]
    assert places == sorted(places)
    case = load_case("activations_custom_voice")
    frame = [case[f"talker.code_predictor.model.codec_embedding.{g}@1"] for g in range(15)]
    code = case["talker.model.codec_embedding@1"]
    pad = case["tts_pad_embed"]  # the whole text was in the prompt
    atol = case.atol("talker.model.inputs_embeds@2")
    assert_matches("the next input", code + sum(frame) + pad, case["talker.model.inputs_embeds@2"], atol=atol)


@pytest.mark.parametrize("name", sorted(path.stem for path in FULL.glob("*.json")))
def test_full_size_fingerprints(name):
    content, clips = load_full(name)
    assert content["made_by"] == "golden/record.py"
    assert content["versions"].keys() == VERSIONS
    for run, about in content["runs"].items():
        tensors = content[f"tensors of {run}"]
        assert np.array(tensors["codes.0"]["values"]).shape == (about["outcome"]["frames"][0], 16)
        for clip in (v["audio"] for v in about["call"]["arguments"].values() if isinstance(v, dict)):
            assert clips[clip].dtype == np.int16
        for entry in tensors.values():
            assert "values" in entry or (entry["atol"] > 0 and np.isfinite(entry["first"]).all())


def test_a_fingerprint_can_fail():
    x = np.linspace(-1, 1, 100, dtype=np.float32).reshape(4, 25)
    wide = x.astype(np.float64)
    good = {"shape": [4, 25], "atol": 1e-6, "first": x.ravel()[:8].tolist(), "mean": wide.mean(), "std": wide.std()}
    good["norm"] = float(np.linalg.norm(wide))
    assert_fingerprint("x", x, good)
    y = x.copy()
    y[3, 3] += np.float32(1e-3)
    with pytest.raises(AssertionError, match=r"x, mean: .*, expected 0 "):
        assert_fingerprint("x", y, good)
    with pytest.raises(AssertionError, match="x, first values: worst at"):
        assert_fingerprint("x", x + np.float32(1e-4), good)


def test_a_difference_says_where_and_how_badly():
    case = load_case("decode_1")
    wave = case["wav.0"].copy()
    case.check("wav.0", wave)
    case.check("wav.0", wave.astype(np.float64))
    wave[700] += np.float32(1e-3)
    with pytest.raises(AssertionError, match=r"decode_1: wav.0: worst at \(700,\).*1 of 1920|0\.1% of 1920"):
        case.check("wav.0", wave)
    with pytest.raises(AssertionError, match="shape"):
        case.check("wav.0", wave[1:])
    with pytest.raises(AssertionError, match="dtype"):
        case.check("wav.0", wave.astype(np.int32))
    wave[3] = np.nan
    with pytest.raises(AssertionError, match=r"worst at \(3,\)"):
        case.check("wav.0", wave)


def test_a_trace_is_compared_in_order_and_for_completeness():
    case = load_case("activations_custom_voice")
    trace = {name: case[name] for name in case.names}
    assert case.check_trace(trace) == case.names
    assert case.missing(trace) == []
    norm = "talker.model.layers.1.input_layernorm@0"
    del trace[norm]
    assert case.missing(trace) == [norm]
    del trace["talker.model.layers.0.self_attn@0"]  # equal to o_proj, which is still there
    assert case.missing(trace) == [norm]
    trace |= {n: trace[n] * np.float32(1.001) for n in ("talker.codec_head@0", "talker.model.layers.2.mlp.up_proj@0")}
    with pytest.raises(AssertionError, match=r"layers\.2\.mlp\.up_proj@0: worst at"):
        case.check_trace(trace)
