"""Checkpoints that other programs have written: read where they mean the same, refused by name where they do not."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qwen3tts_np import CheckpointError, ConfigError, CustomVoice, Qwen3TTSModel, RequestError
from qwen3tts_np.checkpoint.config_file import read_model_config
from qwen3tts_np.cli.info import as_text
from qwen3tts_np.inspect.inspection import inspect_checkpoint
from qwen3tts_np.layout.description import describe
from qwen3tts_np.text.tokenizer import Tokenizer
from qwen3tts_np.verify.tokenizer import tokenizer_problems


@pytest.fixture
def copied(synthetic: Callable[..., Path], tmp_path) -> Callable[..., Path]:
    def copy(kind: str = "custom_voice", change: Callable[[dict[str, Any]], Any] = lambda _: None) -> Path:
        folder = tmp_path / "copy"
        shutil.copytree(synthetic("tiny", kind), folder)
        path = folder / "config.json"
        config = json.loads(path.read_text("utf-8"))
        change(config)
        path.write_text(json.dumps(config), "utf-8")
        return folder

    return copy


def edit_header(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Change the header of the weights; the data behind it stay."""
    path = folder / "model.safetensors"
    raw = path.read_bytes()
    end = 8 + int.from_bytes(raw[:8], "little")
    header = json.dumps(change(json.loads(raw[8:end]))).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + raw[end:])


def as_transformers_5(theta: float, **more: Any) -> Callable[[dict[str, Any]], None]:
    def change(config: dict[str, Any]) -> None:
        for part in (config["talker_config"], config["talker_config"]["code_predictor_config"]):
            part.pop("rope_theta")
            scaling = part.pop("rope_scaling", None) or {}
            part["rope_parameters"] = {**scaling, "rope_type": "default", "rope_theta": theta, **more}

    return change


@pytest.mark.parametrize("theta", [10_000.0, 1_000_000.0])
def test_rope_parameters_of_transformers_5_are_used(copied, theta):
    config = read_model_config(copied(change=as_transformers_5(theta)))
    assert config.talker_config.rope_theta == config.talker_config.code_predictor_config.rope_theta == theta


def test_a_rope_type_that_is_not_implemented_is_named(copied):
    with pytest.raises(ConfigError, match="yarn"):
        read_model_config(copied(change=as_transformers_5(1e6, rope_type="yarn", factor=4.0)))


def test_rope_parameters_of_each_type_of_layer(copied):
    def nested(*thetas: float) -> Callable[[dict[str, Any]], None]:
        def change(config: dict[str, Any]) -> None:
            as_transformers_5(thetas[0])(config)
            kinds = zip(("full_attention", "sliding_attention"), thetas, strict=True)
            config["talker_config"]["rope_parameters"] = {kind: {"rope_theta": theta} for kind, theta in kinds}

        return change

    folder = copied(change=nested(1e4, 1e4))
    assert read_model_config(folder).talker_config.rope_theta == 1e4
    shutil.rmtree(folder)
    with pytest.raises(ConfigError, match="rope_parameters differ between full_attention and sliding_attention"):
        read_model_config(copied(change=nested(1e4, 1e6)))


def test_two_rotary_bases_are_one_too_many(copied):
    def change(config: dict[str, Any]) -> None:
        config["talker_config"] |= {"rope_theta": 1e6, "rope_parameters": {"rope_theta": 1e4}}

    with pytest.raises(ConfigError, match=r"rope_theta is 1000000.0, and 10000.0 in rope_parameters"):
        read_model_config(copied(change=change))


@pytest.mark.parametrize("part", ["", "talker_config", "codec"])
@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "gptq"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "bitsandbytes"),
        ({"quantization_config": {"quant_method": "compressed-tensors"}}, "compressed-tensors"),
        ({"quantization": {"group_size": 64, "bits": 8}}, "MLX"),
    ],
)
def test_quantised_elsewhere_is_refused_by_the_name_in_the_configuration(copied, part, entry, name):
    folder = copied(change=lambda config: config.get(part, config).update(entry))
    if part == "codec":
        shutil.move(folder / "config.json", folder / "speech_tokenizer" / "config.json")
    with pytest.raises(ConfigError, match=f"quantised by {name} .*convert"):
        Qwen3TTSModel.from_pretrained(folder / "speech_tokenizer" if part == "codec" else folder)


@pytest.mark.parametrize(
    ("ending", "name"),
    [
        ("qweight qzeros scales g_idx", "GPTQ"),
        ("qweight qzeros scales", "AWQ or GPTQ"),
        ("weight_packed weight_scale weight_shape", "compressed-tensors"),
        ("weight weight.absmax weight.quant_state.bitsandbytes__nf4", "bitsandbytes"),
        ("weight SCB weight_format", "bitsandbytes"),
        ("weight scales biases", "MLX"),
        ("W_q meta", "HQQ"),
        ("weight._data weight._scale", "quanto"),
        ("weight weight_scale_inv", "a program that writes FP8"),
    ],
)
def test_quantised_elsewhere_is_refused_by_its_tensors_where_the_configuration_is_silent(copied, ending, name):
    folder = copied()

    def quantise(header: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, entry in header.items():
            names = ending.split() if key.endswith("_proj.weight") else []
            begin = key.removesuffix("weight")
            empty = {**entry, "shape": [0], "data_offsets": [entry["data_offsets"][1]] * 2} if names else {}
            found |= {begin + names[0]: entry} if names else {key: entry}
            found |= {begin + other: empty for other in names[1:]}
        return found

    edit_header(folder, quantise)
    with pytest.raises(CheckpointError, match=rf"has weights quantised by {name}, .*convert"):
        Qwen3TTSModel.from_pretrained(folder)


@pytest.mark.parametrize(
    ("dtype", "sentence"),
    [("F8_E4M3", "type F8_E4M3: the weights are quantised"), ("I8", r"quantised to integers \(I8\)")],
)
def test_weights_of_another_type_are_called_quantised(copied, dtype, sentence):
    folder, name = copied(), "talker.codec_head.weight"

    def narrow(header: dict[str, Any]) -> dict[str, Any]:
        rows, columns = header[name]["shape"]
        return header | {name: {**header[name], "dtype": dtype, "shape": [rows, 2 * columns]}}  # the bytes stay

    edit_header(folder, narrow)
    with pytest.raises(CheckpointError, match=sentence):
        Qwen3TTSModel.from_pretrained(folder)


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (["model-Q4_K_M.gguf"], r"model-Q4_K_M\.gguf, GGUF weights"),
        (["pytorch_model.bin"], r"pytorch_model\.bin, weights as PyTorch pickles them"),
        (["model.onnx"], r"model\.onnx, an export to ONNX"),
        (
            ["adapter_config.json", "adapter_model.safetensors"],
            "a LoRA adapter; give its base model, and this folder as --adapter",
        ),
        (["README.md"], r"holds neither model\.safetensors nor"),
    ],
)
def test_a_folder_without_our_weights_is_named_for_what_it_holds(copied, files, sentence):
    folder = copied()
    (folder / "model.safetensors").unlink()
    for name in files:
        (folder / name).write_bytes(b"GGUF")
    with pytest.raises(FileNotFoundError, match=sentence):
        Qwen3TTSModel.from_pretrained(folder)
    (folder / "config.json").unlink()
    with pytest.raises(
        FileNotFoundError, match=sentence if "README" not in files[0] else "config.json not found"
    ) as refused:
        Qwen3TTSModel.from_pretrained(folder)
    for looks in (describe, lambda folder: inspect_checkpoint(folder, 1.0)):
        with pytest.raises(FileNotFoundError, match=re.escape(str(refused.value))):
            looks(folder)


def test_paths_of_a_file_and_of_a_folder_of_the_hub(copied, tmp_path):
    folder = copied()
    with pytest.raises(FileNotFoundError, match=f"safetensors is a file; give its folder, {folder}"):
        Qwen3TTSModel.from_pretrained(folder / "model.safetensors")
    (tmp_path / "tts.gguf").write_bytes(b"GGUF" + bytes(60))
    with pytest.raises(FileNotFoundError, match=r"tts\.gguf is a file, and GGUF is not read here"):
        Qwen3TTSModel.from_pretrained(tmp_path / "tts.gguf")
    shutil.move(tmp_path / "tts.gguf", folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.safetensors is a GGUF file"):
        Qwen3TTSModel.from_pretrained(folder)
    shutil.move(folder, tmp_path / "models--ada--tts" / "snapshots" / "0123")
    with pytest.raises(FileNotFoundError, match=r"is a folder of the hub's cache; .*snapshots/0123"):
        Qwen3TTSModel.from_pretrained(tmp_path / "models--ada--tts")


def test_a_checkpoint_without_its_codec(copied):
    folder = copied()
    shutil.rmtree(folder / "speech_tokenizer")
    with pytest.raises(FileNotFoundError, match="speech_tokenizer is missing: the folder of the codec"):
        Qwen3TTSModel.from_pretrained(folder)


def as_a_tokenizer_json(folder: Path) -> None:
    """As transformers 5 saves it: one file with all tables, and properties in tokenizer_config.json."""
    config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    added = [{"id": int(i), **token} for i, token in config.pop("added_tokens_decoder").items()]
    merges = [line.split() for line in (folder / "merges.txt").read_text("utf-8").split("\n") if line]
    model = {"type": "BPE", "vocab": json.loads((folder / "vocab.json").read_text("utf-8")), "merges": merges}
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": added, "model": model}), "utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    (folder / "vocab.json").unlink()
    (folder / "merges.txt").unlink()


def test_a_tokenizer_of_transformers_5_is_read(copied, synthetic: Callable[..., Path]):
    folder = copied()
    as_a_tokenizer_json(folder)
    text = "Zwei Möwen<|im_end|> — 你好, iPhone!\n"
    expected = Tokenizer.from_directory(synthetic("tiny", "custom_voice")).encode(text)
    assert Tokenizer.from_directory(folder).encode(text) == expected
    assert describe(folder).problems == [] == tokenizer_problems(folder, describe(folder))
    (folder / "tokenizer_config.json").unlink()
    assert Tokenizer.from_directory(folder).encode(text) == expected


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model": {"type": "Unigram"}}, "the tokenizer is not a BPE"),
        ({"model": {"type": "BPE", "vocab": {}}}, "needs a vocab and a list of merges"),
        ({"added_tokens": {}}, "added_tokens must be a list"),
        (
            {"model": {"type": "BPE", "vocab": {"a": 1}, "merges": []}},
            "the id of 'a' is 1, not a whole number from 0 to 0",
        ),
    ],
)
def test_a_tokenizer_json_of_another_kind_is_named(copied, change, sentence):
    folder = copied()
    as_a_tokenizer_json(folder)
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | change), "utf-8")
    with pytest.raises(CheckpointError, match=rf"tokenizer\.json: .*{sentence}"):
        Tokenizer.from_directory(folder)


def test_rotary_frequencies_that_a_program_saved_are_not_in_the_way(copied):
    folder = copied()

    def add(header: dict[str, Any]) -> dict[str, Any]:
        end = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
        empty = {"dtype": "F32", "shape": [0], "data_offsets": [end, end]}
        return header | {"talker.model.rotary_emb.inv_freq": empty}

    edit_header(folder, add)
    Qwen3TTSModel.from_pretrained(folder, backend="reference")


def test_a_speaker_encoder_kept_by_training_is_not_in_the_way(copied, synthetic: Callable[..., Path]):
    def fine_tune(config: dict[str, Any]) -> None:
        config["tts_model_type"] = "custom_voice"
        config["talker_config"] |= {"spk_id": {"Ada": 300}, "spk_is_dialect": {"Ada": False}}

    folder = copied("base", fine_tune)
    assert b'"speaker_encoder.' in (folder / "model.safetensors").read_bytes()
    model = Qwen3TTSModel.from_pretrained(folder, backend="reference")
    assert model.speaker_encoder is None
    assert model.prepare("Hi.", CustomVoice("ADA")).prompt == model.prepare("Hi.", CustomVoice("ada")).prompt
    assert describe(folder).problems == []
    assert any("the speaker encoder is not used" in line for line in as_text(describe(folder), verified=False))


def with_speakers(names: dict[str, int]) -> Callable[[dict[str, Any]], None]:
    dialects = {name: "beijing_dialect" if name == "ADA" else False for name in names}
    return lambda config: config["talker_config"].update(spk_id=names, spk_is_dialect=dialects)


def test_speakers_that_differ_in_case_only_are_two(copied):
    model = Qwen3TTSModel.for_prompts(copied(change=with_speakers({"ADA": 300, "Ada": 301, "Bob": 302})))
    assert model.get_supported_speakers() == ["ADA", "Ada", "bob"]

    def tags(speaker: str) -> set[int | None]:
        return {position.codec for position in model.prepare("Hi.", CustomVoice(speaker)).prompt.prefill}

    dialect = model.config.talker_config.codec_language_id["beijing_dialect"]
    assert {300, dialect} <= tags("ADA") and 301 not in tags("ADA")
    assert 301 in tags("Ada") and not {300, dialect} & tags("Ada")
    assert tags("BOB") == tags("bob") == tags("Bob")
    with pytest.raises(RequestError, match="speaker 'ada' could be 'ADA' or 'Ada'; write the one you mean"):
        model.prepare("Hi.", CustomVoice("ada"))


def test_one_speaker_under_two_spellings_is_one(copied):
    model = Qwen3TTSModel.for_prompts(copied(change=with_speakers({"Ada": 300, "ada": 300})))
    assert model.get_supported_speakers() == ["ada"]
    model.prepare("Hi.", CustomVoice("ADA"))


def test_tensors_without_a_place_are_still_refused(copied):
    folder = copied()

    def add_an_empty_one(header: dict[str, Any]) -> dict[str, Any]:
        end = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
        return header | {"talker.extra": {"dtype": "F32", "shape": [0], "data_offsets": [end, end]}}

    edit_header(folder, add_an_empty_one)
    with pytest.raises(CheckpointError, match=r"talker\.extra"):
        Qwen3TTSModel.from_pretrained(folder, backend="reference")


def test_the_port_inside_transformers_is_refused_by_name(copied):
    folder = copied()
    names = {"talker.model.codec_embedding": "talker.model.embed_tokens", "linear_fc1": "linear_1"}

    def ported(name: str) -> str:
        for old, new in names.items():
            name = name.replace(old, new)
        return name.removeprefix("talker.")

    edit_header(folder, lambda header: {ported(name): entry for name, entry in header.items()})
    with pytest.raises(CheckpointError, match=r"port inside transformers.*take the original checkpoint"):
        Qwen3TTSModel.from_pretrained(folder, backend="reference")
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen3_tts", "talker_config": {}}), "utf-8")
    with pytest.raises(ConfigError, match=r"port inside transformers.*take the original checkpoint"):
        Qwen3TTSModel.from_pretrained(folder, backend="reference")
