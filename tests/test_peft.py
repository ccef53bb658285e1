"""Adapters as the PEFT library writes and reads them (golden/record_peft.py): the same model, exactly."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from test_training_goldens import rope_angles_in_float64

from qwen3tts_np import Qwen3TTSModel
from qwen3tts_np.checkpoint.adapter import CODEC_EMBEDDING, A, Adapter, B
from qwen3tts_np.checkpoint.config_file import read_model_config
from qwen3tts_np.checkpoint.json_file import read_json
from qwen3tts_np.checkpoint.safetensors import Checkpoint
from qwen3tts_np.errors import CheckpointError
from qwen3tts_np.text.tokenizer import Tokenizer
from qwen3tts_np.training import stack
from qwen3tts_np.training.adapters import write_adapter
from qwen3tts_np.training.batch import Batch, utterance
from qwen3tts_np.training.network import HEAD, Network
from qwen3tts_np.training.parameters import Parameters

CASE = Path(__file__).parents[1] / "golden" / "cases" / "adapter_peft"
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((CASE / "case.json").read_text(encoding="utf-8"))
    return found | load_file(CASE / "inputs.safetensors") | load_file(CASE / "expected.safetensors")


@pytest.fixture
def base(synthetic: Callable[..., Path]) -> Path:
    return synthetic("tiny", "custom_voice")


@pytest.mark.parametrize("adapted", [False, True], ids=["without", "with"])
def test_losses_and_logits_are_those_of_peft(base, recorded, adapted, monkeypatch):
    """The additions beside the weights, in float64."""
    monkeypatch.setattr(stack, "rope_angles", rope_angles_in_float64)
    config, weights = read_model_config(base), Parameters.load(Checkpoint.open(base), dtype=np.float64)
    if adapted:
        adapter = Adapter.open(CASE)
        for module, (a, b) in adapter.additions.items():
            weights.arrays[module + A], weights.arrays[module + B] = a.astype(np.float64), b.astype(np.float64)
            weights.scales[module] = adapter.scale
        table = weights[f"{CODEC_EMBEDDING}.weight"]
        for row, values in adapter.rows.items():
            table[row] = values
    heads: list[Any] = []
    linear = Parameters.linear

    def noted(self: Parameters, x: Any, name: str) -> Any:
        y = linear(self, x, name)
        if name == HEAD:
            heads.append(y)
        return y

    monkeypatch.setattr(Parameters, "linear", noted)
    said = utterance(
        config, Tokenizer.from_directory(base), recorded["text"], recorded["codes"], speaker=recorded["speaker"]
    )
    found = Network(weights, config).loss(Batch([said], config.talker_config), learn=False)
    wanted = recorded["losses" if adapted else "losses_without"]
    assert (found.talker, found.predictor) == pytest.approx((wanted["talker"], wanted["sub_talker"]), rel=1e-12)
    apart = np.abs(heads[0] - recorded["logits"]).max() / np.abs(recorded["logits"]).max()
    assert apart < 1e-12 if adapted else apart > 1e-2


@pytest.mark.parametrize("backend", ["compiled", "reference"])
def test_it_says_what_the_official_package_says_with_it(base, recorded, backend):
    said = []
    for adapter in (CASE, None):
        model = Qwen3TTSModel.from_pretrained(base, adapter=adapter, backend=backend)
        _, _, codes = model.generate_custom_voice(
            recorded["text"], recorded["speaker"], return_codes=True, **recorded["request"]
        )
        said.append(codes[0])
    np.testing.assert_array_equal(said[0], recorded["codes.greedy"])
    assert said[1].shape != said[0].shape or (said[1] != said[0]).any()


def test_it_is_written_as_peft_writes_it(tmp_path):
    """Read and written again: the same tensors, and what the configurations share."""
    write_adapter(tmp_path, Adapter.open(CASE), "base", 64)
    ours, theirs = load_file(tmp_path / WEIGHTS), load_file(CASE / WEIGHTS)
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        assert ours[name].dtype == array.dtype
        np.testing.assert_array_equal(ours[name], array, err_msg=name)
    ours, theirs = read_json(tmp_path / CONFIG), read_json(CASE / CONFIG)
    apart = {"base_model_name_or_path", "target_modules"}
    assert {name: theirs[name] for name in ours.keys() - apart} == {name: ours[name] for name in ours.keys() - apart}
    ends = tuple(f".{name}" for name in theirs["target_modules"])  # PEFT shortens names to their last word
    assert all(name.endswith(ends) for name in ours["target_modules"])


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"use_qalora": True}, "use_qalora is True, which is not implemented here"),
        ({"layer_replication": [[0, 2]]}, r"layer_replication is \[\[0, 2\]\], which is not implemented here"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa', which changes the model's own weights"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_more_than_an_addition_is_refused(tmp_path, values, told):
    (tmp_path / WEIGHTS).write_bytes((CASE / WEIGHTS).read_bytes())
    (tmp_path / CONFIG).write_text(json.dumps({**read_json(CASE / CONFIG), **values}), encoding="utf-8")
    with pytest.raises(CheckpointError, match=told):
        Adapter.open(tmp_path)


def test_what_would_be_left_out_without_a_word_is_refused(tmp_path):
    """Half an addition, rows of another table, and nothing at all, as PEFT writes where it finds no trained weights."""
    (tmp_path / CONFIG).write_bytes((CASE / CONFIG).read_bytes())
    tensors = load_file(CASE / WEIGHTS)
    first = next(name for name in tensors if name.endswith("lora_A.weight"))
    half = {name: array for name, array in tensors.items() if name != first}
    rows = {
        "base_model.model.talker.model.text_embedding.token_adapter.trainable_tokens_delta": np.zeros((1, 32), "f4")
    }
    for found, told in ((half, "is no part of"), ({**tensors, **rows}, "is no part of"), ({}, "holds no addition")):
        save_file(found, tmp_path / WEIGHTS)
        with pytest.raises(CheckpointError, match=told):
            Adapter.open(tmp_path)
