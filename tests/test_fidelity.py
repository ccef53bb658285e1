"""``fidelity``: its numbers are those of the formats, its limits hold on synthetic models and can be broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qwen3tts_np_kernels.pack import linear_ref, pack

from qwen3tts_np import cli
from qwen3tts_np.checkpoint.safetensors import Checkpoint
from qwen3tts_np.layout.convert import convert
from qwen3tts_np.parity import fidelity as module
from qwen3tts_np.parity.fidelity import LIMITS, fidelity
from qwen3tts_np.parity.in_format import InFormat, IntegerMatrix

FORMATS = ["float32", "bfloat16", "float16", "int8", "int6", "int5", "int4"]
MATRIX = "talker.model.layers.0.mlp.up_proj.weight"


def test_the_limits_hold_on_a_synthetic_model(synthetic: Any) -> None:
    found = fidelity(synthetic("tiny", "custom_voice"), FORMATS, frames=8)
    assert [f.format for f in found] == FORMATS
    assert [f.problems for f in found] == [[]] * len(FORMATS)
    exact, *_, int8, int6, int5, int4 = found
    assert exact.talker.top1 == exact.code_predictor.top1 == 1
    assert max(exact.hidden.values()) == 0
    for better, worse in ((int8, int6), (int6, int5), (int5, int4)):
        assert better.code_predictor.divergence < worse.code_predictor.divergence
        assert all(better.hidden[layer] < worse.hidden[layer] for layer in better.hidden)
    assert len(int4.hidden) == 3 + 2, "every layer of talker and code predictor"


@pytest.mark.parametrize(("like", "kind"), [("tiny", "base"), ("tiny-1.7b", "voice_design")])
def test_and_on_those_without_a_voice_of_their_own(like: str, kind: str, synthetic: Any) -> None:
    assert [f.problems for f in fidelity(synthetic(like, kind), ["int8", "int4"], frames=6)] == [[], []]


@pytest.mark.parametrize(("name", "bits"), [("int8", 8), ("int4", 4)])
def test_a_matrix_multiplies_as_the_kernels_do(name: Any, bits: int, synthetic: Any) -> None:
    checkpoint = Checkpoint.open(synthetic("tiny", "custom_voice"))
    single = np.dtype(np.float32)
    weight = InFormat(checkpoint, name)[MATRIX].widen(single)
    x = np.random.RandomState(0).standard_normal((3, weight.shape[1])).astype(np.float32)
    expected = linear_ref(x, pack(checkpoint[MATRIX].widen(single), name), len(weight))
    assert isinstance(weight, IntegerMatrix)
    for rows, wanted in ((x, expected), (x[0], expected[0])):
        found = rows @ weight.T
        assert type(found) is np.ndarray
        assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()  # float32, another order of summation
    assert np.abs(x @ np.asarray(weight).T - expected).max() > 1e-3, "the other side is quantised as well"


@pytest.mark.parametrize("name", ["float16", "int8", "int5"])
def test_weights_are_those_that_convert_writes(name: str, synthetic: Any, tmp_path: Path) -> None:
    source = synthetic("tiny", "custom_voice")
    convert(source, tmp_path / name, name)
    written, made = Checkpoint.open(tmp_path / name), InFormat(Checkpoint.open(source), name)
    single = np.dtype(np.float32)
    for key in (MATRIX, "talker.codec_head.weight", "talker.model.norm.weight", "talker.model.codec_embedding.weight"):
        assert np.array_equal(np.asarray(made[key].widen(single)), written[key].widen(single)), key


def test_given_codes_are_read(synthetic: Any) -> None:
    codes = np.random.RandomState(1).randint(0, 128, (5, 16))
    (found,) = fidelity(synthetic("tiny", "custom_voice"), ["int4"], codes)
    assert found.frames == 5
    assert found.hidden != fidelity(synthetic("tiny", "custom_voice"), ["int4"], codes[::-1])[0].hidden


def test_a_limit_can_be_broken(synthetic: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """int4 does not pass for int8."""
    monkeypatch.setitem(LIMITS, "int4", LIMITS["int8"])
    arguments = ["fidelity", str(synthetic("tiny", "custom_voice")), "--format", "int4", "--frames", "6"]
    assert cli.main(arguments) == 1
    printed = capsys.readouterr().out
    assert "int4: code predictor: divergence" in printed
    assert "hidden state off by" in printed
    assert cli.main([*arguments, "--json"]) == 1
    assert len(json.loads(capsys.readouterr().out)[0]["problems"]) >= 2


def test_the_table(synthetic: Any, tmp_path: Path, capsys: Any) -> None:
    np.save(tmp_path / "codes.npy", np.random.RandomState(1).randint(0, 128, (4, 16)))
    model = str(synthetic("tiny", "custom_voice"))
    assert cli.main(["fidelity", model, "--format", "bfloat16", "--codes", str(tmp_path / "codes.npy")]) == 0
    printed = capsys.readouterr().out
    assert "bfloat16     100.0%" in printed
    assert "talker.code_predictor.model.layers.1" in printed


def test_a_quantised_checkpoint_is_compared_with_what_it_has_become(synthetic: Any, tmp_path: Path) -> None:
    """In its own format only the other operand of each product is rounded."""
    convert(synthetic("tiny", "custom_voice"), tmp_path / "int4", "int4")
    codes = np.random.RandomState(1).randint(0, 128, (4, 16))
    with pytest.warns(UserWarning, match="quantised already"):
        own, finer = fidelity(tmp_path / "int4", ["int4", "int8"], codes)
    (before,) = fidelity(synthetic("tiny", "custom_voice"), ["int4"], codes)
    for layer in own.hidden:
        assert max(own.hidden[layer], finer.hidden[layer]) < before.hidden[layer] / 2, layer


def test_all_formats_have_limits() -> None:
    assert list(LIMITS) == FORMATS == list(module.WEIGHT_FORMATS)
