"""Checkpoints that other programs have written: read where they mean the same, refused by name where they do not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qwen3tts_np import CheckpointError, ConfigError, CustomVoice, Qwen3TTSModel, RequestError
from qwen3tts_np.checkpoint.config_file import read_model_config
from qwen3tts_np.cli.info import as_text
from qwen3tts_np.layout.description import describe


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


def test_two_rotary_bases_are_one_too_many(copied):
    def change(config: dict[str, Any]) -> None:
        config["talker_config"] |= {"rope_theta": 1e6, "rope_parameters": {"rope_theta": 1e4}}

    with pytest.raises(ConfigError, match=r"rope_theta is 1000000.0, and 10000.0 in rope_parameters"):
        read_model_config(copied(change=change))


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "gptq"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "bitsandbytes"),
        ({"quantization": {"group_size": 64, "bits": 8}}, "MLX"),
    ],
)
def test_quantised_elsewhere_is_refused_by_name(copied, entry, name):
    with pytest.raises(ConfigError, match=f"quantised by {name} .*convert"):
        Qwen3TTSModel.from_pretrained(copied(change=lambda config: config.update(entry)))


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
